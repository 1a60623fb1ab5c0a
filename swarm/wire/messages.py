"""Every message, its number on the wire, the lane it takes and the raw frames that follow it.

PROTOCOL.md says what each is for and who answers what. Numbers are never used twice. New fields go to the end, with a
default; new messages get new numbers: both are a new minor version.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from typing import Annotated, ClassVar

from swarm import limits
from swarm.value import value
from swarm.wire.ids import BootId, ChunkId, ModelId, PeerId, SessionId
from swarm.wire.records import (
    WHOLE,
    Address,
    ByteCount,
    Capabilities,
    Count,
    Epoch,
    Experts,
    Line,
    LinkMeasurement,
    Micros,
    ModelHolding,
    Name,
    NodeState,
    PeerAddresses,
    Placement,
    Position,
    Proof,
    Sampling,
    SessionState,
    Shard,
    Slice,
    TensorInfo,
    TokenId,
    Version,
)
from swarm.wire.schema import Int, Many, OneOf, Raw, Text

PROTOCOL = Version(1, 0)


class Lane(Enum):
    """Two links to each peer, so that a chunk never delays an activation or a heartbeat."""

    FAST = "fast"
    BULK = "bulk"
    __hash__ = object.__hash__  # Enum's own is Python, and lanes are looked up for every message


LaneName = Annotated[str, OneOf(("fast", "bulk"))]


@value
class Message:
    """Base of all messages."""

    TYPE: ClassVar[int] = 0
    LANE: ClassVar[Lane] = Lane.FAST
    MAX_FRAME_BYTES: ClassVar[int] = 0  # 0: no raw frame follows; otherwise exactly one does


# --- links


@value
class Hello(Message):
    """The first message of the one that called."""

    TYPE = 1
    version: Version
    peer: PeerId
    boot: BootId
    name: Name
    lane: LaneName
    fingerprint: Annotated[bytes, Raw(8, 8)]
    proof: Proof
    port: Annotated[int, Int(0, 65535)]  # where the caller listens
    bulk_port: Annotated[int, Int(0, 65535)]


@value
class Welcome(Message):
    """The answer to Hello: the link is up."""

    TYPE = 2
    version: Version
    peer: PeerId
    boot: BootId
    name: Name
    lane: LaneName
    fingerprint: Annotated[bytes, Raw(8, 8)]
    proof: Proof
    port: Annotated[int, Int(0, 65535)]
    bulk_port: Annotated[int, Int(0, 65535)]


REFUSALS = ("version", "proof", "clone", "hello", "garbage", "full", "forgotten", "self")


@value
class Refuse(Message):
    """The link is not, or no longer, accepted; the caller hangs up and tries again after retry_s."""

    TYPE = 3
    reason: Annotated[str, OneOf(REFUSALS)]
    text: Line
    version: Version
    retry_s: Count


@value
class Heartbeat(Message):
    """Every HEARTBEAT_INTERVAL_S on every fast link; echo and held give the round trip."""

    TYPE = 4
    clock_us: Micros  # the sender's, monotonic
    echo_us: Micros  # clock_us of the last heartbeat heard from you; 0 for none
    held_us: Micros  # how long ago that came
    wall_ms: Micros  # the sender's time of day, for `swarm doctor`
    state: NodeState


@value
class Goodbye(Message):
    """The sender leaves on purpose."""

    TYPE = 5
    text: Line


@value
class Gossip(Message):
    """Devices that the sender can reach, and where."""

    TYPE = 6
    peers: Annotated[tuple[PeerAddresses, ...], Many(limits.MAX_PEERS)]


@value
class Measured(Message):
    """What the sender measured about itself and its links."""

    TYPE = 7
    capabilities: Capabilities
    links: Annotated[tuple[LinkMeasurement, ...], Many(limits.MAX_PEERS)]


@value
class Rekey(Message):
    """The swarm gets a new key, from a member to a member whose device key was proven on this very link."""

    TYPE = 8
    generation: Count
    swarm_key: Annotated[bytes, Raw(32, 32)] = field(repr=False)  # never in a log


@value
class RekeyDone(Message):
    """The new key is on the sender's disk."""

    TYPE = 9
    generation: Count


