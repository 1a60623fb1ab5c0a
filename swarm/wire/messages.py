"""Every message, its number on the wire, the lane it takes and the raw frames that follow it.

PROTOCOL.md says what each is for and who answers what. Numbers are never used twice. New fields go to the end, with a
default; new messages get new numbers: both are a new minor version.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, ClassVar, Literal, get_args

from msgspec import Meta

from swarm import limits
from swarm.wire.ids import BootId, ChunkId, ModelId, PeerId, SessionId
from swarm.wire.records import (
    STAGE_SECRET_BYTES,
    WHOLE,
    ByteCount,
    Capabilities,
    Celsius,
    Count,
    Epoch,
    Experts,
    Fingerprint,
    GuessCount,
    Key,
    LayerIndex,
    LinkMeasurement,
    Mark,
    Micros,
    ModelHolding,
    NodeState,
    Owner,
    PeerAddresses,
    Placement,
    Port,
    Position,
    Proof,
    Sampling,
    SessionState,
    Shard,
    Slice,
    StageRows,
    StageSecret,
    TensorInfo,
    TokenChance,
    TokenId,
    Version,
)
from swarm.wire.schema import Line, Name, Record, Software

PROTOCOL = Version(2, 1)


class Lane(Enum):
    """Two links to each peer, so that a chunk never delays an activation or a heartbeat."""

    FAST = "fast"
    BULK = "bulk"
    __hash__ = object.__hash__  # Enum's own is Python, and lanes are looked up for every message


Told = Annotated[tuple[TokenChance, ...], Meta(max_length=limits.MAX_TOLD_TOKENS)]
LaneName = Literal["fast", "bulk"]


class Message(Record):
    """Base of all messages. Each has a tag, its number on the wire."""

    LANE: ClassVar[Lane] = Lane.FAST
    MAX_FRAME_BYTES: ClassVar[int] = 0  # 0: no raw frame follows; otherwise exactly one does


# --- links


class Hello(Message, tag=1):
    """The first message of the one that called."""

    version: Version
    peer: PeerId
    boot: BootId
    name: Name
    lane: LaneName
    fingerprint: Fingerprint
    proof: Proof
    port: Port  # where the caller listens
    bulk_port: Port


class Welcome(Message, tag=2):
    """The answer to Hello: the link is up."""

    version: Version
    peer: PeerId
    boot: BootId
    name: Name
    lane: LaneName
    fingerprint: Fingerprint
    proof: Proof
    port: Port
    bulk_port: Port


Refusal = Literal["version", "proof", "clone", "hello", "garbage", "full", "forgotten", "self"]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)


class Refuse(Message, tag=3):
    """The link is not, or no longer, accepted; the caller hangs up and tries again after retry_s."""

    reason: Refusal
    text: Line
    version: Version
    retry_s: Count


class Heartbeat(Message, tag=4):
    """Every HEARTBEAT_INTERVAL_S on every fast link; echo and held give the round trip."""

    clock_us: Micros  # the sender's, monotonic
    echo_us: Micros  # clock_us of the last heartbeat heard from you; 0 for none
    held_us: Micros  # how long ago that came
    wall_ms: Micros  # the sender's time of day, for `swarm doctor`
    state: NodeState


class Goodbye(Message, tag=5):
    """The sender leaves on purpose."""

    text: Line


class Gossip(Message, tag=6):
    """Devices that the sender can reach, and where."""

    peers: Annotated[tuple[PeerAddresses, ...], Meta(max_length=limits.MAX_PEERS)]


class Measured(Message, tag=7):
    """What the sender measured about itself and its links."""

    capabilities: Capabilities
    links: Annotated[tuple[LinkMeasurement, ...], Meta(max_length=limits.MAX_PEERS)]


class Rekey(Message, tag=8):
    """The swarm gets a new key, from a member to a member whose device key was proven on this very link."""

    generation: Count
    swarm_key: Key

    def __repr__(self) -> str:
        return f"Rekey(generation={self.generation})"  # the key never in a log


class RekeyDone(Message, tag=9):
    """The new key is on the sender's disk."""

    generation: Count


class LinkProbe(Message, tag=10):
    """A frame to measure throughput with; the receiver answers LinkProbed when all bytes are there."""

    LANE = Lane.BULK
    MAX_FRAME_BYTES = limits.MAX_BULK_FRAME_BYTES
    sequence: Count


class LinkProbed(Message, tag=11):
    """The frame of that probe has come."""

    sequence: Count
    n_bytes: ByteCount


