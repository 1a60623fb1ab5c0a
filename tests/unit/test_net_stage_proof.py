"""Members of a stage prove to each other that they are; nobody else can, whatever they repeat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import RemoteProtocolError
from swarm.net.stage_proof import MESSAGE_BYTES, READY_BYTES, StageProof, stage_key, tag_of

KEY = stage_key(bytes(32), "author", 3, 0)


def proof(me: int, key: bytes = KEY, n: int = 3) -> StageProof:
    return StageProof(key, me, n, True)


def test_two_members_prove_themselves_to_each_other() -> None:
    caller, called = proof(2), proof(1)
    mine = caller.introduce(1)
    hello = caller.hello(mine)
    assert len(hello) == MESSAGE_BYTES and tag_of(hello) == called.tag
    theirs = called.check_hello(hello)
    assert theirs == mine
    answer = called.introduce(theirs.sender)
    welcome = called.welcome(answer, theirs)
    assert len(welcome) == MESSAGE_BYTES
    assert caller.check_welcome(welcome, mine) == answer
    ready = caller.ready(mine, answer)
    assert len(ready) == READY_BYTES
    called.check_ready(ready, theirs, answer)
    assert caller.sending_key(1, called.salt) == called.sending_key(1, called.salt)


def test_each_link_and_each_member_sends_with_a_key_of_its_own() -> None:
    keys = {proof(j).sending_key(j, p.salt) for j in range(3) for p in [proof(j) for _ in range(5)]}
    assert len(keys) == 15


def test_each_stage_of_a_placement_has_a_key_of_its_own() -> None:
    stages = [(b"s" * 32, "author", 3, 0), (b"s" * 32, "author", 3, 8), (b"s" * 32, "author", 4, 0)]
    stages += [(b"t" * 32, "author", 3, 0), (b"s" * 32, "other", 3, 0)]
    assert len({stage_key(*stage) for stage in stages}) == len(stages)


@pytest.mark.parametrize(
    "caller",
    [
        lambda: (proof(2, bytes(32)), 1),  # of another stage
        lambda: (proof(0), 1),  # who is to be called
        lambda: (proof(1), 1),  # ourselves
        lambda: (proof(3, n=4), 1),  # no member
        lambda: (proof(2), 0),  # that means another member
    ],
)
def test_a_hello_that_no_member_sends_to_us_is_refused(caller: object) -> None:
    assert callable(caller)
    sender, to = caller()
    with pytest.raises(RemoteProtocolError):
        proof(1).check_hello(sender.hello(sender.introduce(to)))


def test_a_recorded_hello_opens_nothing() -> None:
    caller, called = proof(2), proof(1)
    mine = caller.introduce(1)
    first, second = called.introduce(2), called.introduce(2)
    recorded = caller.ready(mine, first)
    with pytest.raises(RemoteProtocolError, match="did not prove"):
        called.check_ready(recorded, mine, second)


def test_a_welcome_of_another_member_or_to_another_hello_is_refused() -> None:
    caller, called = proof(2), proof(1)
    mine, other = caller.introduce(1), caller.introduce(1)
    stranger = proof(0)
    with pytest.raises(RemoteProtocolError):
        caller.check_welcome(called.welcome(called.introduce(2), other), mine)
    with pytest.raises(RemoteProtocolError, match="answers for"):
        caller.check_welcome(stranger.welcome(stranger.introduce(2), mine), mine)
    with pytest.raises(RemoteProtocolError):  # our own hello, sent back
        caller.check_welcome(caller.hello(mine), mine)


@given(st.data())
def test_a_changed_message_is_refused(data: st.DataObject) -> None:
    caller, called = proof(2), proof(1)
    hello = bytearray(caller.hello(caller.introduce(1)))
    hello[data.draw(st.integers(0, len(hello) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteProtocolError):
        called.check_hello(bytes(hello))


@given(st.binary(max_size=2 * MESSAGE_BYTES))
def test_no_bytes_are_a_proof(noise: bytes) -> None:
    caller, called = proof(2), proof(1)
    mine = caller.introduce(1)
    for check in (
        lambda: called.check_hello(noise),
        lambda: caller.check_welcome(noise, mine),
        lambda: called.check_ready(noise, mine, called.introduce(2)),
    ):
        with pytest.raises(RemoteProtocolError):
            check()