@value
class LinkProbe(Message):
    """A frame to measure throughput with; the receiver answers LinkProbed when all bytes are there."""

    TYPE = 10
    LANE = Lane.BULK
    MAX_FRAME_BYTES = limits.MAX_BULK_FRAME_BYTES
    sequence: Count


@value
class LinkProbed(Message):
    """The frame of that probe has come."""

    TYPE = 11
    sequence: Count
    n_bytes: ByteCount


# --- placement


@value
class PlacementOffer(Message):
    """The author asks the receiver to hold its shard of this placement."""

    TYPE = 20
    placement: Placement


@value
class PlacementReply(Message):
    """The receiver takes its shard of that epoch, or says why not (also later, when it cannot load it)."""

    TYPE = 21
    model: ModelId
    epoch: Epoch
    accepted: bool
    text: Line
    missing_bytes: ByteCount = 0  # of memory, when that is why


@value
class PlacementCommit(Message):
    """All took it: load it, and let go of older placements of this author and model. Goes to all devices of both."""

    TYPE = 22
    placement: Placement


@value
class ShardReady(Message):
    """The sender's shard is in memory."""

    TYPE = 23
    model: ModelId
    epoch: Epoch
    shard: Shard


# --- the store


@value
class Catalog(Message):
    """Models that the sender has chunks of."""

    TYPE = 30
    models: Annotated[tuple[ModelHolding, ...], Many(limits.MAX_MODELS)]


@value
class ManifestRequest(Message):
    """Asks for the bytes of a manifest from `offset`."""

    TYPE = 31
    model: ModelId
    offset: ByteCount


@value
class ManifestReply(Message):
    """A piece of a manifest in the raw frame; total_bytes 0 means: not here."""

    TYPE = 32
    LANE = Lane.BULK
    MAX_FRAME_BYTES = limits.MAX_BULK_FRAME_BYTES
    model: ModelId
    offset: ByteCount
    total_bytes: ByteCount


@value
class HaveRequest(Message):
    """Asks which chunks of a model the receiver has, from chunk number `start`."""

    TYPE = 33
    model: ModelId
    start: Count


@value
class Have(Message):
    """One bit a chunk in the raw frame, least significant first, in the order of the manifest, from `start`."""

    TYPE = 34
    MAX_FRAME_BYTES = 128 * 1024
    model: ModelId
    start: Count
    n_chunks: Count


@value
class ChunkRequest(Message):
    """Asks for bytes [offset, offset + n_bytes) of a chunk."""

    TYPE = 35
    request: Count  # chosen by the asker; comes back in the reply
    chunk: ChunkId
    offset: ByteCount
    n_bytes: Annotated[int, Int(1, limits.MAX_BULK_FRAME_BYTES)]


@value
class ChunkReply(Message):
    """Those bytes in the raw frame; an empty frame and found=False: not here (any more)."""

    TYPE = 36
    LANE = Lane.BULK
    MAX_FRAME_BYTES = limits.MAX_BULK_FRAME_BYTES
    request: Count
    chunk: ChunkId
    offset: ByteCount
    found: bool


@value
class ChunkCancel(Message):
    """The asker does not need that request any more."""

    TYPE = 37
    request: Count


# --- answering


@value
class SessionOpen(Message):
    """The entry node opens a session on every stage of its placement, or opens it again.

    `epoch` grows with every opening of the session; from then on messages of older epochs are stale. KV of the first
    `keep` positions stays where the stage has it from an earlier opening; all other KV is forgotten.
    """

    TYPE = 40
    session: SessionId
    model: ModelId
    epoch: Epoch
    placement: Epoch  # of the entry node's placement whose shards are the stages
    entry: PeerId
    context: Position  # tokens of KV to keep room for; nothing is sampled for this position or a later one
    keep: Position
    sampling: Sampling
    end_ids: Annotated[tuple[TokenId, ...], Many(limits.MAX_END_IDS)]


