"""Who is answered next, who may wait, and what those that may not are told; on values, and on a core of its own."""

from __future__ import annotations

from swarm import limits
from swarm.answers import EndReason
from swarm.cluster.admission import Admission, has_room, next_of, seconds_text
from swarm.cluster.effects import Effect, Ended
from swarm.cluster.session import AnswerRequest, Phase, Session
from swarm.wire.ids import SessionId
from tests.unit.test_cluster_sessions import MODEL, alone, run

ACTIVE, WAITING, KEPT = limits.MAX_ACTIVE_SESSIONS, limits.MAX_WAITING_SESSIONS, limits.KEPT_WAITING_SESSIONS


def key(i: int) -> SessionId:
    return SessionId(f"{i:032x}")


def question(i: int, asker: str = "", *, has_more: bool = False, goes_on: bool = False, n: int = 2) -> AnswerRequest:
    return AnswerRequest(key(i), MODEL, (5, 6), n, end_ids=(0,), asker=asker, has_more=has_more, goes_on=goes_on)


def session(i: int, phase: Phase, asker: str = "", *, goes_on: bool = False) -> Session:
    return Session(question(i, asker, goes_on=goes_on), [5, 6], phase, 0.0)


def test_whoever_has_fewest_answers_comes_next_and_of_his_the_one_that_waits_longest() -> None:
    running = [session(i, Phase.RUNNING, "many") for i in range(3)]
    queue = [session(10, Phase.QUEUED, "many"), session(11, Phase.QUEUED, "few"), session(12, Phase.QUEUED, "few")]
    assert next_of([*running, *queue], 0.0) is queue[1]
    queue[1].phase = Phase.RUNNING
    assert next_of([*running, *queue], 0.0) is queue[2]
    assert next_of([*running, queue[0]], 0.0) is queue[0]
    assert next_of(running, 0.0) is None
    onward = session(13, Phase.QUEUED, "many", goes_on=True)
    assert next_of([*running, *queue, onward], 0.0) is onward, "its reader has the first half"


def test_no_more_run_than_may_and_a_held_place_is_taken() -> None:
    running = [session(i, Phase.RUNNING) for i in range(ACTIVE - 1)]
    held, waits = session(50, Phase.RESTING), session(51, Phase.QUEUED)
    held.place_until = 1.0
    assert next_of([*running, held, waits], 0.5) is None
    assert next_of([*running, held, waits], 1.0) is waits


def test_the_queue_keeps_places_for_those_who_have_none_in_it() -> None:
    queue = [session(i, Phase.QUEUED, "many") for i in range(WAITING - 1)]
    assert has_room(question(99, "many"), queue)
    queue.append(session(98, Phase.QUEUED, "many"))
    assert not has_room(question(99, "many"), queue)
    assert has_room(question(99, "many", goes_on=True), queue)
    for i in range(KEPT):
        assert has_room(question(99, f"new {i}"), queue)
        queue.append(session(200 + i, Phase.QUEUED, f"new {i}"))
    assert not has_room(question(99, "too late"), queue) and not has_room(question(99, "new 0"), queue)


def test_when_to_come_again_follows_from_how_long_answers_took() -> None:
    admission, running = Admission(), [session(i, Phase.RUNNING) for i in range(4)]
    assert admission.retry_s(running) == limits.RETRY_GUESS_S
    for seconds in (20.0, 60.0):
        admission.took(seconds)
    assert admission.retry_s(running) == 10.0, "four at once take 40 seconds each"
    assert admission.retry_s([]) == 40.0
    for _ in range(limits.ANSWERS_TIMED):
        admission.took(0.01)
    assert admission.retry_s(running) == 1.0, "what was long ago counts no more"
    admission.took(1e9)
    assert admission.retry_s(running) == limits.MAX_RETRY_S
    assert (seconds_text(1.0), seconds_text(1.2)) == ("a second", "2 seconds")


def refused(effects: list[Effect]) -> Ended | None:
    ends = [e for e in effects if isinstance(e, Ended)]
    return ends[0] if ends else None


def test_who_comes_too_late_hears_when_to_come_again() -> None:
    core = alone(memory=10_000_000)
    core.ask(question(1000), 0.0)
    core.cancel(key(1000), 32.0)
    for i in range(ACTIVE + WAITING):
        assert refused(core.ask(question(i, "many"), 40.0)) is None
    end = refused(core.ask(question(99, "many"), 40.0))
    assert end is not None and end.reason is EndReason.FAILED
    assert end.retry_s == 2.0 and end.error == "32 chats are waiting already; try again in 2 seconds"
    assert refused(core.ask(question(99, "another"), 40.0)) is None


def test_an_answer_that_asks_for_more_memory_keeps_its_place() -> None:
    core = alone(memory=10_000_000)
    out = run(core, core.ask(question(0, has_more=True), 0.0), [7])  # one of two tokens
    for i in range(1, ACTIVE + WAITING):
        core.ask(question(i), 0.0)
    sessions = core.sessions.sessions
    job = core.stage_sessions.running
    assert job is not None
    assert sessions[key(ACTIVE)].phase is Phase.QUEUED and not refused(out)
    session = sessions[key(0)]
    core.sessions._end(session, EndReason.LENGTH, 1.0)
    assert sessions[key(ACTIVE)].phase is Phase.QUEUED, "its place is held"
    assert refused(core.ask(question(0, goes_on=True), 1.1)) is None
    assert sessions[key(0)].phase is not Phase.QUEUED
    # One that does not come back gives its place away.
    core.sessions._end(sessions[key(0)], EndReason.CANCELLED, 2.0)
    assert sessions[key(ACTIVE)].phase is not Phase.QUEUED, "nobody waits for more of it"
    session = sessions[key(1)]
    session.ask = question(1, has_more=True)
    core.sessions._end(session, EndReason.LENGTH, 3.0)
    assert sessions[key(ACTIVE + 1)].phase is Phase.QUEUED
    assert core.get_timer() <= 3.0 + limits.PLACE_HELD_S
    core.tick(3.0 + limits.PLACE_HELD_S)
    assert sessions[key(ACTIVE + 1)].phase is not Phase.QUEUED
