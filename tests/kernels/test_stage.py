"""Stages below Python: integers as bits, frames that may come and frames that may not, steps that end early."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import StageLost
from swarm.kernels import _native
from tests.helpers.stages import KEYS, add_up, close_all, coded, lone_stage, native_stages, socket_pair, together

I64 = npt.NDArray[np.int64]
HEADER = struct.Struct("<IBBBBQQII")
SUMS, PART, TOTAL, BYTES, REFUSAL = 1, 2, 3, 4, 5
ALL = 255
HIDDEN = 160


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


any_integer = st.integers(-(2**63), 2**63 - 1)
integers = st.lists(any_integer | st.integers(-5000, 5000) | st.integers(0, 40).map(lambda z: 1 << z), min_size=1)


# --- integers as bits


def added(body: bytes, n: int) -> I64:
    """What a body says, as the sums that it is added to."""
    near, far = np.zeros(n, np.int32), np.zeros(n, np.int64)
    wide = _native.add_sums(body, near, far)
    assert wide or not far.any()
    return near + far


@given(integers, st.integers(0, 30))
def test_integers_come_back(values: list[int], shift: int) -> None:
    sums = np.array(values, np.int64) << shift
    assert np.array_equal(added(coded(sums), len(sums)), sums)


@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-5000, 5000), min_size=1, max_size=300))
def test_small_integers_travel_from_32_bits_as_from_64(values: list[int]) -> None:
    near, far = np.array(values, np.int32), np.zeros(len(values), np.int64)
    body, wide = _native.encode_sums(near, far, False)
    assert body == coded(np.array(values, np.int64))
    assert np.array_equal(near + far, values) and wide == bool(far.any())
    assert np.array_equal(added(body, len(values)), values)


def test_what_all_members_add_within_32_bits_stays_within_them() -> None:
    near, far = np.full(128, 2**26, np.int32), np.zeros(128, np.int64)
    body, wide = _native.encode_sums(near, far, False)
    assert wide and not near.any()  # one more bit than sixteen members may each add
    near, far = np.full(128, 2**26 - 1, np.int32), np.zeros(128, np.int64)
    body, wide = _native.encode_sums(near, far, False)
    for _ in range(_native.MAX_STAGE_MEMBERS - 1):
        wide = _native.add_sums(body, near, far) or wide
    assert not wide and (near == 16 * (2**26 - 1)).all()


def test_small_integers_take_few_bits_and_common_zeros_none() -> None:
    values = np.arange(-16, 16).repeat(128).astype(np.int64)
    assert len(coded(values)) <= 4096 * 5 // 8 + 32
    assert len(coded(values << 20)) <= len(coded(values)) + 32
    assert len(coded(np.zeros(4096, np.int64))) == 32


@given(st.binary(max_size=600), st.integers(1, 300))
def test_any_bytes_are_integers_or_refused(body: bytes, n: int) -> None:
    try:
        sums = added(body, n)
    except ValueError:
        return
    assert np.array_equal(added(coded(sums), n), sums)


@given(integers, st.data())
def test_a_body_that_is_cut_or_longer_is_refused(values: list[int], data: st.DataObject) -> None:
    body = coded(np.array(values, np.int64))
    cut = data.draw(st.integers(0, len(body) - 1))
    for wrong in (body[:cut], body + b"\0", body + body):
        with pytest.raises(ValueError, match="not"):
            added(wrong, len(values))


# --- exchanges


def values_of(member: int, n_tokens: int, seed: int = 0) -> I64:
    rng = np.random.default_rng((seed, member))
    return (rng.standard_normal((n_tokens, HIDDEN)) * 10.0 ** rng.integers(0, 15, (n_tokens, 1))).astype(np.int64)


@pytest.mark.parametrize("aes", [False, True])
@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_everybody_gets_the_sum_of_all(n: int, aes: bool) -> None:
    stages = native_stages(n, aes=aes)
    lengths = [1, 15, 16, 17, 1, 100]

    def work(j: int) -> list[I64]:
        found = []
        for step, n_tokens in enumerate(lengths, start=1):
            stages[j].begin(step)
            for half in range(3):
                sums = values_of(j, n_tokens, half)
                assert not add_up(stages[j], sums)
                found.append(sums)
        return found

    totals = [sum(values_of(j, n_tokens, half) for j in range(n)) for n_tokens in lengths for half in range(3)]
    for found in together(work, n):
        assert isinstance(found, list), found
        assert all(np.array_equal(a, b) for a, b in zip(found, totals, strict=True))


@pytest.mark.parametrize("n_tokens", [1, 40])
def test_what_is_broken_at_one_is_broken_at_all(n_tokens: int) -> None:
    stages = native_stages(3)

    def work(j: int) -> bool:
        stages[j].begin(1)
        return add_up(stages[j], values_of(j, n_tokens), j == 1)

    assert together(work, 3) == [True] * 3


def test_the_leader_gathers_bytes_in_the_order_of_members() -> None:
    stages = native_stages(4)
    given = [b"", b"one", bytes(50_000), b"three"]

    def work(j: int) -> list[bytes] | None:
        stages[j].begin(1)
        add_up(stages[j], values_of(j, 1))
        found = stages[j].gather(given[j])
        add_up(stages[j], values_of(j, 1))
        return found

    assert together(work, 4) == [given, None, None, None]


def test_large_frames_both_ways_at_once_pass() -> None:
    stages = native_stages(2, n_values=4 << 20)

    def work(j: int) -> bool:
        stages[j].begin(1)
        sums = np.full((512, 8192), (1 << 50) + j, np.int64)
        add_up(stages[j], sums)
        return bool((sums == (2 << 50) + 1).all())

    assert together(work, 2) == [True, True]


# --- frames that may not come: member 0 is ours, member 1 is played


class Played:
    """A member that sends what it is told."""

    def __init__(self, n: int = 2, ceiling_ms: int = 5000, aes: bool = False) -> None:
        self.stage = lone_stage(0, n, ceiling_ms=ceiling_ms)
        ours, self.socket = socket_pair()
        rest = [socket_pair() for _ in range(2, n)]
        self.others = [theirs for _, theirs in rest]
        self.stage.open([None, ours, *(own for own, _ in rest)], KEYS[:n], aes)
        self.cipher: AESGCM | ChaCha20Poly1305 = AESGCM(KEYS[1]) if aes else ChaCha20Poly1305(KEYS[1])
        self.stage.begin(5)

    def frame(self, *, counter: int = 1, body: bytes | None = None, **changed: int) -> bytes:
        body = coded(values_of(1, 1).reshape(-1)) if body is None else body
        fields = {"kind": SUMS, "sender": 1, "to": ALL, "flags": 0, "sequence": 5, "half": 0, "n_tokens": 1} | changed
        f = fields
        header = HEADER.pack(
            f.get("n_bytes", len(body)), f["kind"], f["sender"], f["to"], f["flags"], counter, f["sequence"], f["half"],
            f["n_tokens"],
        )  # fmt: skip
        return header + self.cipher.encrypt(counter.to_bytes(8, "little") + bytes(4), body, header)

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def exchange(self) -> I64:
        sums = values_of(0, 1)
        add_up(self.stage, sums)
        return sums


@pytest.mark.parametrize("aes", [False, True])
def test_a_frame_as_the_protocol_has_it_is_taken(aes: bool) -> None:
    played = Played(aes=aes)
    played.send(played.frame(), played.frame(counter=9, half=1))
    for _ in range(2):
        assert np.array_equal(played.exchange(), values_of(0, 1) + values_of(1, 1))


def changed_at(i: int) -> Callable[[bytes], bytes]:
    return lambda frame: frame[:i] + bytes([frame[i] ^ 1]) + frame[i + 1 :]


WRONG = {
    "forged tag": lambda p: changed_at(-1)(p.frame()),
    "forged body": lambda p: changed_at(40)(p.frame()),
    "forged header": lambda p: changed_at(28)(p.frame()),
    "of another member": lambda p: p.frame(sender=0),
    "for another": lambda p: p.frame(to=1),
    "of a later half": lambda p: p.frame(half=1),
    "of another kind": lambda p: p.frame(kind=TOTAL),
    "of no kind": lambda p: p.frame(kind=77),
    "gathered too early": lambda p: p.frame(kind=BYTES),
    "other rows": lambda p: p.frame(n_tokens=2),
    "too few values": lambda p: p.frame(body=coded(np.ones(HIDDEN - 64, np.int64))),
    "too many values": lambda p: p.frame(body=coded(np.ones(HIDDEN + 64, np.int64))),
    "no values": lambda p: p.frame(body=b"\x7f" * 90),
    "longer than any": lambda p: p.frame(n_bytes=2**31),
    "counted from zero": lambda p: p.frame(counter=0),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_frame_is_refused_and_its_member_named(name: str) -> None:
    played = Played()
    played.send(WRONG[name](played))
    with pytest.raises(StageLost) as lost:
        played.exchange()
    assert (lost.value.member, lost.value.stage_over) == (1, True)
    with pytest.raises(StageLost):  # it stays so
        played.exchange()


def test_a_frame_of_a_step_that_is_over_counts_for_nothing() -> None:
    played = Played()
    played.send(played.frame(sequence=4), played.frame(counter=2))
    assert np.array_equal(played.exchange(), values_of(0, 1) + values_of(1, 1))


@pytest.mark.parametrize("again", [{}, {"half": 1}, {"counter": 2, "half": 0}])
def test_a_repeated_or_reordered_frame_is_refused(again: dict[str, int]) -> None:
    played = Played()
    played.send(played.frame(counter=2), played.frame(**({"counter": 1, "half": 1} | again)))
    played.exchange()
    with pytest.raises(StageLost, match=r"member 1 .*(twice|order)"):
        played.exchange()


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 200))
def test_no_bytes_pass_as_a_frame(noise: bytes, at: int) -> None:
    played = Played(ceiling_ms=5)
    good = played.frame()
    wrong = good[:at] + noise + good[at:]
    played.send(wrong)
    try:
        sums = played.exchange()
    except StageLost as lost:
        assert lost.member == 1
    else:  # the whole good frame came first
        assert at >= len(good) and np.array_equal(sums, values_of(0, 1) + values_of(1, 1))
    finally:
        close_all()


# --- steps and stages that end early


@pytest.mark.parametrize("answers", [False, True])
def test_a_closed_connection_ends_the_wait_and_names_the_member(answers: bool) -> None:
    played = Played(n=3)
    if answers:
        played.send(played.frame())
    threading.Timer(0.05, played.others[0].close if answers else played.socket.close).start()
    with pytest.raises(StageLost, match="closed") as lost:
        played.exchange()
    assert (lost.value.member, lost.value.stage_over) == (2 if answers else 1, True)


def test_who_never_answers_is_named_at_the_ceiling() -> None:
    played = Played(n=3, ceiling_ms=30)
    played.send(played.frame())
    with pytest.raises(StageLost, match="too long") as lost:
        played.exchange()
    assert lost.value.member == 2


def test_a_refused_step_ends_for_all_and_the_next_one_works() -> None:
    stages = native_stages(3)

    def work(j: int) -> tuple[int, bool, I64]:
        stages[j].begin(1)
        add_up(stages[j], values_of(j, 1))
        if j == 2:
            stages[2].refuse(2, "no such session")
            member, over = 2, False
        else:
            stages[j].begin(2)
            with pytest.raises(StageLost, match="no such session") as lost:
                for half in range(5):
                    add_up(stages[j], values_of(j, 1, half))
            member, over = lost.value.member, lost.value.stage_over
        sums = values_of(j, 1)
        stages[j].begin(3)
        add_up(stages[j], sums)
        return member, over, sums

    total = sum(values_of(j, 1) for j in range(3))
    for found in together(work, 3):
        assert isinstance(found, tuple), found
        assert found[:2] == (2, False)
        assert np.array_equal(found[2], total)


@pytest.mark.parametrize("n_tokens", [1, 64])
def test_steps_that_are_refused_in_the_middle_leave_nothing_behind(n_tokens: int) -> None:
    """Whoever refuses, whenever: all agree which steps went well, and those have the right sums."""
    stages = native_stages(3, n_values=64 * 8192)
    rng = np.random.default_rng(n_tokens)
    plan = [(int(rng.integers(0, 6)), int(rng.integers(0, 3))) for _ in range(60)]  # half, member; 4 and 5: none

    def work(j: int) -> list[str]:
        found = []
        for step, (half, member) in enumerate(plan, start=1):
            stages[j].begin(step)
            try:
                for h in range(4):
                    if (h, j) == (half, member):
                        stages[j].refuse(step, "not now")
                    sums = np.full((n_tokens, 8192), (step << 40) + h, np.int64)
                    add_up(stages[j], sums)
                    assert (sums == 3 * ((step << 40) + h)).all()
                found.append("done")
            except StageLost as lost:
                assert not lost.stage_over, lost
                found.append(f"refused by {lost.member}")
        return found

    expected = [f"refused by {member}" if half < 4 else "done" for half, member in plan]
    assert together(work, 3) == [expected] * 3


def test_a_step_may_be_refused_before_others_come_to_it() -> None:
    stages = native_stages(2)
    stages[1].refuse(7, "a session is not here")

    def work(j: int) -> str:
        stages[j].begin(6)
        add_up(stages[j], values_of(j, 1))
        if j == 1:
            return "knows"
        stages[j].begin(7)
        with pytest.raises(StageLost) as lost:
            add_up(stages[j], values_of(j, 1))
        return lost.value.text

    assert together(work, 2) == ["a session is not here", "knows"]


def test_another_thread_ends_the_stage_and_the_others_hear_who_is_to_blame() -> None:
    """Member 2 is frozen; member 0 hears of it from outside."""
    stages = native_stages(3)
    threading.Timer(0.05, lambda: stages[0].refuse(None, "its heartbeats ended", 2)).start()

    def work(j: int) -> tuple[int, bool]:
        if j == 2:
            return 2, True
        stages[j].begin(1)
        with pytest.raises(StageLost, match=r"member 2 .*heartbeats") as lost:
            add_up(stages[j], values_of(j, 1))
        return lost.value.member, lost.value.stage_over

    assert together(work, 3) == [(2, True)] * 3


def test_a_member_that_refuses_without_end_ends_the_stage() -> None:
    played = Played()
    played.send(*(played.frame(kind=REFUSAL, counter=i, sequence=5 + i, body=b"no") for i in range(1, 20)))
    with pytest.raises(StageLost) as lost:
        played.exchange()
    assert (lost.value.member, lost.value.stage_over) == (1, True)


def test_what_a_member_gives_as_a_reason_is_shown_without_its_controls() -> None:
    played = Played()
    played.send(played.frame(kind=REFUSAL, flags=200, body=b"\x1b[2Jgone\nfor good" + b"x" * 400))
    with pytest.raises(StageLost) as lost:
        played.exchange()
    assert lost.value.member == 1
    assert lost.value.text.startswith("[2Jgone for good") and len(lost.value.text) < 200


def test_a_stage_that_is_not_open_exchanges_nothing() -> None:
    stage = lone_stage(0, 2)
    stage.begin(1)
    with pytest.raises(StageLost, match="not all members"):
        add_up(stage, values_of(0, 1))


def test_steps_go_forward_only() -> None:
    stage = lone_stage(0, 2)
    stage.begin(3)
    for sequence in (3, 2):
        with pytest.raises(ValueError, match="after step 3"):
            stage.begin(sequence)


def test_a_stage_takes_only_what_it_has_room_for() -> None:
    stage = native_stages(2, n_values=HIDDEN)[0]
    with pytest.raises(ValueError, match="room"):
        add_up(stage, values_of(0, 2))
    with pytest.raises(ValueError, match="room"):
        stage.gather(bytes(HIDDEN + 1))


@pytest.mark.parametrize(("me", "n"), [(0, 1), (2, 2), (-1, 2), (0, 17)])
def test_a_stage_has_two_to_sixteen_members(me: int, n: int) -> None:
    with pytest.raises(ValueError, match="stage has"):
        lone_stage(me, n)


def test_what_a_stage_sends_is_sealed() -> None:
    played = Played()
    played.send(played.frame())
    played.exchange()
    sent = played.socket.recv(1 << 16)
    body = coded(values_of(0, 1).reshape(-1))
    n_bytes, kind, sender, to, flags, counter, sequence, half, n_tokens = HEADER.unpack(sent[: HEADER.size])
    assert (kind, sender, to, flags, counter, sequence, half, n_tokens) == (SUMS, 0, ALL, 0, 1, 5, 0, 1)
    assert len(sent) == HEADER.size + n_bytes + 16 and body[:16] not in sent
    nonce = counter.to_bytes(8, "little") + bytes(4)
    assert ChaCha20Poly1305(KEYS[0]).decrypt(nonce, sent[HEADER.size :], sent[: HEADER.size]) == body
