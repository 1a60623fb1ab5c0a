"""From a typed code to the swarm key: one device, ten minutes, three guesses."""

from __future__ import annotations

import random

import msgpack
import pytest

from swarm import limits
from swarm.errors import RemoteProtocolError, SwarmKeyError
from swarm.net.keys import SwarmKey
from swarm.net.pairing import Code, Guesses, Invitation, Joiner, Party, Secret, new_code, parse_code
from swarm.wire.ids import PeerId

ANN, BOB = Party(PeerId("aa" * 16), "ann"), Party(PeerId("bb" * 16), "bob")
SECRET = Secret(bytes(range(32)), 5, 7417)
CODE = Code(7, "482915")
WRONG = Code(7, "482916")


def invitation() -> Invitation:
    return Invitation(CODE, ANN, SECRET, 0.0)


def join(invitation: Invitation, code: Code, now: float = 1.0) -> tuple[SwarmKey, int]:
    """A whole dialogue."""
    inviter = invitation.open(now)
    if inviter is None:
        raise SwarmKeyError("closed")
    joiner = Joiner(code, BOB)
    half = inviter.answer_request(joiner.answer_greeting(inviter.greeting()))
    return joiner.open_sealed(inviter.answer_confirm(joiner.answer_half(half), now))


def test_the_right_code_gives_the_swarm_key_and_names_who_joined() -> None:
    invited = invitation()
    assert join(invited, CODE) == (SwarmKey(SECRET.swarm_key, 5), 7417)
    assert invited.joined == BOB


def test_a_code_is_good_for_one_device() -> None:
    invited = invitation()
    join(invited, CODE)
    with pytest.raises(SwarmKeyError):
        join(invited, CODE)


def test_three_wrong_guesses_end_the_invitation() -> None:
    invited = invitation()
    for left in ("2 tries left", "1 try left", "ask for a new one"):
        with pytest.raises(SwarmKeyError, match=left):
            join(invited, WRONG)
    assert invited.is_over(1.0)
    with pytest.raises(SwarmKeyError):
        join(invited, CODE)


def test_dialogues_side_by_side_do_not_add_guesses() -> None:
    invited = invitation()
    confirms = []
    for i in range(10):
        inviter, joiner = invited.open(0.0), Joiner(WRONG if i < 9 else CODE, BOB)
        assert inviter is not None
        confirms.append(
            (inviter, joiner.answer_half(inviter.answer_request(joiner.answer_greeting(inviter.greeting()))))
        )
    for inviter, confirm in confirms:  # all were open before the first one guessed
        inviter.answer_confirm(confirm, 1.0)
    assert invited.wrong == limits.MAX_WRONG_GUESSES and invited.joined is None, "the tenth was right, and too late"


def test_dialogues_that_never_guess_block_nobody() -> None:
    invited = invitation()
    opened = [invited.open(0.0) for _ in range(50)]
    assert all(opened) and join(invited, CODE)


def test_a_code_is_confirmed_to_three_devices_at_most() -> None:
    """Whoever announces an invitation could test one code with each Confirm that he is given."""
    guesses = Guesses()

    def guess() -> None:
        inviter, joiner = Invitation(WRONG, ANN, SECRET, 0.0).open(0.0), Joiner(CODE, BOB, guesses)
        assert inviter is not None
        joiner.answer_half(inviter.answer_request(joiner.answer_greeting(inviter.greeting())))

    for _ in range(limits.MAX_WRONG_GUESSES):
        guess()
    with pytest.raises(SwarmKeyError, match="somebody interferes"):
        guess()


def test_an_invitation_ends_after_ten_minutes_even_within_a_dialogue() -> None:
    invited = invitation()
    assert invited.open(limits.INVITATION_S) is None
    inviter = invited.open(limits.INVITATION_S - 1)
    assert inviter is not None
    joiner = Joiner(CODE, BOB)
    half = inviter.answer_request(joiner.answer_greeting(inviter.greeting()))
    late = inviter.answer_confirm(joiner.answer_half(half), limits.INVITATION_S)
    with pytest.raises(SwarmKeyError):
        joiner.open_sealed(late)
    assert invited.joined is None