# --- placement


class PlacementOffer(Message, tag=20):
    """The author asks the receiver to hold its shard of this placement."""

    placement: Placement


class PlacementReply(Message, tag=21):
    """The receiver takes its shard of that epoch, or says why not (also later, when it cannot load it)."""

    model: ModelId
    epoch: Epoch
    accepted: bool
    text: Line
    missing_bytes: ByteCount = 0  # of memory, when that is why
    slice_port: Port = 0  # where it listens for the other members of its stage
    led_by: PeerId | None = None  # who leads it in other stages, when that is why: it follows one device only


class PlacementCommit(Message, tag=22):
    """All took it: load it, and let go of older placements of this author and model. Goes to all devices of both.

    Only members of a placement with slices get its secret, and where each shard's device listens for its stage.
    """

    placement: Placement
    secret: StageSecret = b""
    ports: Annotated[tuple[Port, ...], Meta(max_length=limits.MAX_SHARDS)] = ()  # in the order of the shards

    def __repr__(self) -> str:
        return f"PlacementCommit(placement={self.placement!r})"  # the secret never in a log


class ShardReady(Message, tag=23):
    """The sender's shard is in memory."""

    model: ModelId
    epoch: Epoch
    shard: Shard


# --- the store


class Catalog(Message, tag=30):
    """Models that the sender has chunks of."""

    models: Annotated[tuple[ModelHolding, ...], Meta(max_length=limits.MAX_MODELS)]


class ManifestRequest(Message, tag=31):
    """Asks for the bytes of a manifest from `offset`."""

    model: ModelId
    offset: ByteCount


class ManifestReply(Message, tag=32):
    """A piece of a manifest in the raw frame; total_bytes 0 means: not here."""

    LANE = Lane.BULK
    MAX_FRAME_BYTES = limits.MAX_BULK_FRAME_BYTES
    model: ModelId
    offset: ByteCount
    total_bytes: ByteCount


class HaveRequest(Message, tag=33):
    """Asks which chunks of a model the receiver has, from chunk number `start`."""

    model: ModelId
    start: Count


class Have(Message, tag=34):
    """One bit a chunk in the raw frame, least significant first, in the order of the manifest, from `start`."""

    MAX_FRAME_BYTES = limits.MAX_HAVE_BYTES
    model: ModelId
    start: Count
    n_chunks: Count


class ChunkRequest(Message, tag=35):
    """Asks for bytes [offset, offset + n_bytes) of a chunk."""

    request: Count  # chosen by the asker; comes back in the reply
    chunk: ChunkId
    offset: ByteCount
    n_bytes: Annotated[int, Meta(ge=1, le=limits.MAX_BULK_FRAME_BYTES)]


class ChunkReply(Message, tag=36):
    """Those bytes in the raw frame; an empty frame and found=False: not here (any more)."""

    LANE = Lane.BULK
    MAX_FRAME_BYTES = limits.MAX_BULK_FRAME_BYTES
    request: Count
    chunk: ChunkId
    offset: ByteCount
    found: bool


class ChunkCancel(Message, tag=37):
    """The asker does not need that request any more."""

    request: Count


class RemoveModel(Message, tag=38):
    """Delete what you hold of a model, and its file where Swarm brought it."""

    model: ModelId


# --- answering


class SessionOpen(Message, tag=40):
    """The entry node opens a session on every stage of its placement, or opens it again.

    `epoch` grows with every opening of the session; from then on messages of older epochs are stale. KV of the first
    `keep` positions stays where the stage has it from an earlier opening; all other KV is forgotten. With a `source`,
    another session of the same entry node, those positions are the same as that one's in its epoch `source_epoch`,
    and their KV is copied. `owner` and `marks` find KV of the same ids that a stage has kept on its disk, of whichever
    session of that owner: a mark names MARK_TOKENS ids more than the one before it (cluster/kept.py).
    """

    session: SessionId
    model: ModelId
    epoch: Epoch
    placement: Epoch  # of the entry node's placement whose shards are the stages
    entry: PeerId
    context: Position  # tokens of KV to keep room for; nothing is sampled for this position or a later one
    keep: Position
    sampling: Sampling
    end_ids: Annotated[tuple[TokenId, ...], Meta(max_length=limits.MAX_END_IDS)]
    source: SessionId | None = None
    source_epoch: Epoch = 0
    owner: Owner = b""
    marks: Annotated[tuple[Mark, ...], Meta(max_length=limits.MAX_MARKS)] = ()


