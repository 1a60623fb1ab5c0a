"""Steps of several devices: their numbers, and which frames are theirs."""

from __future__ import annotations

import pytest

from swarm import limits
from swarm.cluster.effects import NEVER, Send, StageId, Together
from swarm.cluster.joint_steps import JointStep, JointSteps, has_the_rows, rows_of
from swarm.cluster.stage_session import RunningRows, Step
from swarm.wire.ids import PeerId, SessionId
from swarm.wire.messages import StageStep
from swarm.wire.records import StageRows, TensorInfo

AUTHOR, OTHER = PeerId("a" * 32), PeerId("b" * 32)
S1, S2 = SessionId("c" * 32), SessionId("d" * 32)
STAGE, LATER = StageId(AUTHOR, 1, 0), StageId(AUTHOR, 1, 4)
HIDDEN = 2


def rows(*frames: bytes | None) -> list[RunningRows]:
    return [
        RunningRows(session, 2, Step(5, (1,) * (len(frame or b"12345678") // 8), True, frame, 0.0))
        for session, frame in zip((S1, S2), frames, strict=False)
    ]


def told(steps: JointSteps, stage: StageId, *frames: bytes | None) -> tuple[StageStep, bytes]:
    _, (effect,) = steps.tell(stage, (OTHER,), rows(*frames), HIDDEN, 0.0)
    assert isinstance(effect, Send) and isinstance(effect.message, StageStep) and effect.frame is not None
    return effect.message, bytes(effect.frame)


def test_numbers_of_a_stage_grow_and_each_stage_has_its_own() -> None:
    steps = JointSteps()
    assert [told(steps, STAGE, None)[0].sequence for _ in range(3)] == [1, 2, 3]
    assert told(steps, LATER, b"8 bytes.")[0].sequence == 1


def test_what_is_told_is_what_members_read() -> None:
    message, frame = told(JointSteps(), LATER, b"8 bytes.", b"sixteen bytes..!")
    assert has_the_rows(message, frame, HIDDEN)
    found = rows_of(message, frame, HIDDEN, 3.0)
    assert [bytes(row.step.frame or b"") for row in found] == [b"8 bytes.", b"sixteen bytes..!"]
    assert [row.session for row in found] == [S1, S2] and found[0].step.since == 3.0
    message, frame = told(JointSteps(), STAGE, None, None)
    assert frame == b"" and has_the_rows(message, frame, HIDDEN)
    assert [row.step.frame for row in rows_of(message, frame, HIDDEN, 0.0)] == [None, None]


def test_other_frames_are_not_taken() -> None:
    message, frame = told(JointSteps(), LATER, b"8 bytes.", b"8 bytes.")
    assert not has_the_rows(message, frame[:8], HIDDEN) and not has_the_rows(message, None, HIDDEN)
    assert not has_the_rows(message, frame, HIDDEN + 1)
    many = StageRows(S1, 1, 0, (1,) * limits.MAX_BATCH_TOKENS, True)
    for bad in ((many, StageRows(S2, 1, 0, (1,), True)), (many, many)):
        assert not has_the_rows(StageStep(AUTHOR, 1, 0, 1, bad, TensorInfo("f32", (0, HIDDEN))), b"", HIDDEN)


def test_a_step_that_is_not_done_is_told_again_less_and_less_often() -> None:
    steps = JointSteps()
    told(steps, STAGE, None)
    times = []
    for _ in range(4):
        times.append(steps.timer())
        assert len(steps.tick(steps.timer())) == 1
    assert times == pytest.approx([limits.STAGE_STEP_AGAIN_S * n for n in (1, 3, 7, 15)])
    steps.done()
    assert steps.timer() == NEVER and steps.tick(100.0) == []


def test_each_number_is_new_once_and_what_is_over_is_forgotten() -> None:
    steps = JointSteps()
    message = told(JointSteps(), STAGE, None)[0]
    assert steps.is_new(message) and not steps.is_new(message)
    steps.waiting.append(JointStep(Together(STAGE, 1), ()))
    steps.forget({STAGE})
    assert not steps.is_new(message) and steps.waiting
    steps.forget({LATER})
    assert not steps.waiting and steps.is_new(message)


def test_guesses_travel_with_their_rows_and_one_id_before_them_is_certain() -> None:
    step = Step(5, (1, 2, 3), True, None, 0.0, n_guesses=2)
    _, (effect,) = JointSteps().tell(STAGE, (OTHER,), [RunningRows(S1, 2, step)], HIDDEN, 0.0)
    assert isinstance(effect, Send) and isinstance(effect.message, StageStep)
    assert has_the_rows(effect.message, b"", HIDDEN)
    assert rows_of(effect.message, b"", HIDDEN, 0.0)[0].step == step
    for n_guesses in (1, 3):
        bad = (StageRows(S1, 2, 5, (1, 2, 3), True, n_guesses),)
        assert not has_the_rows(StageStep(AUTHOR, 1, 0, 1, bad, TensorInfo("f32", (0, HIDDEN))), b"", HIDDEN)