def test_one_in_the_middle_who_renames_the_joiner_is_found_out() -> None:
    invited = invitation()
    inviter = invited.open(0.0)
    assert inviter is not None
    joiner = Joiner(CODE, BOB)
    request = msgpack.unpackb(joiner.answer_greeting(inviter.greeting()))
    request[2] = "eve"
    half = inviter.answer_request(msgpack.packb(request))
    with pytest.raises(SwarmKeyError, match="wrong"):
        joiner.open_sealed(inviter.answer_confirm(joiner.answer_half(half), 0.0))


def test_a_false_inviter_learns_one_guess_and_gives_no_key() -> None:
    false = Invitation(WRONG, ANN, SECRET, 0.0).open(0.0)
    assert false is not None
    joiner = Joiner(CODE, BOB)
    half = false.answer_request(joiner.answer_greeting(false.greeting()))
    joiner.answer_half(half)
    sealed = msgpack.packb([b"x" * 80, 3])
    with pytest.raises(SwarmKeyError, match="somebody else"):
        joiner.open_sealed(sealed)


def test_nothing_that_travels_shows_the_code_or_the_key() -> None:
    invited = invitation()
    inviter = invited.open(0.0)
    assert inviter is not None
    joiner = Joiner(CODE, BOB)
    sent = [inviter.greeting()]
    sent.append(joiner.answer_greeting(sent[-1]))
    sent.append(inviter.answer_request(sent[-1]))
    sent.append(joiner.answer_half(sent[-1]))
    sent.append(inviter.answer_confirm(sent[-1], 0.0))
    assert not any(secret in data for data in sent for secret in (b"482915", SECRET.swarm_key))
    assert "482915" not in repr(invited.code)


@pytest.mark.parametrize("step", range(5))
def test_broken_messages_are_named_faults_at_every_step(step: int) -> None:
    seed = 11
    rng = random.Random(seed)
    for _ in range(100):
        inviter = invitation().open(0.0)
        assert inviter is not None
        joiner = Joiner(CODE, BOB)
        answers = [
            joiner.answer_greeting,
            inviter.answer_request,
            joiner.answer_half,
            lambda data, inviter=inviter: inviter.answer_confirm(data, 0.0),
            joiner.open_sealed,
        ]
        data = inviter.greeting()
        for answer in answers[:step]:
            data = answer(data)
        broken = bytearray(data)
        broken[rng.randrange(min(len(broken), 8))] ^= 1 + rng.randrange(255)
        for bad in (bytes(broken), data[:-1], b"", rng.randbytes(40), bytes(limits.MAX_PAIRING_BYTES + 1)):
            try:
                answers[step](bad)
            except (RemoteProtocolError, SwarmKeyError):
                continue
        if step in (1, 2, 4):
            break  # a side of SPAKE2 is used once; the arithmetic is slow


def test_a_half_that_is_no_point_is_a_named_fault() -> None:
    inviter = invitation().open(0.0)
    assert inviter is not None
    joiner = Joiner(CODE, BOB)
    request = msgpack.unpackb(joiner.answer_greeting(inviter.greeting()))
    for half in (b"B" + bytes(32), b"A" + request[3][1:], b"B" + b"\xff" * 32):
        request[3] = half
        with pytest.raises(RemoteProtocolError, match="not valid"):
            inviter.answer_request(msgpack.packb(request))


def test_another_version_says_so() -> None:
    greeting = msgpack.packb([[9, 0], bytes(16), "old"])
    with pytest.raises(RemoteProtocolError, match="update the older one"):
        Joiner(CODE, BOB).answer_greeting(greeting)


def test_codes_are_typed_with_or_without_dashes() -> None:
    assert str(CODE) == "7-482-915"
    for typed in ("7-482-915", "7482915", " 7 482 915 ", "748-2915"):
        assert parse_code(typed) == CODE
    for typed in ("", "482915", "74829155", "0482915", "7-482-91x", "٧٤٨٢٩١٥"):
        with pytest.raises(SwarmKeyError, match="not an invitation code"):
            parse_code(typed)


def test_new_codes_differ_and_can_be_typed() -> None:
    codes = {str(new_code()) for _ in range(200)}
    assert len(codes) > 190
    assert all(str(parse_code(code)) == code for code in codes)
