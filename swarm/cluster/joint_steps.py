"""Steps that the members of a stage compute together: their numbers, and how they are told; no session is known here.

The leader has one such step out at a time, on whichever of its stages: it tells the others, computes, and tells them
again while the step is not done, for nothing else would show that the telling was lost. A member keeps what it was told
until its compute worker is free, and takes each number of a stage once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from swarm import limits
from swarm.cluster.cost import FLOAT_BYTES
from swarm.cluster.effects import NEVER, Buffer, Effect, Send, StageId, Together
from swarm.cluster.stage_session import RunningRows, Step
from swarm.value import Value
from swarm.wire.ids import PeerId
from swarm.wire.messages import StageStep
from swarm.wire.records import StageRows, TensorInfo


class JointStep(Value):
    """A step that a leader has told this device of, and that waits for its compute worker."""

    together: Together
    rows: tuple[RunningRows, ...]


@dataclass(slots=True)
class _Telling:
    """The step that is out, as its other members were told of it."""

    message: StageStep
    frame: Buffer
    peers: tuple[PeerId, ...]
    again_at: float
    wait_s: float = limits.STAGE_STEP_AGAIN_S

    def send(self) -> list[Effect]:
        return [Send(peer, self.message, self.frame) for peer in self.peers]


class JointSteps:
    """Of all stages that this device is a member of."""

    def __init__(self) -> None:
        self.waiting: deque[JointStep] = deque()
        self._sequences: dict[StageId, int] = {}  # of the last step: told as a leader, or heard as a member
        self._telling: _Telling | None = None

    # --- leading

    def tell(
        self, stage: StageId, peers: tuple[PeerId, ...], rows: Sequence[RunningRows], hidden: int, now: float
    ) -> tuple[Together, list[Effect]]:
        """Begin a step: its number, and what the other members are told. No frames: they know the ids."""
        sequence = self._sequences[stage] = self._sequences.get(stage, 0) + 1
        frames = [row.step.frame for row in rows if row.step.frame is not None]
        told = tuple(_as_told(row) for row in rows)
        n_rows = sum(len(row.step.ids) for row in rows) if frames else 0
        info = TensorInfo("f32", (n_rows, hidden))
        message = StageStep(stage.author, stage.epoch, stage.first, sequence, told, info)
        frame = frames[0] if len(frames) == 1 else b"".join(frames)
        self._telling = _Telling(message, frame, peers, now + limits.STAGE_STEP_AGAIN_S)
        return Together(stage, sequence), self._telling.send()

    def done(self) -> None:
        """The step that was out is over."""
        self._telling = None

    def tick(self, now: float) -> list[Effect]:
        """Tell it again when that is due, and later next time: a step may only be long."""
        telling = self._telling
        if telling is None or now < telling.again_at:
            return []
        telling.wait_s *= 2
        telling.again_at = now + telling.wait_s
        return telling.send()

    def timer(self) -> float:
        """When `tick` has something to do next."""
        return self._telling.again_at if self._telling is not None else NEVER

    # --- following

    def is_new(self, message: StageStep) -> bool:
        """True for a step that this member has not heard of, and from then on False."""
        stage = StageId(message.author, message.epoch, message.first)
        if message.sequence <= self._sequences.get(stage, 0):
            return False
        self._sequences[stage] = message.sequence
        return True

    def forget(self, living: set[StageId]) -> None:
        """Stages that are over begin no steps."""
        self._sequences = {stage: n for stage, n in self._sequences.items() if stage in living}
        self.waiting = deque(step for step in self.waiting if step.together.stage in living)


def has_the_rows(message: StageStep, frame: Buffer | None, hidden: int) -> bool:
    """True when rows are of different sessions, each with one id before its guesses, and the frame has all of them.

    In the first stage it is empty.
    """
    n_rows = sum(len(row.ids) for row in message.rows)
    if n_rows > limits.MAX_BATCH_TOKENS or len({row.session for row in message.rows}) < len(message.rows):
        return False
    if any(row.n_guesses not in (0, len(row.ids) - 1) for row in message.rows):
        return False
    if message.first == 0 or frame is None:
        return not frame and message.first == 0
    is_of_rows = message.tensor.dtype == "f32" and message.tensor.shape == (n_rows, hidden)
    return is_of_rows and len(frame) == message.tensor.n_bytes


def rows_of(message: StageStep, frame: Buffer | None, hidden: int, now: float) -> list[RunningRows]:
    """What each session has in a step, with its part of the frame."""
    rows, at = [], 0
    whole = memoryview(frame or b"")
    for row in message.rows:
        end = at + FLOAT_BYTES * hidden * len(row.ids)
        frame_of_row = whole[at:end] if message.first else None
        step = Step(row.position, row.ids, row.sample, frame_of_row, now, row.n_guesses)
        rows.append(RunningRows(row.session, row.epoch, step))
        at = end
    return rows


def _as_told(row: RunningRows) -> StageRows:
    step = row.step
    return StageRows(row.session, row.epoch, step.position, step.ids, step.sample, step.n_guesses)
