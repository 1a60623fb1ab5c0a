"""One session on a stage: who sends to it, how far it is, and what waits to be computed of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from swarm.cluster.cost import ModelCost
from swarm.cluster.cuts import Bounds
from swarm.cluster.effects import Buffer, KeptBeginning, OpenKv, SessionRows, StageId, Together
from swarm.cluster.guesses import StageGuesses
from swarm.cluster.memory import Held
from swarm.cluster.pipeline import Pipeline
from swarm.cluster.shards import Claim
from swarm.cluster.turns import Layers
from swarm.kernels import _native
from swarm.value import Value
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import SessionOpen, SessionReply
from swarm.wire.records import Sampling, TensorInfo


class Step(Value):
    """Positions that wait to be computed here."""

    position: int
    ids: tuple[int, ...]
    sample: bool
    frame: Buffer | None
    since: float
    n_guesses: int = 0  # so many last ids
    asks: bool = False  # for what the model's own block would say next

    @property
    def end(self) -> int:
        return self.position + len(self.ids)

    @property
    def certain_end(self) -> int:
        """Positions before this one are no guesses."""
        return self.position + len(self.ids) - self.n_guesses

    @property
    def is_decode(self) -> bool:
        """Whether a reader waits for the token that comes of it."""
        return self.sample and len(self.ids) == 1 + self.n_guesses

    def cut(self, n: int) -> tuple[Step, Step]:
        """Its first n positions, and the others: what a batch is divided into does not show in any result."""
        frame = memoryview(self.frame).cast("B") if self.frame is not None else None
        at = len(frame) // len(self.ids) * n if frame is not None else 0
        first = msgspec.structs.replace(
            self, ids=self.ids[:n], sample=False, frame=frame[:at] if frame is not None else None
        )
        rest = frame[at:] if frame is not None else None
        return first, msgspec.structs.replace(self, position=self.position + n, ids=self.ids[n:], frame=rest)


class RunningRows(Value):
    """What a session has in the step that is out at the compute worker."""

    session: SessionId
    epoch: int
    step: Step
    is_void: bool = False  # for the others of the step only: the session was opened anew here, or is over


class RunningStep(Value):
    """The step that is out at the compute worker."""

    job: int
    layers: Layers
    rows: tuple[RunningRows, ...]
    since: float
    together: Together | None = None


@dataclass(slots=True)
class StageSession:
    """One session on this stage."""

    open: SessionOpen
    place: RingPlace
    expected: int  # positions before this one have come in
    done: int  # positions before this one are in the KV cache, and no guesses
    ids: list[int]  # of the positions before `expected`
    model: ModelCost
    steps: deque[Step] = field(default_factory=deque)
    answered: SessionReply | None = None  # None: its beginning is being read
    beginning: KeptBeginning | None = None  # that was on the disk
    closed: bool = False  # no data until it is opened again: over, its entry node out of sight, or a step failed
    decodes: bool = False  # the last step that came in was for a reader's next token
    n_guesses: int = 0  # so many of the positions that have come in last may prove wrong
    n_unsure: int = 0  # so many of those from `done` on are in the KV cache, too
    n_kept: int = 0  # positions of an earlier epoch: until data comes, it may begin behind any of them
    guesses: StageGuesses | None = None  # of the first stage, where it may guess
    waits: bool = False  # of the first stage: the entry node sends every step

    @property
    def certain(self) -> int:
        """Positions before this one have come in, and are no guesses."""
        return self.expected - self.n_guesses

    @property
    def epoch(self) -> int:
        return self.open.epoch

    def may_follow(self, position: int) -> bool:
        """Whether a step may begin there: behind what is certain, or behind any guess that has come in.

        The first of an epoch may begin earlier, where another stage has kept less.
        """
        return self.certain - self.n_kept <= position <= self.expected

    def takes(self, step: Step) -> None:
        """A step has come in; guesses of the last one that did not come, or what others lack, are forgotten."""
        del self.ids[step.position :]
        if step.position < self.done:  # what is in the KV cache from there on, the step replaces
            self.done, self.n_unsure = step.position, self.n_unsure + self.done - step.position
        self.n_kept = 0
        self.ids += step.ids
        self.expected, self.n_guesses = step.end, step.n_guesses

    def has_before(self, position: int) -> bool:
        """Whether all that comes before it is in the KV cache."""
        return 0 <= position - self.done <= self.n_unsure

    def computed(self, step: Step) -> None:
        """A step that came in is in the KV cache."""
        self.done, self.n_unsure = step.certain_end, step.n_guesses

    def failed(self) -> None:
        """A step could not be computed: what follows would build on positions that are not in the KV cache."""
        self.steps.clear()
        self.closed = True
        self.expected, self.n_guesses, self.n_unsure = self.done, 0, 0
        del self.ids[self.done :]

    def open_kv(self, keep: int) -> OpenKv:
        """Room for its KV, where so many positions stay."""
        first, end, bounds = self.place.held
        opened = self.open
        kv = OpenKv(opened.session, opened.model, first, end, opened.context, keep, self.place.kv, bounds)
        return msgspec.structs.replace(kv, mtp=True) if self.place.mtp else kv

    @property
    def kv_bytes(self) -> int:
        """Memory for its KV here."""
        place, context = self.place, self.open.context
        mtp = self.model.mtp_kv_bytes(context) if place.mtp else 0
        return self.model.stage_kv_bytes(place.first, place.end, context) + mtp

    def begin(self, ids: list[int]) -> SessionReply:
        """It is open, with the KV of these ids."""
        self.expected = self.done = self.n_kept = len(ids)
        self.ids = ids
        self.answered = SessionReply(
            self.open.session, self.epoch, True, "", len(ids), guesses=True, waits=True, begins_earlier=True
        )
        return self.answered

    def can_use(self, frame: Buffer, tensor: TensorInfo) -> bool:
        """False for activations of another model's width, and with values that are no numbers (NaN, infinite)."""
        hidden = self.model.hidden
        if tensor.dtype != "f32" or tensor.shape[1:] != (hidden,) or len(frame) != 4 * hidden * tensor.shape[0]:
            return False
        return _native.all_finite(frame)

    def is_source_of(self, message: SessionOpen) -> bool:
        """Whether this is what the entry node means: its own session, with the ids that it knows of."""
        is_other = self.open.session != message.session
        return is_other and self.open.entry == message.entry and self.epoch == message.source_epoch


