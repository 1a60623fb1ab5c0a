"""The nouns that travel inside messages. Every field says what is legal; schema.py checks it in both directions.

Units are in the names. All records are values: compare, hash and replace them freely.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from swarm import limits
from swarm.wire.ids import BootId, ChunkId, ModelId, PeerId, SessionId
from swarm.wire.schema import Grammar, Host, Line, Machine, Name, Record

__all__ = [
    "Address",
    "BootId",
    "Capabilities",
    "ChunkId",
    "ExpertRange",
    "KvFormat",
    "LinkMeasurement",
    "ModelId",
    "NodeState",
    "PeerAddresses",
    "PeerId",
    "Placement",
    "Sampling",
    "SessionId",
    "Shard",
    "Slice",
    "StageRows",
    "TensorInfo",
    "TokenBias",
    "TokenChance",
    "Version",
]

KEY_BYTES = 32  # of a device key, a swarm key and a MAC
NONCE_BYTES = 16
FINGERPRINT_BYTES = 8
STAGE_SECRET_BYTES = 32  # from which a stage of several devices derives its keys

Count = Annotated[int, Meta(ge=0, le=limits.MAX_COUNT)]
ByteCount = Annotated[int, Meta(ge=0, le=limits.MAX_BYTE_COUNT)]
Rate = Annotated[float, Meta(ge=0.0, le=limits.MAX_RATE)]
Seconds = Annotated[float, Meta(ge=0.0, le=limits.MAX_SECONDS)]
Celsius = Annotated[float, Meta(ge=0.0, le=limits.MAX_CELSIUS)]
BeatSeconds = Annotated[float, Meta(ge=limits.HEARTBEAT_INTERVAL_S, le=limits.MAX_HEARTBEAT_S)]
Micros = Annotated[int, Meta(ge=0, le=limits.MAX_MICROS)]
Epoch = Annotated[int, Meta(ge=0, le=limits.MAX_EPOCH)]
Position = Annotated[int, Meta(ge=0, le=limits.MAX_POSITION)]
TokenId = Annotated[int, Meta(ge=0, le=limits.MAX_TOKEN_ID)]
KvFormat = Literal["f16", "q8_0"]  # how keys and values are kept
Key = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Fingerprint = Annotated[bytes, Meta(min_length=FINGERPRINT_BYTES, max_length=FINGERPRINT_BYTES)]
StageSecret = Annotated[bytes, Meta(max_length=STAGE_SECRET_BYTES)]  # empty for those who do not need it
Owner = Annotated[bytes, Meta(max_length=limits.OWNER_BYTES)]  # of a conversation, known to its entry node alone
Mark = Annotated[bytes, Meta(min_length=limits.MARK_BYTES, max_length=limits.MARK_BYTES)]
Port = Annotated[int, Meta(ge=0, le=limits.MAX_PORT)]  # 0: none
LayerIndex = Annotated[int, Meta(ge=0, le=limits.MAX_LAYERS)]
GuessCount = Annotated[int, Meta(ge=0, le=limits.MAX_GUESSES)]


class Version(Record):
    """Of the protocol. Different majors do not talk; a newer minor only adds."""

    major: Annotated[int, Meta(ge=0, le=limits.MAX_VERSION)]
    minor: Annotated[int, Meta(ge=0, le=limits.MAX_VERSION)]

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class Address(Record, order=True):
    """Where a device listens: an IPv4 or IPv6 address (with %zone where link-local) or a host name, and a TCP port."""

    host: Host
    port: Annotated[int, Meta(ge=1, le=limits.MAX_PORT)]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class PeerAddresses(Record):
    """Gossip: where a device was reached, and how long ago it was last heard."""

    peer: PeerId
    name: Name
    addresses: Annotated[tuple[Address, ...], Meta(max_length=limits.MAX_ADDRESSES)]
    heard_s: Seconds


class Capabilities(Record):
    """What a device measured about itself, once."""

    machine: Machine  # x86_64, aarch64
    kernels: Machine  # the instruction set in use: avx2, dotprod, ...
    threads: Annotated[int, Meta(ge=1, le=limits.MAX_THREADS)]
    memory_bytes: ByteCount  # that Swarm may use here, weights and KV together
    disk_bytes: ByteCount  # that the chunk store may use
    read_bytes_per_s: Rate  # weights through the decode kernel, all threads
    prefill_ops_per_s: Rate  # multiply-adds through the prefill kernel, all threads
    disk_bytes_per_s: Rate = 0.0  # sequential read of the store
    layer_s: Seconds = 0.0  # fixed cost of a layer: calls and barriers; 0 when not measured
    step_s: Seconds = 0.0  # fixed cost of a step; 0 when not measured
    rests: Line = ""  # why it would rather not take part just now: heat, battery, its user; the rates count all that
    condition: Line = ""  # what slows it down, for people
    slices: bool = False  # it can compute layers together with other devices


class LinkMeasurement(Record):
    """One direction between the sender and a peer."""

    peer: PeerId
    rtt_s: Seconds  # of a small message, the best of the last ones
    bytes_per_s: Rate  # of bulk; 0 when not measured yet
    exchange_s: Seconds = 0.0  # that an exchange of partial sums takes beside its bytes; 0 when not rehearsed yet
    exchange_bytes_per_s: Rate = 0.0  # and how fast these pass


class Slice(Record):
    """A share of every layer of a shard, as ranges [start, end), in the order of `models.slices.SliceBounds`.

    All of them 0: whole layers. Of a slice, both ends are 0 where the model has no such thing.
    """

    head_start: Count = 0  # query heads
    head_end: Count = 0
    ffn_start: Count = 0  # columns of a dense FFN
    ffn_end: Count = 0
    expert_start: Count = 0  # columns of every expert
    expert_end: Count = 0
    shared_start: Count = 0  # columns of the shared expert
    shared_end: Count = 0
    vocab_start: Count = 0  # rows of the LM head, of the last stage
    vocab_end: Count = 0

    @property
    def whole(self) -> bool:
        """True when this is all of each layer."""
        return self == WHOLE

    @property
    def bounds(self) -> tuple[int, ...]:
        """As a `Part` has it: the ten counts, or none where it is whole."""
        return () if self.whole else tuple(getattr(self, name) for name in self.__struct_fields__)


WHOLE = Slice()


class ExpertRange(Record):
    """Experts [start, end) of the layers [layer_start, layer_end) that a device holds."""

    layer_start: LayerIndex
    layer_end: LayerIndex
    start: Count
    end: Count


Experts = Annotated[tuple[ExpertRange, ...], Meta(max_length=limits.MAX_EXPERT_RANGES)]


class Shard(Record):
    """What one device holds of a model. Shards with the same layers and different slices are one stage."""

    peer: PeerId
    layer_start: LayerIndex
    layer_end: LayerIndex
    embed: bool  # holds the embedding: takes token ids
    head: bool  # holds the last norm and the head: samples
    memory_bytes: ByteCount = 0  # weights and KV that the planner counted
    slice: Slice = WHOLE
    experts: Experts = ()  # empty: all of them


class Placement(Record):
    """All shards of one model, in the order of the pipeline, with its epoch. `author` planned it."""

    model: ModelId
    epoch: Epoch
    author: PeerId
    context: Position  # tokens of KV that each shard reserves in all
    kv: KvFormat
    shards: Annotated[tuple[Shard, ...], Meta(max_length=limits.MAX_SHARDS)]
    mtp: bool = False  # the last stage holds the block that predicts further tokens, too


class StageRows(Record):
    """Rows of a step of a stage that follow each other in one session, at [position, position + the number of ids)."""

    session: SessionId
    epoch: Epoch
    position: Position
    ids: Annotated[tuple[TokenId, ...], Meta(min_length=1, max_length=limits.MAX_BATCH_TOKENS)]
    sample: bool
    n_guesses: GuessCount = 0  # so many last ids are guesses


class TokenBias(Record):
    """What is added to the logit of a token."""

    token: TokenId
    value: Annotated[float, Meta(ge=-limits.MAX_LOGIT_BIAS, le=limits.MAX_LOGIT_BIAS)]


class TokenChance(Record):
    """How likely the model held a token to be."""

    token: TokenId
    logprob: Annotated[float, Meta(ge=limits.MIN_LOGPROB, le=1e-6)]


class Sampling(Record):
    """How tokens are chosen: with the seed, the position and the ids before, a pure function of the logits."""

    temperature: Annotated[float, Meta(ge=0.0, le=limits.MAX_TEMPERATURE)] = 0.0
    top_k: Count = 0
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    repetition_penalty: Annotated[float, Meta(ge=0.0, le=limits.MAX_PENALTY)] = 1.0
    frequency_penalty: Annotated[float, Meta(ge=-limits.MAX_PENALTY, le=limits.MAX_PENALTY)] = 0.0
    presence_penalty: Annotated[float, Meta(ge=-limits.MAX_PENALTY, le=limits.MAX_PENALTY)] = 0.0
    repeat_last_n: Annotated[int, Meta(ge=-1, le=limits.MAX_POSITION)] = -1  # that the penalties see; -1: all
    seed: Annotated[int, Meta(ge=0)] = 0  # msgpack ends at 2**64 - 1
    logit_bias: Annotated[tuple[TokenBias, ...], Meta(max_length=limits.MAX_LOGIT_BIASES)] = ()
    n_told: Annotated[int, Meta(ge=0, le=limits.MAX_TOLD_TOKENS)] = 0  # log probabilities that come with a token
    grammar: Grammar = ""  # llguidance's, as JSON in ASCII: what the ids from `answer_at` on must spell; "": anything
    answer_at: Position = 0  # where the answer begins
    vector: bool = False  # no token is wanted but the hidden state after the last id, of which programs make embeddings


class TensorInfo(Record):
    """The raw frame that follows: little-endian, row-major."""

    dtype: Literal["f32", "f16", "i32"]
    shape: Annotated[tuple[Count, ...], Meta(max_length=limits.MAX_TENSOR_DIMS)]

    @property
    def n_bytes(self) -> int:
        """Bytes that the frame must have."""
        size = 2 if self.dtype == "f16" else 4
        for extent in self.shape:
            size *= extent
        return size


class NodeState(Record):
    """What a heartbeat says about its sender."""

    epoch: Epoch = 0  # of the newest placement it knows
    busy: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0  # share of the last second spent computing
    memory_free_bytes: ByteCount = 0  # that Swarm may still take
    n_sessions: Count = 0  # with KV here
    tokens_per_s: Rate = 0.0  # that passed through here in the last seconds
    shard_ready: bool = False  # its shard of that placement is loaded
    fetching: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0  # share of that shard's bytes that are here
    beat_s: BeatSeconds = limits.HEARTBEAT_INTERVAL_S  # until the next heartbeat: silence is counted in these
    active: bool = False  # it has something to do itself: everybody beats fast then
    quick: bool = False  # others wait for it in steps: the next one comes in QUICK_HEARTBEAT_S


class ModelHolding(Record):
    """A model that a device has chunks of."""

    model: ModelId
    name: Name
    n_chunks: Count
    n_have: Count
    total_bytes: ByteCount
    file: Name = ""  # what the sender's file of it is called, as a word (store/naming.py); empty where it has none


class SessionState(Record):
    """A session with KV on the sender."""

    session: SessionId
    position: Position
    kv_bytes: ByteCount


class Proof(Record):
    """Membership and identity in one: MACs that PROTOCOL.md describes."""

    device_key: Key
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    member_mac: Key
    device_mac: Annotated[bytes, Meta(max_length=KEY_BYTES)]
