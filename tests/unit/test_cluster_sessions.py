"""The owner's side of a session, on a core of its own: this device is its only stage unless a test says otherwise."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TypeVar

import pytest

from swarm import limits
from swarm.answers import PIPELINED_PREFILL_BATCH, EndReason
from swarm.cluster.core import Core, Identity
from swarm.cluster.cost import LayerCost, ModelCost
from swarm.cluster.effects import (
    Compute,
    Effect,
    Embedded,
    Emit,
    Ended,
    Load,
    Log,
    Notice,
    OpenKv,
    Send,
    StepOutput,
    Unsay,
)
from swarm.cluster.memory import Ledger
from swarm.cluster.placement import Placer, Placing, State
from swarm.cluster.session import AnswerRequest, Phase, Session
from swarm.cluster.sessions import Sessions
from swarm.cluster.shards import Shards
from swarm.cluster.spot_checks import SpotChecks
from swarm.parts import all_parts
from swarm.wire.ids import BootId, ModelId, PeerId, SessionId
from swarm.wire.messages import (
    Measured,
    PlacementCommit,
    PlacementOffer,
    PlacementReply,
    Prefilled,
    SessionClose,
    SessionError,
    SessionOpen,
    SessionProbe,
    SessionProbed,
    SessionReply,
    ShardReady,
    Token,
    Tokens,
    Vector,
)
from swarm.wire.records import Capabilities, LinkMeasurement, Placement, Sampling, Shard, TensorInfo

ME, OTHER = PeerId("1" * 32), PeerId("2" * 32)
M = TypeVar("M")
MODEL = ModelId("a" * 64)
S1, S2 = SessionId("c" * 32), SessionId("d" * 32)
COST = ModelCost("m", (LayerCost(1000, 1, 1),) * 4, 100, 100, 8, 1)
END_ID = 0
PLAIN = Sampling()


def capabilities(memory: int, speed: float = 1e9) -> Capabilities:
    return Capabilities("x86_64", "avx2", 4, memory, 2**40, speed, 1e9)


def alone(memory: int = 100_000) -> Core:
    core = Core(Identity(ME, BootId("1" * 16), "me"), capabilities(memory), Random(1))
    core.model_known(MODEL, COST, 0.0)
    core.holdings(ME, MODEL, frozenset(all_parts(4)), 0.0)
    return core


def run(core: Core, effects: list[Effect], tokens: list[int], now: float = 0.0) -> list[Effect]:
    """Carry out effects as a node would; sampled tokens come from the list. Return what the user and peers got."""
    out: list[Effect] = []
    todo = list(effects)
    while todo:
        effect = todo.pop(0)
        if isinstance(effect, Load):
            todo += core.loaded(effect.ticket, now)
        elif isinstance(effect, Compute):
            (rows,) = effect.rows
            if rows.sample and not tokens:
                continue
            todo += core.computed(effect.job, [StepOutput(token=tokens.pop(0) if rows.sample else None)], now)
        else:
            out.append(effect)
    return out


def ask(prompt: tuple[int, ...], n_tokens: int) -> AnswerRequest:
    return AnswerRequest(S1, MODEL, prompt, n_tokens, end_ids=(END_ID,))


def emitted(effects: list[Effect]) -> list[tuple[int, int]]:
    return [(e.position, e.token) for e in effects if isinstance(e, Emit)]


def ended(effects: list[Effect]) -> list[EndReason]:
    return [e.reason for e in effects if isinstance(e, Ended)]


def test_one_device_answers_alone() -> None:
    core = alone()
    out = run(core, core.ask(ask((5, 6), 3), 0.0), [7, 8, 9])
    assert emitted(out) == [(2, 7), (3, 8), (4, 9)] and ended(out) == [EndReason.LENGTH]


def test_an_end_token_ends_the_answer_and_is_not_shown() -> None:
    core = alone()
    out = run(core, core.ask(ask((5, 6), 9), 0.0), [7, END_ID])
    assert emitted(out) == [(2, 7)] and ended(out) == [EndReason.STOP]


def test_cancelling_ends_the_answer_once() -> None:
    core = alone()
    run(core, core.ask(ask((5, 6), 9), 0.0), [7])
    assert ended(core.cancel(S1, 1.0)) == [EndReason.CANCELLED]
    assert core.cancel(S1, 1.0) == []
    assert not core.ledger.kv[S1].running


def test_the_next_turn_keeps_the_kv_of_what_both_have_in_common() -> None:
    core = alone()
    run(core, core.ask(ask((5, 6), 2), 0.0), [7, 8])
    out = run(core, core.ask(ask((5, 6, 7, 9, 9), 1), 1.0), [3])
    (opening,) = [e for e in out if isinstance(e, OpenKv)]
    assert opening.keep == 3
    out = run(core, core.ask(ask((5, 9), 1), 2.0), [3])
    (opening,) = [e for e in out if isinstance(e, OpenKv)]
    assert opening.keep == 1


def test_the_same_prompt_again_computes_at_least_its_last_token() -> None:
    core = alone()
    run(core, core.ask(ask((5, 6), 2), 0.0), [7, 8])
    (opening,) = [e for e in run(core, core.ask(ask((5, 6), 1), 1.0), [7]) if isinstance(e, OpenKv)]
    assert opening.keep == 1


def test_a_session_answers_one_question_at_a_time() -> None:
    core = alone()
    core.ask(ask((5, 6), 2), 0.0)
    (end,) = [e for e in core.ask(ask((5, 6), 2), 0.0) if isinstance(e, Ended)]
    assert end.reason is EndReason.FAILED and "answered already" in end.error


@pytest.mark.parametrize(("prompt", "n_tokens"), [((), 5), ((1,), 0)])
def test_there_must_be_something_to_answer(prompt: tuple[int, ...], n_tokens: int) -> None:
    assert ended(alone().ask(ask(prompt, n_tokens), 0.0)) == [EndReason.FAILED]


def test_a_forgotten_session_frees_its_kv() -> None:
    core = alone()
    run(core, core.ask(ask((5, 6), 2), 0.0), [7, 8])
    core.forget(S1, 1.0)
    assert not core.ledger.kv and not core.sessions.sessions


def test_old_conversations_are_forgotten() -> None:
    core = alone(10**6)
    for i in range(limits.MAX_KEPT_SESSIONS + 4):
        session = SessionId(f"{i:032x}")
        run(core, core.ask(AnswerRequest(session, MODEL, (5, 6), 1), float(i)), [7])
    assert len(core.sessions.sessions) == limits.MAX_KEPT_SESSIONS == len(core.ledger.kv)


# --- with one other device that holds everything, played by the test


class Remote:
    """A core whose only stage is OTHER; the test speaks for OTHER."""

    def __init__(self) -> None:
        self.core = Core(Identity(ME, BootId("1" * 16), "me"), capabilities(100, 1e6), Random(1))
        self.core.model_known(MODEL, COST, 0.0)
        self.core.tick(0.0)
        self.core.peer_up(OTHER, BootId("2" * 16), "other", 0.0)
        reach = (LinkMeasurement(ME, 0.001, 1e8),)
        self.hear(Measured(capabilities(100_000), reach), 0.0)
        self.core.holdings(OTHER, MODEL, frozenset(all_parts(4)), 0.0)
        self.epoch = 0

    def hear(self, message: object, now: float) -> list[Effect]:
        return self.core.received(OTHER, message, None, now)  # type: ignore[arg-type]

    def sent(self, effects: list[Effect], kind: type[M]) -> list[M]:
        return [e.message for e in effects if isinstance(e, Send) and e.to == OTHER and isinstance(e.message, kind)]

    def start(
        self,
        prompt: tuple[int, ...],
        n_tokens: int = 50,
        *,
        guess: bool = True,
        takes_guesses: bool = False,
        sampling: Sampling = PLAIN,
    ) -> list[Effect]:
        """Ask, place and open; return what follows when the stage has opened."""
        asked = replace(ask(prompt, n_tokens), guess=guess, sampling=sampling)
        (offer,) = self.sent(self.core.ask(asked, 0.0), PlacementOffer)
        epoch = offer.placement.epoch
        assert self.sent(self.hear(PlacementReply(MODEL, epoch, True, ""), 0.0), PlacementCommit)
        ready = self.hear(ShardReady(MODEL, epoch, Shard(OTHER, 0, 4, True, True)), 0.0)
        return self.open(ready, 0, takes_guesses=takes_guesses)

    def open(self, effects: list[Effect], have: int, now: float = 0.0, *, takes_guesses: bool = False) -> list[Effect]:
        (opening,) = self.sent(effects, SessionOpen)
        assert opening.epoch > self.epoch
        self.epoch, self.keep = opening.epoch, opening.keep
        return self.hear(SessionReply(S1, self.epoch, True, "", have, guesses=takes_guesses), now)

    def tick(self, start: float, end: float) -> list[Effect]:
        effects: list[Effect] = []
        for i in range(round((end - start) / 0.1)):
            now = start + i * 0.1
            self.core.members.heard(OTHER, now)
            effects += self.core.tick(now)
        return effects


def test_a_long_prompt_goes_in_batches_with_a_bounded_window() -> None:
    remote = Remote()
    batches = remote.sent(remote.start(tuple([1] * 1000)), Tokens)
    assert [c.position for c in batches] == [0, PIPELINED_PREFILL_BATCH]
    (more,) = remote.sent(remote.hear(Prefilled(S1, remote.epoch, PIPELINED_PREFILL_BATCH), 0.1), Tokens)
    assert more.position == 2 * PIPELINED_PREFILL_BATCH and not more.sample


WANTS_VECTOR = Sampling(vector=True)
OF_COST = TensorInfo("f32", (1, COST.hidden))


def test_a_vector_ends_the_session_that_was_opened_for_it() -> None:
    remote = Remote()
    remote.start((1, 2), n_tokens=1, sampling=WANTS_VECTOR)
    frame = bytes(range(4 * COST.hidden))
    message = Vector(S1, remote.epoch, 2, OF_COST)
    assert remote.core.received(OTHER, Vector(S1, remote.epoch, 3, OF_COST), frame, 0.1) == [], "of another position"
    out = remote.core.received(OTHER, message, frame, 0.1)
    (embedded,) = [effect for effect in out if isinstance(effect, Embedded)]
    assert embedded.vector == frame and ended(out) == [EndReason.STOP]
    assert remote.core.received(OTHER, message, frame, 0.1) == [], "it is over"


def test_a_vector_that_nobody_wants_or_that_is_none_is_no_answer() -> None:
    remote = Remote()
    remote.start((1, 2))
    assert remote.core.received(OTHER, Vector(S1, remote.epoch, 2, OF_COST), bytes(32), 0.1) == []
    other = Remote()
    other.start((1, 2), n_tokens=1, sampling=WANTS_VECTOR)
    out = other.core.received(OTHER, Vector(S1, other.epoch, 2, TensorInfo("f32", (1, 2))), bytes(8), 0.1)
    assert not [effect for effect in out if isinstance(effect, Embedded)]
    assert other.core.placer.conduct.why_left_out(OTHER, 0.1)


def test_a_device_that_knows_no_vectors_is_named() -> None:
    remote = Remote()
    remote.start((1, 2), n_tokens=1, sampling=WANTS_VECTOR)
    out = remote.hear(Token(S1, remote.epoch, 2, 7), 0.1)
    (end,) = [effect for effect in out if isinstance(effect, Ended)]
    assert end.reason is EndReason.FAILED and "is of a version that makes no embeddings; update it" in end.error


def test_a_token_is_taken_once_from_the_current_epoch_and_the_last_stage() -> None:
    remote = Remote()
    remote.start((1, 2))
    assert remote.hear(Token(S1, remote.epoch - 1, 2, 7), 0.1) == []
    assert emitted(remote.hear(Token(S1, remote.epoch, 2, 7), 0.1)) == [(2, 7)]
    assert emitted(remote.hear(Token(S1, remote.epoch, 2, 7), 0.1)) == []
    assert emitted(remote.core.received(ME, Token(S1, remote.epoch, 3, 7), None, 0.1)) == []


def test_a_token_after_a_gap_opens_the_session_again_from_what_is_known() -> None:
    remote = Remote()
    remote.start((1, 2))
    remote.hear(Token(S1, remote.epoch, 2, 7), 0.1)
    effects = remote.open(remote.hear(Token(S1, remote.epoch, 4, 9), 0.2), have=2)
    assert remote.keep == 2
    (batch,) = remote.sent(effects, Tokens)
    assert batch.position == 2 and batch.sample


def test_an_opening_without_an_answer_is_sent_again() -> None:
    remote = Remote()
    (offer,) = remote.sent(remote.core.ask(ask((1, 2), 5), 0.0), PlacementOffer)
    remote.hear(PlacementReply(MODEL, offer.placement.epoch, True, ""), 0.0)
    remote.hear(ShardReady(MODEL, offer.placement.epoch, Shard(OTHER, 0, 4, True, True)), 0.0)
    openings = remote.sent(remote.tick(0.1, 1.0), SessionOpen)
    assert openings and len({o.epoch for o in openings}) == 1


def test_two_quiet_answers_to_probes_mean_a_lost_message() -> None:
    remote = Remote()
    remote.start((1, 2))
    reopened: list[SessionOpen] = []
    for i in range(40):
        now = 0.1 * i
        effects = remote.tick(now, now + 0.1)
        reopened += remote.sent(effects, SessionOpen)
        for _ in remote.sent(effects, SessionProbe):
            remote.hear(SessionProbed(S1, remote.epoch, 2, False), now)
        if reopened:
            break
    assert reopened and 1.5 <= now <= 2.6


def test_a_busy_answer_means_a_slow_stage() -> None:
    remote = Remote()
    remote.start((1, 2))
    for i in range(200):
        now = 0.1 * i
        effects = remote.tick(now, now + 0.1)
        assert not remote.sent(effects, SessionOpen)
        for _ in remote.sent(effects, SessionProbe):
            remote.hear(SessionProbed(S1, remote.epoch, 2, True), now)


def test_a_stage_that_is_alive_and_does_not_answer_is_planned_around() -> None:
    remote = Remote()
    remote.start((1, 2))
    remote.tick(0.0, limits.PROBE_AFTER_S + limits.OPEN_TIMEOUT_S + 2)
    assert remote.core.placer.conduct.why_left_out(OTHER, 7.0) == "it does not answer"
    assert remote.core.sessions.sessions[S1].phase is not Phase.RUNNING


def test_a_stage_that_forgot_the_session_gets_it_again() -> None:
    remote = Remote()
    remote.start((1, 2))
    effects = remote.hear(SessionError(S1, remote.epoch, "unknown", "what session?"), 0.1)
    (batch,) = remote.sent(remote.open(effects, have=0), Tokens)
    assert batch.position == 0


def test_a_step_that_keeps_failing_ends_the_answer_with_its_reason() -> None:
    remote = Remote()
    remote.start((1, 2))
    remote.core.sessions.sessions[S1].failures = limits.MAX_STEP_FAILURES
    (end,) = [
        e for e in remote.hear(SessionError(S1, remote.epoch, "failed", "out of memory"), 0.1) if isinstance(e, Ended)
    ]
    assert end.reason is EndReason.FAILED and "out of memory" in end.error


def test_a_stage_without_room_makes_the_session_let_go_everywhere_and_wait() -> None:
    remote = Remote()
    (offer,) = remote.sent(remote.core.ask(ask((1, 2), 5), 0.0), PlacementOffer)
    epoch = offer.placement.epoch
    remote.hear(PlacementReply(MODEL, epoch, True, ""), 0.0)
    (opening,) = remote.sent(remote.hear(ShardReady(MODEL, epoch, Shard(OTHER, 0, 4, True, True)), 0.0), SessionOpen)
    effects = remote.hear(SessionReply(S1, opening.epoch, False, "full", 0, 4096), 0.0)
    assert remote.sent(effects, SessionClose) == [SessionClose(S1, opening.epoch, True)]
    assert any(isinstance(e, Notice) and "4 KiB are in use" in e.text for e in effects)
    assert remote.sent(remote.tick(0.1, 2.0), SessionOpen)


def test_the_end_is_told_to_the_stages() -> None:
    remote = Remote()
    remote.start((1, 2), n_tokens=1)
    effects = remote.hear(Token(S1, remote.epoch, 2, 7), 0.1)
    assert remote.sent(effects, SessionClose) == [SessionClose(S1, remote.epoch, True)]


def test_garbage_in_a_frame_of_ids_is_ignored() -> None:
    core = alone()
    run(core, core.ask(ask((5, 6), 9), 0.0), [7])
    session = core.sessions.sessions[S1]
    from swarm.wire.records import TensorInfo

    message = Tokens(S1, session.epoch, 3, TensorInfo("i32", (2,)), True)
    for frame in (None, b"", b"1234", b"\xff" * 8):
        assert core.received(ME, message, frame, 1.0) == []


# --- stages of two devices each, played by the test

DEVICES = tuple(PeerId(c * 32) for c in "abcd")
GROUPS = Placement(
    MODEL,
    1,
    ME,
    100,
    "f16",
    (
        *(Shard(peer, 0, 2, True, False) for peer in DEVICES[:2]),
        *(Shard(peer, 2, 4, False, True) for peer in DEVICES[2:]),
    ),
)


class ReadyPlacer(Placer):
    """Has one placement, and it is ready."""

    def __init__(self) -> None:
        world = Core(Identity(ME, BootId("1" * 16), "me"), capabilities(1, 1e6), Random(1))
        super().__init__(ME, world, Random(1), first_epoch=1)
        self.placings[MODEL] = Placing(MODEL, 100, State.READY, GROUPS)

    def need(self, model: ModelId, context: int, now: float) -> list[Effect]:
        return []

    def refresh(self, model: ModelId, now: float) -> list[Effect]:
        return []


def sessions_of(placer: Placer) -> Sessions:
    return Sessions(ME, placer, SpotChecks(ME, placer, Shards(ME, Ledger(0)), lambda model: False, Random(1)))


def opened_groups() -> tuple[Sessions, list[Effect]]:
    sessions = sessions_of(ReadyPlacer())
    sessions.ask(ask((5, 6), 9), 0.0)
    epoch = sessions.sessions[S1].epoch
    replies = [sessions.reply(peer, SessionReply(S1, epoch, True, "", 0), 0.0) for peer in DEVICES]
    assert replies[:3] == [[], [], []], "all members of all stages must have opened it"
    return sessions, replies[3]


def open_with(*haves: int, begins_earlier: bool) -> tuple[Sessions, list[Effect]]:
    """A session with ten ids in its second turn, of which stages have kept so many."""
    sessions, _ = opened_groups()
    session = sessions.sessions[S1]
    session.phase = Phase.RESTING
    session.true_prefix = {epoch: 1 << 62 for epoch in session.acked.values()}
    sessions.ask(ask((5, 6, 1, 2, 3, 4, 5, 6, 7, 8), 9), 1.0)
    session = sessions.sessions[S1]
    session.keeps = dict.fromkeys(DEVICES, 9)
    replies = [SessionReply(S1, session.epoch, True, "", have, begins_earlier=begins_earlier) for have in haves]
    *_, last = [sessions.reply(peer, reply, 1.0) for peer, reply in zip(DEVICES, replies, strict=True)]
    return sessions, last


def test_where_stages_have_kept_different_positions_the_least_of_them_is_the_start() -> None:
    sessions, effects = open_with(9, 9, 6, 8, begins_earlier=True)
    assert not any(isinstance(effect, Log) for effect in effects) and receivers(effects, SessionOpen) == []
    (batch,) = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, Tokens)]
    assert batch.position == 6 and sessions.sessions[S1].reused == 6


def test_devices_that_begin_where_they_ended_are_asked_again_for_the_least() -> None:
    _, effects = open_with(9, 9, 6, 8, begins_earlier=False)
    assert receivers(effects, SessionOpen) == list(DEVICES) and receivers(effects, Tokens) == []
    assert any(isinstance(effect, Log) and effect.event == "session_reopened" for effect in effects)


def receivers(effects: list[Effect], kind: type) -> list[PeerId]:
    return [e.to for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def test_a_session_opens_and_closes_on_every_member_of_every_stage() -> None:
    sessions = sessions_of(ReadyPlacer())
    assert receivers(sessions.ask(ask((5, 6), 9), 0.0), SessionOpen) == list(DEVICES)
    assert receivers(sessions.cancel(S1, 0.0), SessionClose) == list(DEVICES)


def test_ids_go_to_the_leader_of_the_first_stage_only() -> None:
    _, effects = opened_groups()
    assert receivers(effects, Tokens) == [DEVICES[0]]


def test_a_token_counts_from_the_leader_of_the_last_stage_only() -> None:
    sessions, _ = opened_groups()
    epoch = sessions.sessions[S1].epoch
    for other in (DEVICES[0], DEVICES[1], DEVICES[3]):
        assert sessions.token(other, Token(S1, epoch, 2, 7), 0.0) == []
    assert emitted(sessions.token(DEVICES[2], Token(S1, epoch, 2, 7), 0.0)) == [(2, 7)]


def test_a_probe_goes_to_every_member_and_needs_an_answer_of_each() -> None:
    sessions, _ = opened_groups()
    epoch, now = sessions.sessions[S1].epoch, 0.0
    for _ in range(3):
        now = sessions.timer()
        assert receivers(sessions.tick(now), SessionProbe) == list(DEVICES)
        for peer in DEVICES[:3]:
            sessions.probed(peer, SessionProbed(S1, epoch, 2, False), now)
    assert sessions.sessions[S1].epoch == epoch, "one has not answered: nothing follows yet"
    for peer in DEVICES:
        sessions.probed(peer, SessionProbed(S1, epoch, 2, False), now)
    sessions.tick(sessions.timer())
    for peer in DEVICES:
        sessions.probed(peer, SessionProbed(S1, epoch, 2, False), now)
    assert receivers(sessions.tick(sessions.timer()), SessionOpen) == list(DEVICES)


def test_a_session_begins_with_what_another_one_has_computed_of_the_same_ids() -> None:
    core = alone()
    run(core, core.ask(ask((5, 6, 1, 2), 2), 0.0), [7, 8])
    other = AnswerRequest(S2, MODEL, (5, 6, 1, 3), 2, end_ids=(END_ID,), source=S1)
    out = run(core, core.ask(other, 1.0), [3, 3])
    (opening,) = [e for e in out if isinstance(e, OpenKv)]
    assert (opening.keep, opening.source, opening.moves) == (3, S1, False)
    assert core.sessions.sessions[S2].reused == 3
    # Its next turn goes on with its own, and so does the other one's.
    out = run(core, core.ask(replace(other, ids=(5, 6, 1, 3, 3, 9)), 2.0), [4, 4])
    (opening,) = [e for e in out if isinstance(e, OpenKv)]
    assert (opening.keep, opening.source) == (5, None)
    (opening,) = [e for e in run(core, core.ask(ask((5, 6, 1, 2, 7, 9), 1), 3.0), [1]) if isinstance(e, OpenKv)]
    assert (opening.keep, opening.source) == (5, None)


def test_without_room_for_both_the_session_takes_over_the_memory_of_its_source() -> None:
    core = alone(memory=COST.stage_weight_bytes(0, 4) + 4 * 8)
    run(core, core.ask(ask((5, 6, 1, 2), 2), 0.0), [7, 8])
    other = AnswerRequest(S2, MODEL, (5, 6, 1, 3), 2, end_ids=(END_ID,), source=S1)
    (opening,) = [e for e in run(core, core.ask(other, 1.0), [3, 3]) if isinstance(e, OpenKv)]
    assert (opening.keep, opening.source, opening.moves) == (3, S1, True) and list(core.ledger.kv) == [S2]
    (opening,) = [e for e in run(core, core.ask(ask((5, 6, 1, 2, 7), 1), 2.0), [1]) if isinstance(e, OpenKv)]
    assert (opening.keep, opening.source) == (0, None)


def test_a_source_lends_what_its_stages_have_computed_and_nothing_of_another_model() -> None:
    core = alone()
    run(core, core.ask(ask((5, 6, 1, 2), 9), 0.0), [])  # its prompt is read, its first token is not sampled yet
    session = core.sessions.sessions[S1]
    other = AnswerRequest(S2, MODEL, (5, 6, 1, 2, 3), 2, end_ids=(END_ID,), source=S1)
    (opening,) = [e for e in run(core, core.ask(other, 1.0), [3, 3]) if isinstance(e, OpenKv)]
    assert (opening.keep, opening.source) == (0, None), "no position of it has passed the last stage"
    loan = session.lend(core.sessions.sessions[S2])
    assert loan is None, "this one has KV of its own by now"
    session.ask = replace(session.ask, model=ModelId("b" * 64))
    session.passed = 4
    assert session.lend(Session(other, [5, 6, 1, 2, 3], Phase.QUEUED, 0.0)) is None


@pytest.mark.parametrize(
    ("more", "n_tokens", "shown", "why"),
    [
        ((8, 9), 9, [7, 8, 9], []),
        ((8, END_ID, 9), 9, [7, 8], [EndReason.STOP]),
        ((8, 9, 9), 2, [7, 8], [EndReason.LENGTH]),
    ],
)
def test_tokens_of_one_step_are_given_out_in_order_and_end_where_they_would_one_by_one(
    more: tuple[int, ...], n_tokens: int, shown: list[int], why: list[EndReason]
) -> None:
    remote = Remote()
    remote.start((1, 2), n_tokens)
    out = remote.hear(Token(S1, remote.epoch, 2, 7, (), more, (), 3), 0.1)
    assert emitted(out) == [(2 + i, token) for i, token in enumerate(shown)] and ended(out) == why
    told = [(e.guessed, e.n_guesses) for e in out if isinstance(e, Emit)]
    assert told == [(False, 3), *[(True, 0)] * (len(shown) - 1)]
    assert emitted(remote.hear(Token(S1, remote.epoch, 3, 8, (), (9,)), 0.1)) == [], "those are there already"


def test_a_token_that_the_model_does_not_have_is_shown_with_none_that_came_beside_it() -> None:
    remote = Remote()
    remote.core.model_known(MODEL, replace(COST, vocabulary=100), 0.0)
    remote.start((1, 2))
    assert emitted(remote.hear(Token(S1, remote.epoch, 2, 7, (), (100,)), 0.1)) == []


@pytest.mark.parametrize(("asked", "known"), [(True, True), (True, False), (False, True)])
def test_guesses_are_allowed_where_they_are_wanted_and_every_stage_knows_of_them(asked: bool, known: bool) -> None:
    remote = Remote()
    effects = remote.start((1, 2), takes_guesses=known, guess=asked)
    (batch,) = remote.sent(effects, Tokens)
    assert batch.guesses == (limits.MAX_GUESSES if asked and known else 0)


# --- what came through a device that was left out


class Doubted(Remote):
    """A slow device that could answer alone, and OTHER, which is left out after it gave these tokens."""

    def __init__(self, tokens: list[int]) -> None:
        super().__init__()
        self.core = Core(Identity(ME, BootId("1" * 16), "me"), capabilities(100_000, 1e3), Random(1))
        self.core.model_known(MODEL, COST, 0.0)
        self.core.holdings(ME, MODEL, frozenset(all_parts(4)), 0.0)
        self.core.tick(0.0)
        self.core.peer_up(OTHER, BootId("2" * 16), "other", 0.0)
        self.hear(Measured(capabilities(100_000, 1e12), (LinkMeasurement(ME, 0.001, 1e8),)), 0.0)
        self.core.holdings(OTHER, MODEL, frozenset(all_parts(4)), 0.0)
        self.start((1, 2))
        for position, token in enumerate(tokens, 2):
            self.hear(Token(S1, self.epoch, position, token), 0.1)

    def alone(self, tokens: list[int]) -> list[Effect]:
        """What the user gets when OTHER is left out, and this device computes these tokens."""
        return run(self.core, self.core.misbehaved(OTHER, "sent garbage", 0.2), tokens, 0.2)


def unsaid(effects: list[Effect]) -> list[int]:
    return [e.position for e in effects if isinstance(e, Unsay)]


def test_tokens_of_a_device_that_was_left_out_are_computed_again_and_right_ones_stay() -> None:
    remote = Doubted([7, 8, 9])
    out = remote.alone([7, 8, 9, 10, 11])
    assert unsaid(out) == []
    assert emitted(out) == [(5, 10), (6, 11)], "what is known is not said again"
    assert remote.core.placer.conduct.accounts[OTHER].until < 100.0


def test_falsified_tokens_are_taken_back_and_who_sent_them_is_left_out_for_long() -> None:
    remote = Doubted([7, 66, 67])
    out = remote.alone([7, 8, 9, 10])
    assert unsaid(out) == [3]
    assert emitted(out) == [(3, 8), (4, 9), (5, 10)]
    assert remote.core.sessions.sessions[S1].ids == [1, 2, 7, 8, 9, 10]
    assert any(isinstance(e, Notice) and "other computed something else than the model says" in e.text for e in out)
    assert remote.core.placer.conduct.why_left_out(OTHER, limits.EXCLUDE_MAX_S - 1)


def test_only_the_last_tokens_are_doubted() -> None:
    right = list(range(10, 30))
    remote = Doubted([66, *right])
    out = remote.alone([*right[-limits.DOUBTED_TOKENS :], 5, 6])
    assert unsaid(out) == [] and [token for _, token in emitted(out)] == [5, 6]


def test_a_true_end_in_place_of_a_falsified_token_ends_the_answer() -> None:
    out = Doubted([7, 8]).alone([END_ID])
    assert unsaid(out) == [2] and emitted(out) == [] and ended(out) == [EndReason.STOP]