@value
class SessionReply(Message):
    """The stage opened the session, or says why not."""

    TYPE = 41
    session: SessionId
    epoch: Epoch
    accepted: bool
    text: Line
    have: Position = 0  # positions of KV that were kept; the first message of data starts there
    missing_bytes: ByteCount = 0  # of memory, when that is why


@value
class Tokens(Message):
    """Token ids (i32) for positions [position, position + n): the entry node feeds the first stage, or replays.

    A stage takes every position of an epoch once and in order. `sample` asks the last stage to sample after the last.
    """

    TYPE = 42
    MAX_FRAME_BYTES = limits.MAX_FAST_FRAME_BYTES
    session: SessionId
    epoch: Epoch
    position: Position
    tensor: TensorInfo
    sample: bool


@value
class Activation(Message):
    """The residual stream after layer `layer` for positions [position, position + n), to the next stage.

    `slice` and `experts` say which part of the sum this is when a stage is several devices; whole and empty otherwise.
    """

    TYPE = 43
    MAX_FRAME_BYTES = limits.MAX_FAST_FRAME_BYTES
    session: SessionId
    epoch: Epoch
    position: Position
    layer: Annotated[int, Int(0, limits.MAX_LAYERS)]
    tensor: TensorInfo
    sample: bool
    ids: Annotated[tuple[TokenId, ...], Many(limits.MAX_CHUNK_TOKENS)]  # of these positions, for the penalties
    slice: Slice = WHOLE
    experts: Experts = ()


@value
class Token(Message):
    """The last stage sampled `token` for `position`: to the first stage (the next step) and to the entry node."""

    TYPE = 44
    session: SessionId
    epoch: Epoch
    position: Position
    token: TokenId
    compute_us: Micros = 0  # spent in all stages for this step, for the tok/s line


@value
class SessionClose(Message):
    """The entry node is done (or `keep`: KV may stay for the next turn)."""

    TYPE = 45
    session: SessionId
    epoch: Epoch
    keep: bool


SESSION_FAULTS = ("unknown", "failed")


@value
class SessionError(Message):
    """A stage cannot go on with this session; the entry node decides what to do."""

    TYPE = 46
    session: SessionId
    epoch: Epoch
    fault: Annotated[str, OneOf(SESSION_FAULTS)]
    text: Line


@value
class Prefilled(Message):
    """The last stage to the entry node: all positions before `position` are done; the next chunk may come."""

    TYPE = 47
    session: SessionId
    epoch: Epoch
    position: Position


@value
class SessionProbe(Message):
    """The entry node asks every stage of a session that makes no progress."""

    TYPE = 48
    session: SessionId
    epoch: Epoch


@value
class SessionProbed(Message):
    """How far the stage is: positions before `position` have come in; `busy` while some of them are not computed."""

    TYPE = 49
    session: SessionId
    epoch: Epoch
    position: Position
    busy: bool


# --- seeing


@value
class StatusRequest(Message):
    """Asks for a StatusReply."""

    TYPE = 50
    request: Count


@value
class StatusReply(Message):
    """What `swarm status` shows about the sender."""

    TYPE = 51
    request: Count
    name: Name
    software: Annotated[str, Text(32)]
    uptime_s: Count
    state: NodeState
    capabilities: Capabilities | None
    shards: Annotated[tuple[Shard, ...], Many(limits.MAX_MODELS)]
    links: Annotated[tuple[LinkMeasurement, ...], Many(limits.MAX_PEERS)]
    models: Annotated[tuple[ModelHolding, ...], Many(limits.MAX_MODELS)]
    sessions: Annotated[tuple[SessionState, ...], Many(limits.MAX_SESSIONS_SHOWN)]
    addresses: Annotated[tuple[Address, ...], Many(limits.MAX_ADDRESSES)]


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
)
BY_TYPE: dict[int, type[Message]] = {kind.TYPE: kind for kind in MESSAGES}
