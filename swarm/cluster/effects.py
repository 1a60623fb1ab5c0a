"""What the pure core asks its node to do. A method takes an event and the time, and returns a list of these, in order.

The node carries them out in that order. `Load` may take minutes and is answered by `core.loaded()` or
`core.load_failed()`, `Compute` by `core.computed()`; at most one `Compute` is out at a time.
`Unload`, the KV effects and `Compute` go to the one compute worker, in order: nothing is pulled from under a step.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import field

from swarm.answers import EndReason
from swarm.parts import Part
from swarm.value import Value
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import Message
from swarm.wire.records import Sampling, TensorInfo, TokenChance

Buffer = bytes | bytearray | memoryview
NEVER = float("inf")  # a timer that nothing waits for


class Effect(Value):
    """Base of all effects."""


class Send(Effect):
    """A message, and its raw frame, to a peer."""

    to: PeerId
    message: Message
    frame: Buffer | None = None


# --- weights


class LookUp(Effect):
    """The manifest of a model is needed: get it and call `core.model_known()`."""

    model: ModelId


class Load(Effect):
    """Bring these parts into memory: fetch what the disk lacks, then read it. `ticket` comes back with the answer.

    Of their experts only `resident_share`; the others stay on disk.
    """

    ticket: int
    model: ModelId
    parts: frozenset[Part]
    resident_share: float = 1.0


class Unload(Effect):
    """Let go of these parts; where they are still being loaded, give that up (other parts of that `Load` go on)."""

    model: ModelId
    parts: frozenset[Part]


# --- stages of several devices


class StageId(Value):
    """A stage of a placement: the placement's author and epoch, and the first layer of the stage."""

    author: PeerId
    epoch: int
    first: int


class OpenStage(Effect):
    """Connect with the other members of a stage, at `ports`; ours is `members[me]`, and the first one leads.

    Links may come up later; a step that finds none fails.
    """

    stage: StageId
    members: tuple[PeerId, ...]
    ports: tuple[int, ...]
    me: int
    secret: bytes  # of the placement

    def __repr__(self) -> str:
        return f"OpenStage(stage={self.stage!r}, members={self.members!r})"  # the secret never in a log


class CloseStage(Effect):
    """Hang up on the other members, and end a step that waits for them; at once, not in order."""

    stage: StageId


class AbortStage(Effect):
    """That step cannot be: end it for all members, so that none waits; at once, not in order.

    `lost` is the member who is missing; None: it is we who do not take part.
    """

    stage: StageId
    sequence: int
    why: str
    lost: PeerId | None = None


# --- KV and computing, in order on the compute worker


class KeptPlace(Value):
    """What keys and values must have in common to be of use to a session: whose they are, and of which layers.

    `owner` tells conversations of one entry node apart that may not know of each other; nobody can guess it.
    """

    entry: PeerId
    owner: bytes
    model: ModelId
    kv: str
    first: int
    end: int
    slice: tuple[int, ...]


class KeptKv(Value):
    """Keys and values of a conversation's beginning in a file of this device; `name` follows from all the rest."""

    name: str
    place: KeptPlace
    ids: bytes  # int32, of the positions
    n_bytes: int  # that it takes

    @property
    def n(self) -> int:
        """Positions."""
        return len(self.ids) // 4


class KeptBeginning(Value):
    """Read the first `n` positions of a file; `core.kv_read()` is told with this `epoch` how many could be used."""

    kept: KeptKv
    n: int
    epoch: int


class OpenKv(Effect):
    """KV for layers [first, end) with room for `context` tokens; what is there is cut to the first `keep` positions.

    `kv` is how keys and values are kept: f16 or q8_0. With a `source` those positions are copied from that session's
    KV instead; where there is no room for both, `moves` says that it is that session's KV from now on, after what of
    it is worth to be `kept` was put aside for the disk (see DropKv). With a `beginning` nothing is there, and positions
    are read from the disk.
    """

    session: SessionId
    model: ModelId
    first: int
    end: int
    context: int
    keep: int
    kv: str = "f16"
    slice: tuple[int, ...] = ()  # a `models.slices.SliceBounds`: of whose heads; empty: of all
    source: SessionId | None = None
    moves: bool = False
    kept: KeptKv | None = None
    beginning: KeptBeginning | None = None
    mtp: bool = False  # the block that predicts further tokens follows it here


class DropKv(Effect):
    """Free the KV of a session; first write it into a file, where it is worth to be `kept`.

    That is answered by `core.kv_kept()` or `core.kv_lost()`.
    """

    session: SessionId
    kept: KeptKv | None = None


class KeepKv(Effect):
    """Write the beginning of a session's KV into a file, when nothing else wants the disk; it stays in memory.

    Nobody waits for that, and it ends where the session is opened anew. It is answered as DropKv is.
    """

    session: SessionId
    kept: KeptKv


class ForgetKept(Effect):
    """Delete the files of these names."""

    names: tuple[str, ...]


