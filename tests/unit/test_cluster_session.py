"""One session, as its owner knows it."""

from __future__ import annotations

from swarm import limits
from swarm.cluster.session import AnswerRequest, Phase, Session
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import SessionProbed

A = PeerId("a" * 32)
KEY = SessionId("c" * 32)


def session(*ids: int) -> Session:
    return Session(AnswerRequest(KEY, ModelId("1" * 64), ids, 5), list(ids), Phase.QUEUED, 0.0)


def test_the_next_turn_keeps_what_both_have_in_common() -> None:
    first = session(1, 2, 3)
    first.true_prefix = {7: 3, 8: 1}
    again = first.next_turn(AnswerRequest(KEY, first.ask.model, (1, 2, 9), 5), 1.0)
    assert again.true_prefix == {7: 2, 8: 1} and again.phase is Phase.QUEUED


def test_progress_forgets_what_the_stages_said_before() -> None:
    moving = session(1)
    moving.answers[A] = SessionProbed(KEY, 1, 4, True)
    moving.reopenings, moving.quiet = 3, (4,)
    assert moving.positions == {A: 4}
    moving.moved(5.0)
    assert (moving.moved_at, moving.reopenings, moving.quiet, moving.answers) == (5.0, 0, None, {})


def test_a_session_that_is_too_slow_is_looked_into_sooner() -> None:
    moving = session(1)
    moving.moved(10.0)
    assert moving.probe_due == 10.0 + limits.PROBE_AFTER_S
    moving.is_slow = True
    assert moving.probe_due == 10.0 + limits.QUICK_PROBE_S


def test_a_reader_who_waits_is_thought_of_after_a_while() -> None:
    waiting = session(1)
    waiting.wait_from(3.0)
    assert waiting.judge_at == 3.0 + limits.PATIENCE_S


def test_epochs_that_no_stage_accepted_last_are_forgotten() -> None:
    moving = session(1)
    moving.epoch, moving.acked, moving.true_prefix = 9, {A: 7}, {6: 1, 7: 2, 9: 3}
    moving.forget_old_epochs()
    assert moving.true_prefix == {7: 2, 9: 3}


def test_the_end_is_told_again_a_few_times() -> None:
    over = session(1)
    assert over.close_again_at == float("inf")
    over.phase, over.since = Phase.RESTING, 10.0
    times = []
    while over.close_again_at < float("inf"):
        times.append(over.close_again_at)
        over.n_closings += 1
    assert times == [10.0 + seconds for seconds in limits.CLOSE_AGAIN_S]
