"""A session's place in the pipeline."""

from __future__ import annotations

from swarm.cluster.effects import StageId
from swarm.cluster.shards import Claim
from swarm.cluster.stage_session import RingPlace, RunningRows, Step, void_rows
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.records import Placement, Shard, Slice

A, B, C = (PeerId(c * 32) for c in "abc")
LEFT, RIGHT = Slice(0, 2, 0, 64, vocab_end=16), Slice(2, 4, 64, 128, vocab_start=16, vocab_end=32)
SHARDS = (
    Shard(C, 0, 3, True, False),
    Shard(A, 3, 6, False, True, slice=RIGHT),
    Shard(B, 3, 6, False, True, slice=LEFT),
)
PLACEMENT = Placement(ModelId("1" * 64), 7, C, 100, "q8_0", SHARDS)


def place(at: int) -> RingPlace:
    return RingPlace.of(Claim(PLACEMENT, SHARDS[at], frozenset(), 0, 0.0))


def test_a_device_alone_leads_and_has_no_others() -> None:
    first = place(0)
    assert first.leads and first.takes_ids and first.others == () and first.stage is None and first.slice == ()
    assert (first.before, first.after, first.ring_first, first.ring_last) == (None, A, C, A)


def test_members_share_a_stage_and_the_first_leads() -> None:
    leader, member = place(1), place(2)
    assert leader.leads and not member.leads and not member.takes_ids
    assert leader.leader == member.leader == A and leader.others == (B,) and member.others == (A,)
    assert leader.stage == member.stage == StageId(C, 7, 3) and leader.layers == member.layers
    assert leader.held == (3, 6, RIGHT.bounds) and member.held == (3, 6, LEFT.bounds) and member.kv == "q8_0"


def test_rows_for_the_others_ask_for_nothing() -> None:
    running = RunningRows(SessionId("d" * 32), 3, Step(5, (1, 2), True, b"12345678", 0.0), is_void=True)
    rows = void_rows(running, is_last=False)
    assert rows.is_void and not rows.sample and rows.ids == (1, 2) and rows.frame == b"12345678"
    assert void_rows(running, is_last=True).sample, "all members tell as many candidates"


def test_rows_for_the_others_are_as_many_where_some_are_guesses() -> None:
    running = RunningRows(SessionId("d" * 32), 3, Step(5, (1, 2), True, None, 0.0, n_guesses=1), is_void=True)
    assert void_rows(running, is_last=True).n_guesses == 1