class RingPlace(Value):
    """Where this device is in the pipeline; peers are the leaders of their stages."""

    model: ModelId
    first: int
    end: int
    leader: PeerId  # of a stage of several devices the others take nothing from other stages, and send them nothing
    others: tuple[PeerId, ...]  # the other members of the stage
    before: PeerId | None  # None: this is the first stage
    after: PeerId | None  # None: this is the last stage
    ring_first: PeerId
    ring_last: PeerId
    leads: bool
    kv: str = "f16"  # how keys and values are kept
    stage: StageId | None = None  # None: its layers are this device's alone
    slice: Bounds = ()
    mtp: bool = False  # the block that predicts further tokens is here
    asks: bool = False  # it is on the last stage, and may be asked

    @classmethod
    def of(cls, claim: Claim) -> RingPlace:
        pipeline, me, stage = Pipeline.of(claim.placement), claim.shard.peer, claim.stage
        before, after = pipeline.before(stage), pipeline.after(stage)
        return cls(
            model=claim.placement.model,
            first=stage.first,
            end=stage.end,
            leader=stage.leader.peer,
            others=tuple(shard.peer for shard in stage.members if shard.peer != me),
            before=before.leader.peer if before is not None else None,
            after=after.leader.peer if after is not None else None,
            ring_first=pipeline.first.leader.peer,
            ring_last=pipeline.last.leader.peer,
            kv=claim.placement.kv,
            leads=stage.leader.peer == me,
            stage=claim.stage_id,
            slice=claim.shard.slice.bounds,
            mtp=claim.holds_mtp,
            asks=claim.placement.mtp,
        )

    @property
    def layers(self) -> Layers:
        """What a step here runs; sessions for which that is the same may share one."""
        return self.model, self.first, self.end, self.stage

    @property
    def held(self) -> Held:
        """Of which layers' heads its keys and values are."""
        return self.first, self.end, self.slice

    @property
    def takes_ids(self) -> bool:
        """From the entry node, and those that the last stage samples."""
        return self.leads and self.before is None


def void_rows(row: RunningRows, is_last: bool) -> SessionRows:
    """Rows that are computed for the others of their step only, of the shape that these have."""
    step = row.step
    sample = step.sample and is_last
    return SessionRows(row.session, step.position, step.ids, sample, step.frame, n_guesses=step.n_guesses, is_void=True)


def step_rows(session: StageSession, step: Step) -> SessionRows:
    """What a step computes of a session."""
    sampling = session.open.sampling
    if not step.sample or session.place.after is not None:
        key, n_guesses = session.open.session, step.n_guesses
        return SessionRows(key, step.position, step.ids, False, step.frame, sampling, n_guesses=n_guesses)
    return SessionRows(
        session=session.open.session,
        position=step.position,
        ids=step.ids,
        sample=True,
        frame=step.frame,
        sampling=sampling,
        recent=recent_ids(session.ids, step.certain_end, sampling),
        answer=tuple(session.ids[sampling.answer_at : step.certain_end]) if sampling.grammar else (),
        n_guesses=step.n_guesses,
        asks=step.asks and session.place.mtp,
    )


def recent_ids(ids: Sequence[int], end: int, sampling: Sampling) -> tuple[int, ...]:
    """Of ids[:end], those that the penalties look at; empty when there are no penalties."""
    if sampling.repetition_penalty == 1.0 and not sampling.frequency_penalty and not sampling.presence_penalty:
        return ()
    first = 0 if sampling.repeat_last_n < 0 else max(end - sampling.repeat_last_n, 0)
    return tuple(ids[first:end])


def refusal(message: SessionOpen, text: str, missing_bytes: int = 0) -> SessionReply:
    """Why a session is not opened here."""
    return SessionReply(message.session, message.epoch, False, text, 0, missing_bytes)