class SessionRows(Value):
    """Rows of a step that follow each other in one session: its positions [position, position + len(ids)).

    The input is the embedding of `ids` on the first stage, else `frame`. On the last stage `sample` asks for the token
    id at the position after the last one.
    """

    session: SessionId
    position: int
    ids: tuple[int, ...]
    sample: bool
    frame: Buffer | None = None
    sampling: Sampling = field(default_factory=Sampling)
    recent: tuple[int, ...] = ()  # ids up to and with this step, for the penalties; empty when they are off
    answer: tuple[int, ...] = ()  # ids of the answer up to and with this step; empty when no grammar asks for them
    n_guesses: int = 0  # so many last ids are guesses; with `sample` those that are right bring further tokens
    asks: bool = False  # on the last stage: for what the model's own block would say next
    is_void: bool = False  # nobody wants it any more: compute it, for the others of the step, on a cache of its own


class Together(Value):
    """Other devices compute the same rows: which stage, and the number of the step there."""

    stage: StageId
    sequence: int


class Compute(Effect):
    """Run the layers [first, end) over rows of one session, or of several at once: the bits of each are the same.

    For each of `rows` the output is the frame for the next stage; on the last stage with `sample` a token id, and
    without it neither. A `slice` of the layers is computed `together` with the other members of the stage, and only its
    leader has outputs; the others' are empty.
    """

    job: int
    model: ModelId
    first: int
    end: int
    rows: tuple[SessionRows, ...]
    slice: tuple[int, ...] = ()  # a `models.slices.SliceBounds`; empty: whole layers
    together: Together | None = None


class StepOutput(Value):
    """What a step gave a session: a frame for the next stage (of the last one a vector), or a token, or neither.

    Or why it failed, in one line.
    """

    frame: Buffer | None = None
    info: TensorInfo | None = None
    token: int | None = None
    told: tuple[TokenChance, ...] = ()  # how likely it was, and others, where that was asked for
    more: tuple[int, ...] = ()  # the tokens after it, where guesses came
    more_told: tuple[tuple[TokenChance, ...], ...] = ()
    forced: tuple[int, ...] = ()  # what a form asks for after those
    own: tuple[int, ...] = ()  # what the model's own block says after those, where that was asked for
    own_s: float = 0.0  # that saying it took
    error: str = ""
    lost: PeerId | None = None  # the member of the stage that was missing, where that is why it failed


class CheckTokens(Effect):
    """Compute the tokens ids[first:] once more, each after those before it, in idle moments and with `n_bytes` at most.

    Answered by `core.checked()`; the model is on this device's disk.
    """

    ticket: int
    model: ModelId
    ids: tuple[int, ...]
    first: int
    sampling: Sampling
    kv: str
    n_bytes: int


class StopCheck(Effect):
    """Give up a `CheckTokens`, and its memory."""

    ticket: int


# --- to the small model of this node


class Propose(Effect):
    """Say what may come after the ids of a session: at most n tokens, sampled as the session is; 0: only read them.

    Answered by `Core.drafted`, with as many as were found.
    """

    session: SessionId
    epoch: int
    ids: tuple[int, ...]
    n: int
    sampling: Sampling


# --- to the user of this node


class Emit(Effect):
    """The next token of an answer. Never repeated, and never taken back where a reader has seen it."""

    session: SessionId
    position: int
    token: int
    told: tuple[TokenChance, ...] = ()  # how likely it was, and others, where that was asked for
    guessed: bool = False  # it was computed before it was certain
    n_guesses: int = 0  # that were computed in the step of this token, the first of it


class Embedded(Effect):
    """The hidden state after the last id, behind the last norm, that a session was opened for: float32, little-endian.

    `Ended` follows.
    """

    session: SessionId
    vector: bytes
    n_devices: int = 1  # that took part


class Unsay(Effect):
    """Tokens from `position` on came through a device that falsified them: nobody may see them, or the answer ends.

    The right one for `position` follows. `names` are the devices.
    """

    session: SessionId
    position: int
    names: str


class Ended(Effect):
    """The answer is over. `error` is one line for the user when it failed."""

    session: SessionId
    reason: EndReason
    error: str = ""
    missing_bytes: int = 0  # of memory, when that is why
    retry_s: float = 0.0  # too many wait already; after so long one may


class NoticeKind(StrEnum):
    """What a quiet line is about, for programs."""

    WAITS = "waits"  # for devices, memory or a free place
    LOADING = "loading"  # said at every beginning: of interest only while nothing has come
    CHANGED = "changed"  # it goes on with other devices
    GOES_ON = "goes_on"  # nothing is in its way any more


class Notice(Effect):
    """One quiet line for the reader of an answer: why it waits, or what changed. Empty: it goes on."""

    session: SessionId
    text: str
    kind: NoticeKind = NoticeKind.WAITS


class Log(Effect):
    """An event with fields, for the log and the live view. Never keys, prompts or answers."""

    event: str
    fields: tuple[tuple[str, str | int | float], ...] = ()