class SessionReply(Message, tag=41):
    """The stage opened the session, or says why not."""

    session: SessionId
    epoch: Epoch
    accepted: bool
    text: Line
    have: Position = 0  # positions of KV that were kept; the first message of data starts there
    missing_bytes: ByteCount = 0  # of memory, when that is why
    guesses: bool = False  # it takes steps with guesses
    waits: bool = False  # as a first stage, it begins no step by itself where the entry node asks for that
    begins_earlier: bool = False  # the first message of data may start at any position up to `have`


class Tokens(Message, tag=42):
    """Token ids (i32) for positions [position, position + n): the entry node feeds the first stage, or replays.

    A stage takes every position of an epoch once and in order. `sample` asks the last stage to sample after the last.
    In the steps that follow, the first stage may guess so many tokens beside each that is certain. With `waits` it
    begins none of them by itself: the entry node sends each, with guesses of its own (so many last ids).
    """

    MAX_FRAME_BYTES = limits.MAX_FAST_FRAME_BYTES
    session: SessionId
    epoch: Epoch
    position: Position
    tensor: TensorInfo
    sample: bool
    guesses: GuessCount = 0
    n_guesses: GuessCount = 0
    waits: bool = False


class Activation(Message, tag=43):
    """The residual stream after layer `layer` for positions [position, position + n), to the next stage.

    `slice` and `experts` are for partial sums of it, which nobody sends this way: whole and empty.
    """

    MAX_FRAME_BYTES = limits.MAX_FAST_FRAME_BYTES
    session: SessionId
    epoch: Epoch
    position: Position
    layer: LayerIndex
    tensor: TensorInfo
    sample: bool
    ids: Annotated[
        tuple[TokenId, ...], Meta(max_length=limits.MAX_BATCH_TOKENS)
    ]  # of these positions, for the penalties
    slice: Slice = WHOLE
    experts: Experts = ()
    n_guesses: GuessCount = 0  # so many last ids are guesses: the next positions may begin behind any that came
    asks: bool = False  # for what the model's own block would say after the token that is sampled


class Token(Message, tag=44):
    """The last stage sampled `token` for `position`: to the first stage (the next step) and to the entry node.

    Where guesses came, `more` are the tokens after it: the last one is no guess, or the last guess was right.
    """

    session: SessionId
    epoch: Epoch
    position: Position
    token: TokenId
    told: Told = ()  # as n_told asked
    more: Annotated[tuple[TokenId, ...], Meta(max_length=limits.MAX_GUESSES)] = ()
    more_told: Annotated[tuple[Told, ...], Meta(max_length=limits.MAX_GUESSES)] = ()  # of each
    n_guesses: GuessCount = 0  # that were computed
    forced: Annotated[tuple[TokenId, ...], Meta(max_length=limits.MAX_GUESSES)] = ()  # what the form asks for next
    own: Annotated[tuple[TokenId, ...], Meta(max_length=limits.MAX_GUESSES)] = ()  # what the model's own block says
    own_us: Count = 0  # microseconds that saying it took


class SessionClose(Message, tag=45):
    """The entry node is done (or `keep`: KV may stay for the next turn)."""

    session: SessionId
    epoch: Epoch
    keep: bool


SessionFault = Literal["unknown", "failed"]


class SessionError(Message, tag=46):
    """A stage cannot go on with this session; the entry node decides what to do."""

    session: SessionId
    epoch: Epoch
    fault: SessionFault
    text: Line
    by_input: bool = False  # what came from the stage before is no result: it may be that one that failed
    guilty: PeerId | None = None  # another member of the sender's stage, which was missing in the step


class Prefilled(Message, tag=47):
    """The last stage to the entry node: all positions before `position` are done; the next batch may come."""

    session: SessionId
    epoch: Epoch
    position: Position


class Vector(Message, tag=54):
    """The last stage to the entry node, in place of a token for `position`: the hidden state behind the last norm."""

    MAX_FRAME_BYTES = limits.MAX_FAST_FRAME_BYTES
    session: SessionId
    epoch: Epoch
    position: Position
    tensor: TensorInfo


class SessionProbe(Message, tag=48):
    """The entry node asks every stage of a session that makes no progress."""

    session: SessionId
    epoch: Epoch


class SessionProbed(Message, tag=49):
    """How far the stage is: positions before `position` have come in; `busy` while some of them are not computed."""

    session: SessionId
    epoch: Epoch
    position: Position
    busy: bool


