"""A stage of other nodes' sessions: what it takes, what it drops, in which order it computes."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from msgspec.structs import replace as replace_struct

from swarm import limits
from swarm.cluster.cost import LayerCost, ModelCost, MtpCost
from swarm.cluster.cuts import Cuts
from swarm.cluster.effects import (
    AbortStage,
    Buffer,
    CloseStage,
    Compute,
    DropKv,
    Effect,
    Load,
    OpenKv,
    Send,
    SessionRows,
    StageId,
    StepOutput,
    Together,
)
from swarm.cluster.guesses import StageGuesses
from swarm.cluster.memory import Ledger
from swarm.cluster.shards import Shards
from swarm.cluster.stage_session import Step
from swarm.cluster.stage_sessions import StageSessions
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import (
    Activation,
    Message,
    PlacementCommit,
    PlacementOffer,
    Prefilled,
    SessionClose,
    SessionError,
    SessionOpen,
    SessionProbe,
    SessionProbed,
    SessionReply,
    StageStep,
    Token,
    Tokens,
)
from swarm.wire.records import Placement, Sampling, Shard, Slice, StageRows, TensorInfo

ENTRY, FIRST, MIDDLE, LAST = (PeerId(c * 32) for c in "e123")
MODEL = ModelId("1" * 64)
S1, S2, S3 = SessionId("c" * 32), SessionId("d" * 32), SessionId("e" * 32)
CUTS = Cuts((4, 128, 0, 0, 32), (1, 64, 64, 64, 16), 2)
LAYER = LayerCost(100, 1, 1, query_bytes=40, key_bytes=20, ffn_bytes=40)
COST = ModelCost("m", (LAYER,) * 6, 50, 50, 8, 1, cuts=CUTS)
RING = (Shard(FIRST, 0, 2, True, False), Shard(MIDDLE, 2, 4, False, False), Shard(LAST, 4, 6, False, True))
END_ID = 9


class Stage(StageSessions):
    """After each event the next step begins, as the core does it."""

    def open(self, sender: PeerId, message: SessionOpen, now: float) -> list[Effect]:
        return super().open(sender, message, now) + self.next_step(now)

    def tokens(self, sender: PeerId, message: Tokens, ids: tuple[int, ...], now: float) -> list[Effect]:
        return super().tokens(sender, message, ids, now) + self.next_step(now)

    def activation(self, sender: PeerId, message: Message, frame: Buffer | None, now: float) -> list[Effect]:
        return super().activation(sender, message, frame, now) + self.next_step(now)

    def token(self, sender: PeerId, message: Token, now: float) -> list[Effect]:
        return super().token(sender, message, now) + self.next_step(now)

    def stage_step(self, sender: PeerId, message: Message, frame: Buffer | None, now: float) -> list[Effect]:
        return super().stage_step(sender, message, frame, now) + self.next_step(now)

    def computed(self, job: int, outputs: Sequence[StepOutput], now: float) -> list[Effect]:
        return super().computed(job, outputs, now) + self.next_step(now)


def give(stage: StageSessions, job: int, output: StepOutput, now: float) -> list[Effect]:
    """The worker is done with a step, which gave each of its sessions this."""
    n_rows = len(stage.running.rows) if stage.running is not None else 1
    return stage.computed(job, [output] * n_rows, now)


def stage_of(me: PeerId, memory: int = 5000, ring: tuple[Shard, ...] = RING) -> StageSessions:
    """A stage with its shard of the ring loaded for ENTRY."""
    ledger = Ledger(memory)
    shards = Shards(me, ledger, 7000)
    shards.model_known(MODEL, COST, 0.0)
    placement = Placement(MODEL, 1, ENTRY, 100, "f16", ring)
    shards.offer(PlacementOffer(placement), 0.0)
    for effect in shards.commit(PlacementCommit(placement, bytes(32), (7000,) * len(ring)), 0.0):
        if isinstance(effect, Load):
            shards.parts_loaded(effect.ticket, 0.0)
    return Stage(me, ledger, shards)


def opening(
    epoch: int = 2, session: SessionId = S1, *, keep: int = 0, context: int = 100, **more: object
) -> SessionOpen:
    sampling = more.pop("sampling", Sampling(seed=1))
    assert isinstance(sampling, Sampling)
    return SessionOpen(session, MODEL, epoch, 1, ENTRY, context, keep, sampling, (END_ID,))


def opened(me: PeerId, **more: int) -> StageSessions:
    stage = stage_of(me)
    assert answer(stage.open(ENTRY, opening(**more), 0.0)).accepted
    return stage


def sent(effects: list[Effect]) -> list[tuple[PeerId, Message]]:
    return [(e.to, e.message) for e in effects if isinstance(e, Send)]


def answer(effects: list[Effect]) -> SessionReply:
    (reply,) = [m for _, m in sent(effects) if isinstance(m, SessionReply)]
    return reply


def computes(effects: list[Effect]) -> list[Compute]:
    return [e for e in effects if isinstance(e, Compute)]


def rows_of(job: Compute) -> SessionRows:
    (rows,) = job.rows
    return rows


def ids(
    stage: StageSessions, position: int, *tokens: int, epoch: int = 2, session: SessionId = S1, now: float = 0.0
) -> list[Effect]:
    message = Tokens(session, epoch, position, TensorInfo("i32", (len(tokens),)), True)
    return stage.tokens(ENTRY, message, tokens, now)


def activation(position: int, *tokens: int, epoch: int = 2, layer: int = 2, sample: bool = True) -> Activation:
    return Activation(S1, epoch, position, layer, TensorInfo("f32", (len(tokens), 8)), sample, tokens)


def frame(n_rows: int) -> bytes:
    return bytes(4 * 8 * n_rows)


def test_opening_reserves_kv_and_is_answered() -> None:
    stage = stage_of(FIRST)
    effects = stage.open(ENTRY, opening(), 0.0)
    assert OpenKv(S1, MODEL, 0, 2, 100, 0) in effects
    assert (
        answer(effects) == SessionReply(S1, 2, True, "", 0, guesses=True, waits=True, begins_earlier=True)
        and stage.ledger.kv[S1].n_bytes == 200
    )


def test_only_the_entry_node_opens_and_a_stranger_opens_nothing() -> None:
    stage = stage_of(FIRST)
    assert stage.open(LAST, opening(), 0.0) == [] and stage.dropped["stranger"] == 1


def test_without_its_placement_nothing_is_opened() -> None:
    stage = stage_of(FIRST)
    stage.shards.author_gone(ENTRY, restarted=False)
    assert not answer(stage.open(ENTRY, opening(), 0.0)).accepted


def test_the_same_opening_is_answered_the_same_and_an_older_one_is_stale() -> None:
    stage = opened(FIRST, epoch=5)
    assert answer(stage.open(ENTRY, opening(5), 0.0)).accepted
    assert stage.open(ENTRY, opening(4), 0.0) == [] and stage.dropped["stale"] == 1


def test_kv_beyond_the_memory_is_refused_with_what_is_missing() -> None:
    stage = stage_of(FIRST, memory=460)
    reply = answer(stage.open(ENTRY, opening(context=200), 0.0))
    assert not reply.accepted and reply.missing_bytes == 250 + 400 - 460


def test_resting_kv_makes_way_for_a_new_session() -> None:
    stage = stage_of(FIRST, memory=460)
    assert answer(stage.open(ENTRY, opening(), 0.0)).accepted
    assert not answer(stage.open(ENTRY, opening(3, S2), 0.0)).accepted
    stage.close(ENTRY, SessionClose(S1, 2, True), 1.0)
    effects = stage.open(ENTRY, opening(4, S2), 1.0)
    assert DropKv(S1) in effects and answer(effects).accepted


def test_the_first_stage_embeds_and_sends_on() -> None:
    stage = opened(FIRST)
    (job,) = computes(ids(stage, 0, 5, 6, 7))
    rows = rows_of(job)
    assert (job.first, job.end, rows.position, rows.ids, rows.sample) == (0, 2, 0, (5, 6, 7), False)
    ((to, onward),) = sent(give(stage, job.job, StepOutput(b"x", TensorInfo("f32", (3, 8))), 0.0))
    assert to == MIDDLE and isinstance(onward, Activation)
    assert (onward.position, onward.layer, onward.ids, onward.sample) == (0, 2, (5, 6, 7), True)


def test_the_last_stage_samples_for_the_first_one_and_the_entry_node() -> None:
    stage = opened(LAST)
    (job,) = computes(stage.activation(MIDDLE, activation(0, 5, layer=4), frame(1), 0.0))
    assert rows_of(job).sample
    messages = sent(give(stage, job.job, StepOutput(token=8), 0.0))
    assert messages == [(FIRST, Token(S1, 2, 1, 8)), (ENTRY, Token(S1, 2, 1, 8))]


def test_a_batch_without_sampling_is_reported_to_the_entry_node() -> None:
    stage = opened(LAST)
    (job,) = computes(stage.activation(MIDDLE, activation(0, 5, 6, layer=4, sample=False), frame(2), 0.0))
    assert sent(give(stage, job.job, StepOutput(), 0.0)) == [(ENTRY, Prefilled(S1, 2, 2))]


def test_a_token_begins_the_next_step_on_the_first_stage() -> None:
    stage = opened(FIRST)
    (job,) = computes(ids(stage, 0, 5))
    give(stage, job.job, StepOutput(b"x", TensorInfo("f32", (1, 8))), 0.0)
    (step,) = computes(stage.token(LAST, Token(S1, 2, 1, 8), 0.0))
    assert (rows_of(step).position, rows_of(step).ids) == (1, (8,))


@pytest.mark.parametrize(("position", "token"), [(1, END_ID), (99, 8)])
def test_the_ring_stops_at_an_end_token_and_at_the_context(position: int, token: int) -> None:
    stage = opened(FIRST)
    stage.sessions[S1].expected = position
    stage.sessions[S1].ids = [0] * position
    assert stage.token(LAST, Token(S1, 2, position, token), 0.0) == []


def test_every_position_is_taken_once_and_in_order() -> None:
    stage = opened(MIDDLE)
    assert computes(stage.activation(FIRST, activation(0, 5), frame(1), 0.0))
    assert stage.activation(FIRST, activation(0, 5), frame(1), 0.0) == [] and stage.dropped["duplicate"] == 1
    assert stage.activation(FIRST, activation(2, 5), frame(1), 0.0) == [] and stage.dropped["gap"] == 1


@pytest.mark.parametrize(("epoch", "why"), [(1, "stale"), (3, "early")])
def test_other_epochs_are_counted_and_dropped(epoch: int, why: str) -> None:
    stage = opened(MIDDLE)
    assert stage.activation(FIRST, activation(0, 5, epoch=epoch), frame(1), 0.0) == []
    assert stage.dropped[why] == 1


def test_data_from_the_wrong_stage_or_for_the_wrong_layer_is_dropped() -> None:
    stage = opened(MIDDLE)
    assert stage.activation(LAST, activation(0, 5), frame(1), 0.0) == []
    assert stage.activation(FIRST, activation(0, 5, layer=3), frame(1), 0.0) == []
    assert stage.tokens(ENTRY, Tokens(S1, 2, 0, TensorInfo("i32", (1,)), True), (5,), 0.0) == []
    assert stage.dropped["stranger"] == 3


def test_shapes_that_do_not_match_and_positions_beyond_the_context_are_dropped() -> None:
    stage = opened(MIDDLE)
    wrong = Activation(S1, 2, 0, 2, TensorInfo("f32", (2, 8)), True, (5,))
    assert stage.activation(FIRST, wrong, frame(2), 0.0) == []
    assert stage.activation(FIRST, activation(0, *range(101)), frame(101), 0.0) == []
    assert stage.dropped["malformed"] == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_activations_that_are_no_numbers_are_told_to_the_entry_node_and_not_computed(value: float) -> None:
    stage = opened(MIDDLE)
    hostile = array("f", [0.0] * 7 + [value]).tobytes()
    ((to, error),) = sent(stage.activation(FIRST, activation(0, 5), hostile, 0.0))
    assert to == ENTRY and isinstance(error, SessionError) and error.fault == "failed" and error.by_input
    assert stage.activation(FIRST, activation(0, 5), frame(1), 0.0) == [] and stage.dropped["closed"] == 1


def test_activations_of_another_width_or_length_are_no_result() -> None:
    for hidden, n_bytes in ((4, 16), (8, 16), (8, 64)):
        stage = opened(MIDDLE)
        wrong = Activation(S1, 2, 0, 2, TensorInfo("f32", (1, hidden)), True, (5,))
        ((_, error),) = sent(stage.activation(FIRST, wrong, bytes(n_bytes), 0.0))
        assert isinstance(error, SessionError) and error.by_input


def test_a_token_that_the_model_does_not_have_is_not_computed() -> None:
    stage = opened(FIRST)
    (job,) = computes(ids(stage, 0, 5))
    give(stage, job.job, StepOutput(b"x", TensorInfo("f32", (1, 8))), 0.0)
    stage.sessions[S1].model = replace(stage.sessions[S1].model, vocabulary=100)
    assert stage.token(LAST, Token(S1, 2, 1, 100), 0.0) == [] and stage.dropped["malformed"] == 1
    assert stage.token(LAST, Token(S1, 2, 1, 99), 0.0)


def test_the_queue_of_a_session_is_bounded() -> None:
    stage = opened(MIDDLE)
    for i in range(limits.MAX_SESSION_JOBS + 5):
        stage.activation(FIRST, activation(i, 5), frame(1), 0.0)
    assert len(stage.sessions[S1].steps) == limits.MAX_SESSION_JOBS and stage.dropped["full"] > 0


def test_a_result_of_an_older_epoch_is_not_sent_on() -> None:
    stage = opened(FIRST)
    (job,) = computes(ids(stage, 0, 5, 6))
    reply = answer(stage.open(ENTRY, opening(3, keep=1), 0.0))
    assert reply.have == 0, "what is being computed is not kept"
    assert sent(give(stage, job.job, StepOutput(b"x", TensorInfo("f32", (2, 8))), 0.0)) == []


def test_opening_again_keeps_kv_up_to_what_is_asked_for() -> None:
    stage = opened(FIRST)
    (job,) = computes(ids(stage, 0, 5, 6, 7))
    give(stage, job.job, StepOutput(b"x", TensorInfo("f32", (3, 8))), 0.0)
    effects = stage.open(ENTRY, opening(3, keep=2), 0.0)
    assert answer(effects).have == 2 and OpenKv(S1, MODEL, 0, 2, 100, 2) in effects
    assert computes(ids(stage, 2, 9, epoch=3))


def test_decode_steps_go_before_prefill_batches_until_one_has_waited_too_long() -> None:
    stage = opened(FIRST)
    stage.open(ENTRY, opening(3, S2), 0.0)
    (running,) = computes(ids(stage, 0, 1))
    ids(stage, 0, 5, 6, 7, epoch=3, session=S2, now=0.0)
    ids(stage, 1, 2, now=0.01)
    (following,) = computes(give(stage, running.job, StepOutput(b"x", TensorInfo("f32", (1, 8))), 0.02))
    assert rows_of(following).session == S1
    ids(stage, 2, 3, now=0.03)
    late = 0.1 + limits.PREFILL_PATIENCE_S
    assert stage.running is not None
    (batch,) = computes(give(stage, stage.running.job, StepOutput(b"x", TensorInfo("f32", (1, 8))), late))
    assert [(rows.session, rows.ids) for rows in batch.rows] == [(S2, (5, 6, 7)), (S1, (3,))], "decode goes along"


def test_what_comes_while_a_step_runs_shares_the_next_one_and_each_session_gets_its_own() -> None:
    stage = opened(FIRST)
    stage.open(ENTRY, opening(3, S2), 0.0)
    stage.open(ENTRY, opening(3, S3), 0.0)
    (running,) = computes(ids(stage, 0, 1))
    ids(stage, 0, 4, epoch=3, session=S2)
    ids(stage, 0, 7, epoch=3, session=S3)
    (shared,) = computes(give(stage, running.job, StepOutput(b"x", TensorInfo("f32", (1, 8))), 0.01))
    assert [rows.session for rows in shared.rows] == [S2, S3]
    info = TensorInfo("f32", (1, 8))
    outputs = [StepOutput(b"2", info), StepOutput(error="no memory")]
    effects = [e for e in stage.computed(shared.job, outputs, 0.02) if isinstance(e, Send)]
    (onward, failed) = ((e.message, e.frame) for e in effects)
    assert isinstance(onward[0], Activation) and onward[0].session == S2 and onward[1] == b"2"
    assert failed[0] == SessionError(S3, 3, "failed", "no memory"), "one that fails is alone with it"


def test_a_session_that_is_closed_while_it_shares_a_step_takes_nobody_along() -> None:
    stage = opened(LAST)
    stage.open(ENTRY, opening(3, S2), 0.0)
    (running,) = computes(stage.activation(MIDDLE, activation(0, 5, layer=4), frame(1), 0.0))
    stage.activation(MIDDLE, activation(1, 5, layer=4), frame(1), 0.0)
    stage.activation(MIDDLE, msgspec.structs.replace(activation(0, 6, layer=4), session=S2, epoch=3), frame(1), 0.0)
    (shared,) = computes(stage.computed(running.job, [StepOutput(token=8)], 0.0))
    assert [rows.session for rows in shared.rows] == [S1, S2]
    stage.close(ENTRY, SessionClose(S1, 2, False), 0.0)
    outputs = [StepOutput(token=5), StepOutput(token=6)]
    assert {m for _, m in sent(stage.computed(shared.job, outputs, 0.0))} == {Token(S2, 3, 1, 6)}


def test_sessions_take_turns_where_rows_together_cost_more() -> None:
    stage = opened(FIRST)
    stage.open(ENTRY, opening(3, S2), 0.0)
    layers = stage.sessions[S1].place.layers
    for _ in range(limits.ROW_COSTS_NEEDED):
        stage.turns.took(layers, 1, 1.0)
        stage.turns.took(layers, 2, 3.0)
    order = [rows_of(job).session for job in computes(ids(stage, 0, 1))]
    for position in (1, 2):
        ids(stage, position, 1)
    for position in (0, 1):
        ids(stage, position, 1, epoch=3, session=S2)
    while stage.running is not None:
        order += [
            rows_of(job).session
            for job in computes(give(stage, stage.running.job, StepOutput(b"x", TensorInfo("f32", (1, 8))), 0.0))
        ]
    assert order == [S1, S1, S2, S1, S2]


def test_without_its_entry_node_a_session_stands_still_and_its_kv_is_a_cache() -> None:
    stage = opened(FIRST)
    (job,) = computes(ids(stage, 0, 5))
    stage.entry_gone(ENTRY, 1.0, restarted=False)
    assert sent(give(stage, job.job, StepOutput(b"x", TensorInfo("f32", (1, 8))), 1.0)) == []
    assert stage.token(LAST, Token(S1, 2, 1, 8), 1.0) == [] and not stage.ledger.kv[S1].running
    assert answer(stage.open(ENTRY, opening(7, keep=1), 2.0)).have == 1


def test_a_restarted_entry_node_has_no_sessions_any_more() -> None:
    stage = opened(FIRST)
    assert stage.entry_gone(ENTRY, 1.0, restarted=True) == [DropKv(S1)] and not stage.sessions


def test_an_open_session_that_stands_still_for_long_makes_way_but_wakes_up() -> None:
    stage = opened(FIRST)
    stage.tick(limits.IDLE_KV_S + 1)
    assert not stage.ledger.kv[S1].running
    assert computes(ids(stage, 0, 5, now=limits.IDLE_KV_S + 2)) and stage.ledger.kv[S1].running


def test_a_step_that_fails_is_told_to_the_entry_node() -> None:
    stage = opened(FIRST)
    (job,) = computes(ids(stage, 0, 5))
    assert sent(give(stage, job.job, StepOutput(error="out of memory"), 0.0)) == [
        (ENTRY, SessionError(S1, 2, "failed", "out of memory"))
    ]


def test_the_first_data_of_an_epoch_may_begin_before_what_was_kept_and_no_other() -> None:
    """Another stage has kept less: what this one has from there on is computed again, once."""
    stage = opened(FIRST)
    ids(stage, 0, 5, 6, 7, 8)
    give(stage, 1, hidden(4), 0.0)
    assert answer(stage.open(ENTRY, opening(3, keep=4), 0.0)).have == 4
    assert ids(stage, 5, 1, epoch=3) == [] and stage.dropped["gap"] == 1
    (job,) = computes(ids(stage, 2, 7, 8, 4, epoch=3))
    assert rows_of(job).position == 2 and stage.sessions[S1].ids == [5, 6, 7, 8, 4] and stage.sessions[S1].done == 2
    assert ids(stage, 2, 7, 8, 4, epoch=3) == [] and ids(stage, 4, 4, epoch=3) == []
    assert stage.dropped["duplicate"] == 2
    give(stage, job.job, hidden(3), 0.0)
    assert answer(stage.open(ENTRY, opening(4, keep=9), 0.0)).have == 5


def test_what_was_kept_beyond_the_first_data_is_gone_at_once() -> None:
    stage = opened(FIRST)
    ids(stage, 0, 5, 6, 7, 8)
    give(stage, 1, hidden(4), 0.0)
    stage.open(ENTRY, opening(3, keep=4), 0.0)
    ids(stage, 1, 6, epoch=3)
    assert answer(stage.open(ENTRY, opening(4, keep=4), 0.0)).have == 1


def test_after_a_step_that_failed_nothing_is_taken_until_the_session_is_opened_again() -> None:
    stage = opened(FIRST)
    (job,) = computes(ids(stage, 0, 5))
    give(stage, job.job, StepOutput(error="out of memory"), 0.0)
    assert ids(stage, 1, 6) == [] and stage.dropped["closed"] == 1
    stage.open(ENTRY, opening(3), 0.0)
    assert computes(ids(stage, 0, 5, epoch=3))


def test_when_its_placement_ends_a_session_stands_still() -> None:
    stage = opened(FIRST)
    computes(ids(stage, 0, 5))
    ids(stage, 1, 6)
    stage.shards.author_gone(ENTRY, restarted=False)
    stage.settle(1.0)
    assert not stage.sessions[S1].steps and not stage.ledger.kv[S1].running
    assert ids(stage, 2, 7) == []


def test_a_probe_says_how_far_the_stage_is_and_whether_it_works() -> None:
    stage = opened(FIRST)
    assert sent(stage.probe(ENTRY, SessionProbe(S1, 2))) == [(ENTRY, SessionProbed(S1, 2, 0, False))]
    (job,) = computes(ids(stage, 0, 5, 6))
    assert sent(stage.probe(ENTRY, SessionProbe(S1, 2))) == [(ENTRY, SessionProbed(S1, 2, 2, True))]
    give(stage, job.job, StepOutput(b"x", TensorInfo("f32", (2, 8))), 0.0)
    assert sent(stage.probe(ENTRY, SessionProbe(S1, 2))) == [(ENTRY, SessionProbed(S1, 2, 2, False))]
    ((_, error),) = sent(stage.probe(ENTRY, SessionProbe(S2, 2)))
    assert isinstance(error, SessionError) and error.fault == "unknown"


@pytest.mark.parametrize(
    ("sampling", "recent"),
    [
        (Sampling(), ()),
        (Sampling(repetition_penalty=1.1), (4, 5, 6)),
        (Sampling(presence_penalty=1.0, repeat_last_n=2), (5, 6)),
        (Sampling(presence_penalty=1.0, repeat_last_n=0), ()),
    ],
)
def test_the_last_stage_hands_the_ids_to_the_penalties(sampling: Sampling, recent: tuple[int, ...]) -> None:
    stage = stage_of(LAST)
    stage.open(ENTRY, opening(sampling=sampling), 0.0)
    (job,) = computes(stage.activation(MIDDLE, activation(0, 4, 5, 6, layer=4), frame(3), 0.0))
    assert rows_of(job).recent == recent


def test_the_number_of_sessions_is_bounded() -> None:
    stage = stage_of(FIRST)
    for i in range(limits.MAX_STAGE_SESSIONS + 20):
        session = SessionId(f"{i:032x}")
        stage.open(ENTRY, opening(2 + i, session, context=1), 0.0)
        stage.close(ENTRY, SessionClose(session, 2 + i, True), 0.0)
        stage.ledger.drop_kv(session)
    assert len(stage.sessions) <= limits.MAX_STAGE_SESSIONS + 1


# --- a stage of two devices: FIRST leads, MIDDLE follows, LAST is a stage of its own

LEFT, RIGHT = Slice(0, 2, 0, 64, vocab_end=16), Slice(2, 4, 64, 128, vocab_start=16, vocab_end=32)
GROUP = (
    Shard(FIRST, 0, 3, True, False, slice=LEFT),
    Shard(MIDDLE, 0, 3, True, False, slice=RIGHT),
    Shard(LAST, 3, 6, False, True),
)
STAGE = StageId(ENTRY, 1, 0)


def opened_in_group(me: PeerId) -> StageSessions:
    stage = stage_of(me, ring=GROUP)
    assert answer(stage.open(ENTRY, opening(), 0.0)).accepted
    return stage


@pytest.mark.parametrize("me", [FIRST, MIDDLE])
def test_every_member_of_a_stage_opens_with_kv_of_its_layers(me: PeerId) -> None:
    stage = stage_of(me, ring=GROUP)
    bounds = (LEFT if me == FIRST else RIGHT).bounds
    assert OpenKv(S1, MODEL, 0, 3, 100, 0, slice=bounds) in stage.open(ENTRY, opening(), 0.0)
    assert stage.ledger.kv[S1].held == (0, 3, bounds) and stage.ledger.kv[S1].n_bytes == 0, "half of a byte a token"


def test_only_the_leader_takes_ids_and_tokens() -> None:
    leader, follower = opened_in_group(FIRST), opened_in_group(MIDDLE)
    assert computes(ids(leader, 0, 1, 2)) and not computes(ids(follower, 0, 1, 2))
    assert follower.dropped["stranger"] == 1
    assert follower.token(LAST, Token(S1, 2, 0, 5), 0.0) == []


def test_a_leader_sends_to_the_next_leader_and_a_follower_takes_no_activations() -> None:
    leader = opened_in_group(FIRST)
    (job,) = computes(ids(leader, 0, 1, 2))
    assert job.together == Together(STAGE, 1) and job.slice == LEFT.bounds
    ((to, message),) = sent(give(leader, job.job, StepOutput(b"x", TensorInfo("f32", (2, 8))), 0.0))
    assert to == LAST and isinstance(message, Activation) and message.layer == 3
    last = opened_in_group(LAST)
    assert last.activation(MIDDLE, activation(0, 1, 2, layer=3), bytes(64), 0.0) == []
    (job,) = computes(last.activation(FIRST, activation(0, 1, 2, layer=3), bytes(64), 0.0))
    assert [to for to, _ in sent(give(last, job.job, StepOutput(token=5), 0.0))] == [FIRST, ENTRY]


def test_a_follower_answers_probes() -> None:
    ((to, message),) = sent(opened_in_group(MIDDLE).probe(ENTRY, SessionProbe(S1, 2)))
    assert to == ENTRY and isinstance(message, SessionProbed) and not message.busy


def told(*rows: StageRows, sequence: int = 1) -> StageStep:
    return StageStep(ENTRY, 1, 0, sequence, rows or (row(),), TensorInfo("f32", (0, 8)))


def row(position: int = 0, *tokens: int, epoch: int = 2, session: SessionId = S1, sample: bool = True) -> StageRows:
    return StageRows(session, epoch, position, tokens or (1, 2), sample)


def join(stage: StageSessions, message: StageStep, sender: PeerId = FIRST, now: float = 0.0) -> list[Effect]:
    return stage.stage_step(sender, message, b"", now)


def aborts(effects: list[Effect]) -> list[AbortStage]:
    return [e for e in effects if isinstance(e, AbortStage)]


def test_a_leader_tells_the_others_what_it_computes_and_again_while_it_is_not_done() -> None:
    leader = opened_in_group(FIRST)
    effects = ids(leader, 0, 1, 2)
    assert sent(effects) == [(MIDDLE, told())] and effects[-1] in computes(effects), "told before it waits for them"
    assert leader.tick(0.1) == [] and leader.timer() == limits.STAGE_STEP_AGAIN_S
    assert sent(leader.tick(0.5)) == [(MIDDLE, told())] and leader.timer() == 0.5 + 2 * limits.STAGE_STEP_AGAIN_S
    give(leader, 1, StepOutput(b"x", TensorInfo("f32", (2, 8))), 0.6)
    assert leader.tick(9.0) == []
    assert sent(ids(leader, 2, 3))[0] == (MIDDLE, told(row(2, 3), sequence=2))


def test_a_member_computes_what_its_leader_says_once_and_says_nothing() -> None:
    member = opened_in_group(MIDDLE)
    (job,) = computes(join(member, told()))
    assert job.together == Together(STAGE, 1) and job.slice == RIGHT.bounds and rows_of(job).ids == (1, 2)
    assert join(member, told()) == [] and member.dropped["duplicate"] == 1, "it was told again"
    assert give(member, job.job, StepOutput(), 0.0) == [] and member.sessions[S1].done == 2
    assert computes(join(member, told(row(2, 3), sequence=2)))


@pytest.mark.parametrize("sender", [MIDDLE, LAST, ENTRY])
def test_a_member_takes_steps_from_its_leader_only(sender: PeerId) -> None:
    member = opened_in_group(MIDDLE)
    assert join(member, told(), sender) == [] and member.dropped["stranger"] == 1
    assert join(opened_in_group(FIRST), told(), FIRST) == [], "a leader takes none"
    assert join(opened_in_group(MIDDLE), replace_struct(told(), epoch=2)) == [], "of another placement"


@pytest.mark.parametrize(
    "rows",
    [
        (row(1, 2),),
        (row(session=S2),),
        (row(epoch=3),),
        (row(0, *range(101)),),
        (row(0, limits.MAX_TOKEN_ID),),
        (row(), row(session=S2)),
    ],
    ids=["gap", "unknown", "early", "context", "no id", "one of two"],
)
def test_who_cannot_take_part_ends_the_step_for_all_and_nothing_is_taken(rows: tuple[StageRows, ...]) -> None:
    member = opened_in_group(MIDDLE)
    member.sessions[S1].model = replace(COST, vocabulary=500)
    effects = join(member, told(*rows))
    assert not computes(effects) and [(a.stage, a.sequence, a.lost) for a in aborts(effects)] == [(STAGE, 1, None)]
    assert [(to, type(m)) for to, m in sent(effects)] == [(ENTRY, SessionError)]
    assert member.sessions[S1].expected == 0


def test_rows_twice_or_with_a_frame_are_no_step() -> None:
    member = opened_in_group(MIDDLE)
    assert aborts(join(member, told(row(), row(2, 3)))) and member.dropped["malformed"] == 1
    assert aborts(member.stage_step(FIRST, told(sequence=2), b"1234", 0.0))


def test_rows_of_a_session_that_was_opened_anew_are_computed_for_the_others_only() -> None:
    member = opened_in_group(MIDDLE)
    member.open(ENTRY, opening(session=S2), 0.0)
    member.open(ENTRY, opening(epoch=3), 0.0)
    (job,) = computes(join(member, told(row(), row(session=S2))))
    assert [rows.is_void for rows in job.rows] == [True, False] and not job.rows[0].sample
    assert give(member, job.job, StepOutput(), 0.0) == []
    assert member.sessions[S1].done == 0 and member.sessions[S2].done == 2


def test_a_session_that_is_over_for_good_does_not_end_the_step_of_others() -> None:
    member = opened_in_group(MIDDLE)
    member.close(ENTRY, SessionClose(S1, 2, False), 0.0)
    (job,) = computes(join(member, told()))
    assert rows_of(job).is_void


def test_a_session_that_is_opened_anew_while_its_step_waits_is_void_then() -> None:
    member = opened_in_group(MIDDLE)
    (first,) = computes(join(member, told()))
    assert join(member, told(row(2, 3), sequence=2)) == [], "one step at a time"
    member.open(ENTRY, opening(epoch=3), 0.0)
    (second,) = computes(give(member, first.job, StepOutput(), 0.0))
    assert rows_of(second).is_void


def test_the_entry_node_hears_who_was_missing_from_every_member() -> None:
    for me, other in ((FIRST, MIDDLE), (MIDDLE, FIRST)):
        stage = opened_in_group(me)
        (job,) = computes(ids(stage, 0, 1, 2) if me == FIRST else join(stage, told()))
        failed = give(stage, job.job, StepOutput(error="its connection was closed", lost=other), 0.0)
        assert sent(failed) == [(ENTRY, SessionError(S1, 2, "failed", "its connection was closed", guilty=other))]
        assert stage.sessions[S1].done == 0 and stage.sessions[S1].closed


def test_what_follows_a_step_that_failed_here_is_refused() -> None:
    member = opened_in_group(MIDDLE)
    (job,) = computes(join(member, told()))
    join(member, told(row(2, 3), sequence=2))
    effects = give(member, job.job, StepOutput(error="its connection was closed", lost=FIRST), 0.0)
    assert not computes(effects) and [a.sequence for a in aborts(effects)] == [2]
    assert member.sessions[S1].expected == member.sessions[S1].done == len(member.sessions[S1].ids) == 0
    assert [a.sequence for a in aborts(join(member, told(row(3, 4), sequence=3)))] == [3]


def test_nobody_waits_for_a_member_that_is_lost() -> None:
    leader = opened_in_group(FIRST)
    assert leader.peer_lost(MIDDLE) == []
    ids(leader, 0, 1, 2)
    assert leader.peer_lost(LAST) == [] and leader.peer_lost(ENTRY) == []
    assert [(a.stage, a.sequence, a.lost) for a in aborts(leader.peer_lost(MIDDLE))] == [(STAGE, 1, MIDDLE)]


def test_steps_of_a_stage_that_has_ended_are_dropped() -> None:
    member = opened_in_group(MIDDLE)
    (job,) = computes(join(member, told()))
    join(member, told(row(2, 3), sequence=2))
    assert CloseStage(STAGE) in member.shards.author_gone(ENTRY, restarted=False)
    member.settle(0.0)
    assert not computes(give(member, job.job, StepOutput(), 0.0))
    assert join(member, told(sequence=3)) == [] and member.dropped["stranger"] == 1


def test_a_session_keeps_keys_and_values_as_its_placement_says() -> None:
    ledger = Ledger(50_000)
    shards = Shards(FIRST, ledger)
    shards.model_known(MODEL, replace(COST, layers=(LayerCost(100, 1, 32, kv_q8_0_bytes=17),) * 6), 0.0)
    placement = Placement(MODEL, 1, ENTRY, 100, "q8_0", RING)
    shards.offer(PlacementOffer(placement), 0.0)
    for effect in shards.commit(PlacementCommit(placement), 0.0):
        if isinstance(effect, Load):
            shards.parts_loaded(effect.ticket, 0.0)
    effects = StageSessions(FIRST, ledger, shards).open(ENTRY, opening(), 0.0)
    assert [e.kv for e in effects if isinstance(e, OpenKv)] == ["q8_0"]
    assert ledger.kv[S1].n_bytes == 2 * 17 * 100


def test_a_copy_is_made_of_the_epoch_that_is_meant_of_the_same_entry_nodes_session_only() -> None:
    def have(stage: StageSessions, **more: object) -> int:
        message = msgspec.structs.replace(opening(1, S2, keep=2), **{"source": S1, "source_epoch": 2, **more})
        effects = stage.open(ENTRY, message, 0.0)
        (made,) = [e for e in effects if isinstance(e, OpenKv)]
        assert (made.keep, made.source) == ((2, S1) if made.keep else (0, None))
        assert stage.sessions[S2].ids == [5, 6][: made.keep]
        assert answer(effects).have == made.keep
        return made.keep

    def computed() -> StageSessions:
        stage = opened(FIRST)
        ids(stage, 0, 5, 6, 7)
        give(stage, 1, StepOutput(b"", TensorInfo("f32", (3, 8))), 0.0)
        return stage

    assert have(computed()) == 2
    assert have(computed(), source_epoch=3) == 0, "it has other ids there than the entry node believes"
    assert have(computed(), source=S3) == 0
    stage = computed()
    stage.sessions[S1].open = msgspec.structs.replace(stage.sessions[S1].open, entry=LAST)
    assert have(stage) == 0, "what another device's user said"
    stage = opened(FIRST)
    ids(stage, 0, 5)
    assert have(stage) == 0, "it is not computed yet"
    stage = computed()
    stage.open(ENTRY, opening(1, S2), 0.0)
    assert answer(stage.open(ENTRY, msgspec.structs.replace(opening(2, S2, keep=2), source=S2), 0.0)).have == 0


def test_what_is_copied_is_not_what_makes_room_for_the_copy() -> None:
    stage = opened(FIRST)
    ids(stage, 0, 5, 6, 7)
    give(stage, 1, StepOutput(b"", TensorInfo("f32", (3, 8))), 0.0)
    stage.close(ENTRY, SessionClose(S1, 2, keep=True), 1.0)
    stage.open(ENTRY, opening(1, S3), 2.0)
    stage.close(ENTRY, SessionClose(S3, 1, keep=True), 3.0)
    stage.ledger.total_bytes = stage.ledger.used_bytes + 100  # half of what one more needs
    message = msgspec.structs.replace(opening(1, S2, keep=3), source=S1, source_epoch=2)
    effects = stage.open(ENTRY, message, 4.0)
    assert [e.session for e in effects if isinstance(e, DropKv)] == [S3], "which was used after it"
    assert OpenKv(S2, MODEL, 0, 2, 100, 3, "f16", source=S1) in effects


# --- guesses


class Told(StageGuesses):
    """Guesses what a test says."""

    coming: tuple[int, ...] = ()
    came_with: list[tuple[int, ...]]

    def __init__(self) -> None:
        super().__init__()
        self.came_with = []

    def came(self, tokens: Sequence[int], now: float, *, is_alone: bool) -> None:
        self.came_with.append(tuple(tokens))

    def next(self, most: int, forced: Sequence[int], end_ids: Sequence[int], now: float) -> tuple[int, ...]:
        self.asks = most > 0
        return (*self._own, *forced, *self.coming)[: max(most, 0)]


def guessing(*coming: int, context: int = 100) -> StageSessions:
    """A first stage that has the prompt (5,), and guesses these after the token that comes."""
    stage = opened(FIRST, context=context)
    stage.new_guesses = Told
    message = Tokens(S1, 2, 0, TensorInfo("i32", (1,)), True, limits.MAX_GUESSES)
    (job,) = computes(stage.tokens(ENTRY, message, (5,), 0.0))
    give(stage, job.job, StepOutput(b"x", TensorInfo("f32", (1, 8))), 0.0)
    guesses = stage.sessions[S1].guesses
    assert isinstance(guesses, Told)
    guesses.coming = coming
    return stage


def hidden(n_rows: int) -> StepOutput:
    return StepOutput(b"x", TensorInfo("f32", (n_rows, 8)))


def test_a_step_takes_guesses_along_and_the_next_one_begins_behind_those_that_came() -> None:
    stage = guessing(6, 7, 4)
    (step,) = computes(stage.token(LAST, Token(S1, 2, 1, 8), 0.0))
    assert (rows_of(step).position, rows_of(step).ids) == (1, (8, 6, 7, 4))
    ((to, onward),) = sent(give(stage, step.job, hidden(4), 0.0))
    assert to == MIDDLE and isinstance(onward, Activation) and (onward.ids, onward.n_guesses) == ((8, 6, 7, 4), 3)
    (step,) = computes(stage.token(LAST, Token(S1, 2, 2, 6, (), (3,)), 0.0))
    assert (rows_of(step).position, rows_of(step).ids) == (3, (3, 6, 7, 4))
    assert stage.sessions[S1].ids == [5, 8, 6, 3, 6, 7, 4]
    assert stage.sessions[S1].guesses.came_with == [(8,), (6, 3)]  # type: ignore[union-attr]


def test_what_a_form_asks_for_next_goes_along_where_the_model_has_such_tokens() -> None:
    stage = guessing(context=6)
    (step,) = computes(stage.token(LAST, Token(S1, 2, 1, 8, forced=(3, 2, 1, 1)), 0.0))
    assert rows_of(step).ids == (8, 3, 2, 1), "as far as the context goes"
    stage = guessing()
    stage.sessions[S1].model = replace(stage.sessions[S1].model, vocabulary=100)
    (step,) = computes(stage.token(LAST, Token(S1, 2, 1, 8, forced=(3, 100)), 0.0))
    assert rows_of(step).ids == (8,)


def test_without_leave_of_the_entry_node_nothing_is_guessed() -> None:
    stage = opened(FIRST)
    stage.new_guesses = Told
    Told.coming = (6, 7)
    try:
        (job,) = computes(ids(stage, 0, 5))
        give(stage, job.job, hidden(1), 0.0)
        (step,) = computes(stage.token(LAST, Token(S1, 2, 1, 8), 0.0))
    finally:
        Told.coming = ()
    assert rows_of(step).ids == (8,)


def test_beside_other_readers_nothing_is_guessed() -> None:
    stage = guessing(6, 7)
    stage.open(ENTRY, opening(3, S2), 0.0)
    (step,) = computes(stage.token(LAST, Token(S1, 2, 1, 8), 0.0))
    assert rows_of(step).ids == (8,)
    stage.close(ENTRY, SessionClose(S2, 3, True), 0.0)
    give(stage, step.job, hidden(1), 0.0)
    (step,) = computes(stage.token(LAST, Token(S1, 2, 2, 8), 0.0))
    assert rows_of(step).ids == (8, 6, 7)


def test_guesses_end_where_the_context_does() -> None:
    stage = guessing(6, 7, 4, context=5)
    (step,) = computes(stage.token(LAST, Token(S1, 2, 1, 8), 0.0))
    assert rows_of(step).ids == (8, 6, 7), "a token after them is sampled for the last position"
    give(stage, step.job, hidden(3), 0.0)
    assert stage.token(LAST, Token(S1, 2, 2, 6, (), (7, 1)), 0.0) == []


@pytest.mark.parametrize(
    ("sampled", "why"),
    [
        (Token(S1, 2, 1, 8), "duplicate"),
        (Token(S1, 2, 1, 8, (), (6,)), "duplicate"),
        (Token(S1, 2, 3, 7), "gap"),
        (Token(S1, 2, 2, 7, (), (4,)), "malformed"),  # 7 was not guessed there
        (Token(S1, 2, 2, 6, (), (7, 4, 1, 1)), "malformed"),  # more than were guessed
    ],
)
def test_tokens_that_do_not_follow_from_what_was_guessed_are_dropped(sampled: Token, why: str) -> None:
    stage = guessing(6, 7, 4)
    (step,) = computes(stage.token(LAST, Token(S1, 2, 1, 8), 0.0))
    give(stage, step.job, hidden(4), 0.0)
    assert stage.token(LAST, sampled, 0.0) == []
    assert stage.dropped[why] == 1


def guessed(position: int, *tokens: int, n_guesses: int, layer: int = 2) -> Activation:
    return msgspec.structs.replace(activation(position, *tokens, layer=layer), n_guesses=n_guesses)


def test_a_stage_takes_what_follows_any_guess_and_no_position_twice_that_is_certain() -> None:
    stage = opened(MIDDLE)
    assert computes(stage.activation(FIRST, guessed(0, 5, 6, 7, n_guesses=2), frame(3), 0.0))
    assert stage.activation(FIRST, activation(4, 9), frame(1), 0.0) == [] and stage.dropped["gap"] == 1
    assert stage.activation(FIRST, guessed(0, 5, 6, n_guesses=1), frame(2), 0.0) == []
    assert stage.dropped["duplicate"] == 1
    assert stage.running is not None
    give(stage, stage.running.job, hidden(3), 0.0)
    (step,) = computes(stage.activation(FIRST, activation(2, 9), frame(1), 0.0))
    assert rows_of(step).position == 2 and stage.sessions[S1].ids == [5, 6, 9]


@pytest.mark.parametrize("n_guesses", [1, 3])
def test_only_one_token_before_guesses_is_certain(n_guesses: int) -> None:
    stage = opened(MIDDLE)
    assert stage.activation(FIRST, guessed(0, 5, 6, 7, n_guesses=n_guesses), frame(3), 0.0) == []
    assert stage.dropped["malformed"] == 1


def test_guesses_are_not_kept_when_a_session_is_opened_again() -> None:
    stage = opened(MIDDLE)
    (step,) = computes(stage.activation(FIRST, guessed(0, 5, 6, 7, n_guesses=2), frame(3), 0.0))
    give(stage, step.job, hidden(3), 0.0)
    ((_, probed),) = sent(stage.probe(ENTRY, SessionProbe(S1, 2)))
    assert isinstance(probed, SessionProbed) and probed.position == 1
    assert answer(stage.open(ENTRY, opening(3, keep=3), 0.0)).have == 1


def test_the_last_stage_tells_all_tokens_that_came_of_a_step() -> None:
    stage = opened(LAST)
    (job,) = computes(stage.activation(MIDDLE, guessed(0, 5, 6, 7, n_guesses=2, layer=4), frame(3), 0.0))
    assert rows_of(job).sample and rows_of(job).n_guesses == 2
    messages = sent(give(stage, job.job, StepOutput(token=6, more=(8,), forced=(4,)), 0.0))
    said = Token(S1, 2, 1, 6, (), (8,), (), 2, (4,))
    assert messages == [(FIRST, said), (ENTRY, said)]


def test_penalties_and_forms_begin_with_what_is_certain() -> None:
    stage = stage_of(LAST)
    sampling = Sampling(presence_penalty=1.0, grammar="g", answer_at=1)
    stage.open(ENTRY, opening(sampling=sampling), 0.0)
    (job,) = computes(stage.activation(MIDDLE, activation(0, 5, 4, layer=4, sample=False), frame(2), 0.0))
    give(stage, job.job, StepOutput(), 0.0)
    (job,) = computes(stage.activation(MIDDLE, guessed(2, 3, 6, 7, n_guesses=2, layer=4), frame(3), 0.0))
    assert (rows_of(job).recent, rows_of(job).answer) == ((5, 4, 3), (4, 3))


def guessing_member(*tokens: int) -> StageSessions:
    """A member that has computed one id and guesses after it, as its leader said."""
    member = opened_in_group(MIDDLE)
    (job,) = computes(join(member, told(guessed_row(0, *tokens))))
    assert rows_of(job).n_guesses == len(tokens) - 1
    assert give(member, job.job, StepOutput(), 0.0) == []
    return member


def guessed_row(position: int, *tokens: int) -> StageRows:
    return msgspec.structs.replace(row(position, *tokens), n_guesses=len(tokens) - 1)


def test_a_leader_tells_the_others_of_guesses() -> None:
    leader = opened_in_group(FIRST)
    leader.new_guesses = Told
    message = Tokens(S1, 2, 0, TensorInfo("i32", (1,)), True, limits.MAX_GUESSES)
    (job,) = computes(leader.tokens(ENTRY, message, (5,), 0.0))
    give(leader, job.job, hidden(1), 0.0)
    leader.sessions[S1].guesses.coming = (6, 7)  # type: ignore[union-attr]
    effects = leader.token(LAST, Token(S1, 2, 1, 8), 0.0)
    assert sent(effects) == [(MIDDLE, told(guessed_row(1, 8, 6, 7), sequence=2))]
    (job,) = computes(effects)
    ((to, onward),) = sent(give(leader, job.job, hidden(3), 0.0))
    assert to == LAST and isinstance(onward, Activation) and onward.n_guesses == 2


@pytest.mark.parametrize("position", [1, 2, 3])
def test_a_member_goes_on_behind_any_guess_that_came(position: int) -> None:
    member = guessing_member(5, 6, 7)
    (job,) = computes(join(member, told(row(position, 9), sequence=2)))
    assert rows_of(job).position == position and member.sessions[S1].ids == [*[5, 6, 7][:position], 9]
    give(member, job.job, StepOutput(), 0.0)
    assert member.sessions[S1].done == position + 1


@pytest.mark.parametrize("position", [0, 4])
def test_a_member_goes_on_nowhere_else(position: int) -> None:
    assert aborts(join(guessing_member(5, 6, 7), told(row(position, 9), sequence=2)))


def test_a_step_behind_guesses_may_be_told_before_they_are_computed_here() -> None:
    member = opened_in_group(MIDDLE)
    (job,) = computes(join(member, told(guessed_row(0, 5, 6, 7))))
    assert join(member, told(row(2, 9), sequence=2)) == []
    (second,) = computes(give(member, job.job, StepOutput(), 0.0))
    assert rows_of(second).position == 2


def test_guesses_of_a_step_before_one_that_failed_are_no_ground_to_go_on_from() -> None:
    """The leader may have had the end of the step that failed here: what comes after it is not in our KV cache."""
    member = guessing_member(5, 6, 7, 4)
    (job,) = computes(join(member, told(guessed_row(1, 9, 8), sequence=2)))
    assert join(member, told(row(2, 3), sequence=3)) == []
    effects = give(member, job.job, StepOutput(error="its connection was closed", lost=FIRST), 0.0)
    assert not computes(effects) and [a.sequence for a in aborts(effects)] == [3]


def test_a_member_keeps_no_guesses_when_a_session_is_opened_again() -> None:
    assert answer(guessing_member(5, 6, 7).open(ENTRY, opening(3, keep=3), 0.0)).have == 1


def decoding_beside(stage: StageSessions, now: float = 0.0) -> None:
    """A second session gets its tokens here; its step is not out."""
    stage.open(ENTRY, opening(2, S2), now)
    ids(stage, 0, 5, session=S2, now=now)
    assert stage.running is not None
    give(stage, stage.running.job, StepOutput(b"", TensorInfo("f32", (1, 8))), now)


def prompt(stage: StageSessions, now: float) -> list[tuple[int, int, bool]]:
    """Position, length and whether a token is wanted, of the steps that a prompt of 100 tokens becomes."""
    effects = ids(stage, 0, *([5] * 100), now=now)
    steps: list[tuple[int, int, bool]] = []
    while pieces := computes(effects):
        (row,) = [row for row in pieces[0].rows if row.session == S1]
        steps.append((row.position, len(row.ids), stage.running.rows[0].step.sample))  # type: ignore[union-attr]
        now += 0.1
        effects = give(stage, pieces[0].job, StepOutput(b"", TensorInfo("f32", (len(row.ids), 8))), now)
    return steps


def test_a_prompt_is_cut_while_another_reader_waits_for_tokens() -> None:
    assert prompt(opened(FIRST), 0.0) == [(0, 100, True)]
    stage = opened(FIRST)
    decoding_beside(stage)
    assert prompt(stage, 0.0) == [(0, 32, False), (32, 64, False), (96, 4, True)]
    assert stage.sessions[S1].done == 100
    stage = opened(FIRST)
    decoding_beside(stage)
    stage.close(ENTRY, SessionClose(S2, 2, True), 0.0)
    assert prompt(stage, 0.0) == [(0, 100, True)], "the other one has ended"


def test_a_step_is_cut_with_its_frame() -> None:
    step = Step(7, (1, 2, 3), True, bytes(range(24)), 0.5)
    first, rest = step.cut(1)
    assert (first.position, first.ids, first.sample, bytes(first.frame or b"")) == (7, (1,), False, bytes(range(8)))
    assert (rest.position, rest.ids, rest.sample, bytes(rest.frame or b"")) == (8, (2, 3), True, bytes(range(8, 24)))
    assert Step(7, (1, 2), False, None, 0.5).cut(1)[1].frame is None


def test_no_more_waits_of_a_session_than_a_stage_before_may_have_on_its_way() -> None:
    stage = stage_of(FIRST, memory=100_000)
    assert answer(stage.open(ENTRY, opening(context=20_000), 0.0)).accepted
    for i in range(14):
        ids(stage, 512 * i, *([5] * 512))
    assert stage.sessions[S1].expected == limits.MAX_SESSION_WAITING_TOKENS and stage.dropped["full"] == 1


# --- the model's own block


def with_block(me: PeerId) -> StageSessions:
    """A stage of a placement whose last stage holds the block, with a session."""
    ledger = Ledger(5000)
    shards = Shards(me, ledger, 7000)
    shards.model_known(MODEL, replace(COST, mtp=MtpCost(70, 3)), 0.0)
    placement = Placement(MODEL, 1, ENTRY, 100, "f16", RING, mtp=True)
    shards.offer(PlacementOffer(placement), 0.0)
    for effect in shards.commit(PlacementCommit(placement), 0.0):
        if isinstance(effect, Load):
            shards.parts_loaded(effect.ticket, 0.0)
    stage = Stage(me, ledger, shards)
    stage.new_guesses = Told
    assert answer(stage.open(ENTRY, opening(), 0.0)).accepted
    return stage


def test_the_first_stage_asks_and_guesses_what_was_said() -> None:
    for stage, asks in ((with_block(FIRST), True), (opened(FIRST), False)):
        stage.new_guesses = Told
        message = Tokens(S1, 2, 0, TensorInfo("i32", (1,)), True, limits.MAX_GUESSES)
        (job,) = computes(stage.tokens(ENTRY, message, (5,), 0.0))
        give(stage, job.job, hidden(1), 0.0)
        (job,) = computes(stage.token(LAST, Token(S1, 2, 1, 8, own=(6,), own_us=7), 0.0))
        assert rows_of(job).ids == (8, 6)
        ((_, onward),) = sent(give(stage, job.job, hidden(2), 0.0))
        assert isinstance(onward, Activation) and onward.asks == asks


def test_what_the_block_cannot_have_said_is_no_guess() -> None:
    stage = with_block(FIRST)
    stage.sessions[S1].model = replace(stage.sessions[S1].model, vocabulary=100)
    message = Tokens(S1, 2, 0, TensorInfo("i32", (1,)), True, limits.MAX_GUESSES)
    (job,) = computes(stage.tokens(ENTRY, message, (5,), 0.0))
    give(stage, job.job, hidden(1), 0.0)
    (job,) = computes(stage.token(LAST, Token(S1, 2, 1, 8, own=(100,)), 0.0))
    assert rows_of(job).ids == (8,)


def test_a_stage_between_passes_the_question_on_and_the_last_one_answers() -> None:
    middle, last = with_block(MIDDLE), with_block(LAST)
    asked = msgspec.structs.replace(activation(0, 5, layer=2), asks=True)
    (job,) = computes(middle.activation(FIRST, asked, frame(1), 0.0))
    assert not rows_of(job).asks
    ((_, onward),) = sent(give(middle, job.job, hidden(1), 0.0))
    assert isinstance(onward, Activation) and onward.asks
    (job,) = computes(last.activation(MIDDLE, onward, frame(1), 0.0))
    assert rows_of(job).asks
    said = sent(give(last, job.job, StepOutput(token=8, own=(6,), own_s=0.002), 0.0))
    assert {(to, m.own, m.own_us) for to, m in said if isinstance(m, Token)} == {
        (p, (6,), 2000) for p in (FIRST, ENTRY)
    }


def test_the_block_has_its_memory_of_each_session() -> None:
    plain, block = opened(LAST), with_block(LAST)
    assert block.ledger.kv[S1].n_bytes == plain.ledger.kv[S1].n_bytes + 3 * 100
    (kept,) = [e for e in block.open(ENTRY, opening(3), 0.0) if isinstance(e, OpenKv)]
    assert kept.mtp
    assert not any(e.mtp for e in plain.open(ENTRY, opening(3), 0.0) if isinstance(e, OpenKv))