class StageStep(Message, tag=52):
    """The leader of a stage to its other members: compute these rows together with me.

    The raw frame has the residual stream of all rows, one after the other; in the first stage it is empty, for there
    the ids say all. Members take part in steps of one stage in the order of their sequence, which only grows.
    """

    MAX_FRAME_BYTES = limits.MAX_FAST_FRAME_BYTES
    author: PeerId
    epoch: Epoch  # of the author's placement
    first: LayerIndex  # of the stage
    sequence: Epoch
    rows: Annotated[tuple[StageRows, ...], Meta(min_length=1, max_length=limits.MAX_STEP_SESSIONS)]
    tensor: TensorInfo


class Rehearsal(Message, tag=53):
    """Exchange sums with me, as two members of a stage do, and see how long it takes.

    The sender is member 0, and listens at `port`; keys come from the secret. What is exchanged, PROTOCOL.md says.
    """

    port: Port
    secret: Annotated[bytes, Meta(min_length=STAGE_SECRET_BYTES, max_length=STAGE_SECRET_BYTES)]


# --- seeing


class StatusRequest(Message, tag=50):
    """Asks for a StatusReply."""

    request: Count


class StatusReply(Message, tag=51):
    """What `swarm status` shows about the sender."""

    request: Count
    name: Name
    software: Software
    uptime_s: Count
    state: NodeState
    capabilities: Capabilities | None
    shards: Annotated[tuple[Shard, ...], Meta(max_length=limits.MAX_MODELS)]
    links: Annotated[tuple[LinkMeasurement, ...], Meta(max_length=limits.MAX_PEERS)]
    models: Annotated[tuple[ModelHolding, ...], Meta(max_length=limits.MAX_MODELS)]
    sessions: Annotated[tuple[SessionState, ...], Meta(max_length=limits.MAX_SESSIONS_SHOWN)]
    shard_models: Annotated[tuple[ModelId, ...], Meta(max_length=limits.MAX_MODELS)] = ()  # of `shards`, in their order
    temperature_c: Celsius = 0.0  # of its processor; 0 where the machine does not tell


# --- bringing a model together


class PullBegin(Message, tag=60):
    """Help to bring a model from the hub. The raw frame is its plan (store/pull_plan.py), whose hash is `pull`."""

    LANE = Lane.BULK
    MAX_FRAME_BYTES = limits.MAX_BULK_FRAME_BYTES
    pull: ModelId


class PullShare(Message, tag=61):
    """Bring these units of the plan: their numbers in the raw frame, u32 little-endian."""

    LANE = Lane.BULK
    MAX_FRAME_BYTES = limits.MAX_BULK_FRAME_BYTES
    pull: ModelId


class PullReport(Message, tag=62):
    """How far the sender is. The raw frame has the hash of each further chunk: u32 number, 32 bytes."""

    LANE = Lane.BULK
    MAX_FRAME_BYTES = limits.MAX_BULK_FRAME_BYTES
    pull: ModelId
    done_bytes: ByteCount
    error: Line  # why it cannot bring more; empty while it can


class PullDone(Message, tag=63):
    """All hashes are known: what was brought are chunks of this model, whose manifest the sender has."""

    pull: ModelId
    model: ModelId


MESSAGES: tuple[type[Message], ...] = (
    Hello,
    Welcome,
    Refuse,
    Heartbeat,
    Goodbye,
    Gossip,
    Measured,
    Rekey,
    RekeyDone,
    LinkProbe,
    LinkProbed,
    PlacementOffer,
    PlacementReply,
    PlacementCommit,
    ShardReady,
    Catalog,
    ManifestRequest,
    ManifestReply,
    HaveRequest,
    Have,
    ChunkRequest,
    ChunkReply,
    ChunkCancel,
    RemoveModel,
    SessionOpen,
    SessionReply,
    Tokens,
    Activation,
    Token,
    SessionClose,
    SessionError,
    Prefilled,
    SessionProbe,
    SessionProbed,
    StatusRequest,
    StatusReply,
    StageStep,
    Rehearsal,
    Vector,
    PullBegin,
    PullShare,
    PullReport,
    PullDone,
)


def number_of(kind: type[Message]) -> int:
    """Return a type's number on the wire."""
    number = kind.__struct_config__.tag
    assert isinstance(number, int)
    return number


BY_NUMBER: dict[int, type[Message]] = {number_of(kind): kind for kind in MESSAGES}
