"""What a placement costs: bytes, seconds per token, seconds to the first token. Pure arithmetic.

The model of one decode step of a pipeline (one stream, batch 1):

    token_s  = sum over stages (step_s) + sum over hops of the ring (hop_s)
    step_s   = bytes read / read rate + n_layers * layer_s + STEP_S
    bytes    = active weights of the layers + KV of the context + head (last stage)
    hop_s    = rtt / 2 + hidden * 4 / link rate + MESSAGE_S

and of a prefill in batches of n tokens, where the stages work on different batches at the same time:

    batch_s  = max(bytes read / read rate, MACs * n / MAC rate) + n_layers * layer_s + STEP_S
    prefill  = sum over stages (batch_s) + hops + (n_batches - 1) * slowest stage or hop

A batch of n tokens reads the share 1 - (1 - k/E)^n of the routed experts (n = 1 gives k/E, as a decode step does).

Where only a share of the experts is in memory, the misses of a layer are read from disk while its hits are computed:

    step_s  += sum over layers (max(missed bytes / disk rate - expert bytes that were found / read rate * p, 0))
    p        = 1 - hit rate ^ experts used: how often a layer misses any, so that there is something to compute beside

A decode step finds as many as the model's curve says of the share (expert_hits.py); a prefill batch finds the share.

A stage of several devices computes every layer together, a slice each. Everybody waits twice a layer for the busiest:

    step_s = busiest in attention + busiest in the dense FFN + busiest in experts + what every slice has
             + (2 * n_layers + 1) * exchange_s + n_layers * layer_s + STEP_S
    exchange_s = rtt / 2 + (N - 1) * (hidden * PAYLOAD_BITS / 8 + FRAME_BYTES) / link rate + CPU

or, where all of them rehearsed it, what that showed:

    exchange_s = wait + (N - 1) * (hidden * PAYLOAD_BITS / 8 + FRAME_BYTES) / rate + CPU of the N - 2 others

Several sessions go round in as many groups as there are stages, and the rows of a group share each step:

    round_s = max(sum over stages (step_s of a group) + hops, groups * slowest stage)

The last exchange of a token brings the leader what each device thinks of it. For batches each device adds up the sums
of a part of the tokens and passes them round: two latencies, and 2 (N - 1) / N payloads. How long sums are, and the CPU
time of an exchange, were measured on one machine; how much slower others are (`Device.exchange`) is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from swarm import limits
from swarm.cluster.cuts import EXPERT, FFN, HEADS, SHARED, VOCAB, Bounds, Cuts
from swarm.cluster.expert_hits import CURVE, Curve, expected_hit_rate, own_curve
from swarm.cluster.pipeline import Stage, is_cut
from swarm.parts import EMBED, MTP, Part, parts_of
from swarm.wire.ids import PeerId

# On x86-64 with Python 3.11 and pyzmq with CURVE over loopback; slower devices say so in their own `step_s`.
MESSAGE_S = 250e-6  # encode, encrypt, send, receive, decode, hand over to the compute worker: one message
STEP_S = 150e-6  # Python around the native calls of one step of one stage
LAYER_S = 25e-6  # two native calls and their barriers; a device measures its own
FLOAT_BYTES = 4  # activations travel as float32, so that N nodes answer bit for bit what one node does
GUESSED_RTT_S = 2e-3  # of a link nobody has measured yet: between wired (0.3 ms) and Wi-Fi (3 ms)
GUESSED_LINK_BYTES_PER_S = 12.5e6  # 100 Mbit/s
PAYLOAD_BITS = 12.5  # of a value of a half's sum, as it travels
FRAME_BYTES = 106  # around each payload: headers of the frame and of TCP
EXCHANGE_S, EXCHANGE_EACH_S = 16e-6, 6e-6  # CPU of an exchange, and for each other device
EXCHANGE_ROW_S = 6e-6  # for each token of a batch: its sums are coded, and those of others added
MAX_EXCHANGE = 8.0  # times that the slowest device takes
SCATTER_TOKENS = 16  # batches of so many are added up by parts
WORTH_LOADING = 0.9  # weights of which less than this share of the wanted bytes is in memory are loaded anew
GUESSED_DISK_BYTES_PER_S = 80e6  # of a device that has not measured its own: an SD card


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One transformer layer: what holding it, reading it and computing it takes."""

    dense_bytes: int  # read at every step: attention, norms, router, shared expert, dense FFN
    macs: int  # multiply-adds per token
    kv_bytes: int  # per token of context, as f16 unless the model's cost is of another format (`kept_as`)
    expert_bytes: int = 0  # all routed experts
    expert_share: float = 0.0  # experts used per token / experts
    context_macs: int = 0  # attention: multiply-adds per token and position of context
    kv_q8_0_bytes: int = 0  # as kv_bytes, kept as q8_0; 0 where that cannot be
    resident_share: float = 1.0  # of the experts that is in memory; the others are read from disk when they are needed
    query_bytes: int = 0  # of dense_bytes, those that are cut by query heads
    key_bytes: int = 0  # and by the key heads that these read
    ffn_bytes: int = 0  # by columns of the dense FFN
    shared_bytes: int = 0  # and of the shared expert; what is left every slice has whole
    curve: Curve = CURVE  # how often an expert is found in memory
    n_used: int = 0  # experts that a token uses; 0: nobody says

    @property
    def weight_bytes(self) -> int:
        return self.dense_bytes + self.expert_bytes

    @property
    def resident_bytes(self) -> int:
        """Those that are held in memory."""
        return self.dense_bytes + int(self.expert_bytes * self.resident_share)

    @property
    def hit_rate(self) -> float:
        """Of the experts that a decode step uses, the share that is found in memory."""
        return expected_hit_rate(self.resident_share, self.curve)

    def found_bytes(self, n_tokens: int = 1) -> float:
        """Of the expert bytes that a step reads, those that are in memory."""
        hits = self.hit_rate if n_tokens == 1 else self.resident_share
        return hits * (self.read_bytes(n_tokens) - self.dense_bytes)

    def missed_bytes(self, n_tokens: int = 1) -> float:
        """And those that come from disk."""
        return self.read_bytes(n_tokens) - self.dense_bytes - self.found_bytes(n_tokens)

    def beside_bytes(self, n_tokens: int = 1) -> float:
        """Of those in memory, the ones that are computed while others are read: where a token misses any."""
        misses = 1.0 - self.hit_rate**self.n_used if n_tokens == 1 and self.n_used else 1.0
        return misses * self.found_bytes(n_tokens)

    def late_s(self, device: Device, n_tokens: int = 1) -> float:
        """Seconds that a step waits for its disk."""
        read_s = self.missed_bytes(n_tokens) / device.disk_bytes_per_s
        return max(read_s - self.beside_bytes(n_tokens) / device.read_bytes_per_s, 0.0)

    @property
    def replicated_bytes(self) -> int:
        """Those that every slice has: norms, router."""
        return self.dense_bytes - self.query_bytes - self.key_bytes - self.ffn_bytes - self.shared_bytes

    def sliced(self, bounds: Bounds, cuts: Cuts) -> LayerCost:
        """What a slice of it takes."""
        heads, keys = cuts.share(bounds, HEADS), cuts.key_share(bounds)
        query, key = int(self.query_bytes * heads), int(self.key_bytes * keys)
        ffn = int(self.ffn_bytes * cuts.share(bounds, FFN))
        shared = int(self.shared_bytes * cuts.share(bounds, SHARED))
        dense = self.replicated_bytes + query + key + ffn + shared
        experts = int(self.expert_bytes * cuts.share(bounds, EXPERT))
        read = dense + experts * self.expert_share
        return replace(
            self,
            dense_bytes=dense,
            macs=int(self.macs * read / max(self.read_bytes(), 1)),
            kv_bytes=int(self.kv_bytes * keys),
            expert_bytes=experts,
            context_macs=int(self.context_macs * heads),
            kv_q8_0_bytes=int(self.kv_q8_0_bytes * keys),
            query_bytes=query,
            key_bytes=key,
            ffn_bytes=ffn,
            shared_bytes=shared,
        )

    def read_bytes(self, n_tokens: int = 1) -> float:
        """Weight bytes that a step over `n_tokens` tokens reads."""
        return self.dense_bytes + self.expert_bytes * (1.0 - (1.0 - self.expert_share) ** n_tokens)


@dataclass(frozen=True, slots=True)
class MtpCost:
    """The block that predicts further tokens: what a last stage takes for it beside its own."""

    weight_bytes: int
    kv_bytes: int  # per token of context, as of a layer
    kv_q8_0_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelCost:
    """A model as the planner sees it."""

    name: str
    layers: tuple[LayerCost, ...]
    embed_bytes: int  # in memory, of the embedding
    lm_head_bytes: int  # resident on the last stage; a tied head is the embedding, held there too
    hidden: int
    lm_head_macs: int
    vocabulary: int = limits.MAX_TOKEN_ID + 1  # token ids are below this
    cuts: Cuts | None = None  # what it can be cut along; None: it cannot
    mtp: MtpCost | None = None  # None: it has no such block
    beside_head_bytes: int = 0  # that a plan is to leave free where the head is
    embed_stored_bytes: int = 0  # of the embedding on disk, where its rows are read from there; 0: it is in memory

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def weight_bytes(self) -> int:
        return self.embed_bytes + self.lm_head_bytes + sum(layer.weight_bytes for layer in self.layers)

    @property
    def all_stored_bytes(self) -> int:
        """Of all parts, on disk."""
        return self.weight_bytes - self.embed_bytes + self.stored_bytes(EMBED)

    @property
    def resident_share(self) -> float:
        """The share of the experts that is in memory."""
        return min((layer.resident_share for layer in self.layers if layer.expert_bytes), default=1.0)

    @property
    def hit_rate(self) -> float:
        """Of the experts that a decode step uses, the share that is found in memory."""
        return min((layer.hit_rate for layer in self.layers if layer.expert_bytes), default=1.0)

    @property
    def has_experts(self) -> bool:
        return any(layer.expert_bytes for layer in self.layers)

    def with_resident_share(self, share: float) -> ModelCost:
        """The same with so much of the experts in memory."""
        return replace(self, layers=tuple(replace(layer, resident_share=share) for layer in self.layers))

    def with_ranks(self, ranks: Sequence[float]) -> ModelCost:
        """The same with what was seen of how it uses its experts: `ranks` as `own_curve` takes them."""
        curve = own_curve(ranks, len(ranks) * sum(layer.expert_share for layer in self.layers))
        return replace(self, layers=tuple(replace(layer, curve=curve) for layer in self.layers))

    def kept_as(self, kv: str) -> ModelCost | None:
        """The same with keys and values kept in that format; None where they cannot be."""
        if kv == "f16":
            return self
        if kv != "q8_0" or not all(layer.kv_q8_0_bytes for layer in self.layers):
            return None
        mtp = replace(self.mtp, kv_bytes=self.mtp.kv_q8_0_bytes) if self.mtp is not None else None
        layers = tuple(replace(layer, kv_bytes=layer.kv_q8_0_bytes) for layer in self.layers)
        return replace(self, layers=layers, mtp=mtp)

    def sliced(self, bounds: Bounds) -> ModelCost:
        """The same for who has only a slice of every layer and of the LM head; all of it for no bounds."""
        if not bounds or self.cuts is None:
            return self
        cuts, head = self.cuts, self.cuts.share(bounds, VOCAB)
        return replace(
            self,
            layers=tuple(layer.sliced(bounds, cuts) for layer in self.layers),
            lm_head_bytes=int(self.lm_head_bytes * head),
            lm_head_macs=int(self.lm_head_macs * head),
        )

    def share_of_layers(self, first: int, end: int, bounds: Bounds) -> float:
        """What part of the weights of layers [first, end) a slice is."""
        whole = sum(layer.weight_bytes for layer in self.layers[first:end])
        return sum(layer.weight_bytes for layer in self.sliced(bounds).layers[first:end]) / max(whole, 1)

    def layer(self, part: Part) -> LayerCost:
        """What a layer, or a slice of it, takes."""
        layer = self.layers[part.layer]
        return layer.sliced(part.slice, self.cuts) if part.slice and self.cuts else layer

    def part_bytes(self, part: Part) -> int:
        """Bytes of a part in memory."""
        if part.is_layer:
            return self.layer(part).resident_bytes
        if part == EMBED:
            return self.embed_bytes
        if part == MTP:
            return self.mtp.weight_bytes if self.mtp is not None else 0
        if part.slice and self.cuts:
            return int(self.lm_head_bytes * self.cuts.share(part.slice, VOCAB))
        return self.lm_head_bytes + self.beside_head_bytes

    def stored_bytes(self, part: Part) -> int:
        """Bytes of a part on disk."""
        if part == EMBED:
            return self.embed_stored_bytes or self.embed_bytes
        return self.layer(part).weight_bytes if part.is_layer else self.part_bytes(part)

    def parts(self, first: int, end: int, bounds: Bounds = ()) -> tuple[Part, ...]:
        """The parts that a stage of layers [first, end), or a member with a slice of them, needs on its disk."""
        return parts_of(first, end, self.n_layers, bounds)

    def stage_weight_bytes(self, first: int, end: int, bounds: Bounds = ()) -> int:
        return sum(self.part_bytes(part) for part in self.parts(first, end, bounds))

    def stage_kv_bytes(self, first: int, end: int, context: int) -> int:
        return context * sum(layer.kv_bytes for layer in self.layers[first:end])

    def mtp_parts(self) -> tuple[Part, ...]:
        """What a last stage holds of whole layers that guesses with the block, beside its own: embedding and block."""
        return (EMBED, MTP) if self.mtp is not None else ()

    def mtp_kv_bytes(self, context: int) -> int:
        """What the block keeps of a session."""
        return context * self.mtp.kv_bytes if self.mtp is not None else 0


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the planner sees it: measured once, or the typical figures of its class."""

    id: PeerId
    name: str
    memory_bytes: int  # for weights and KV; what the process itself needs is already taken off
    disk_bytes: int  # free for chunks that it does not hold yet
    read_bytes_per_s: float  # by the real matmul kernel, with the threads it will use
    macs_per_s: float  # int8 multiply-adds in a prefill
    layer_s: float = LAYER_S
    step_s: float = STEP_S
    held: frozenset[Part] = field(default_factory=frozenset)  # parts of the model on its disk
    disk_bytes_per_s: float = GUESSED_DISK_BYTES_PER_S  # reading its store
    excluded: str = ""  # why it cannot take part (another version, a cloned id); empty when it can
    slices: bool = False  # it can compute layers together with others
    led_by: PeerId | None = None  # it does so already, and whoever leads there must lead here, too
    exchange: float = 1.5  # CPU time of an exchange, over that of the machine on which it was measured
    slice: Bounds = ()  # as a member of a stage of several: its share of each layer


@dataclass(frozen=True, slots=True)
class Exchange:
    """What two devices saw when they exchanged sums by the very way that members of a stage do."""

    wait_s: float  # beside the bytes: latency, and the CPU time of both ends
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """One direction between two devices."""

    rtt_s: float
    bytes_per_s: float
    exchange: Exchange | None = None  # None: by arithmetic, from the above
    may_share: bool = True  # False: devices that could share layers over it have not seen yet what that costs

    def hop_s(self, n_bytes: int) -> float:
        return self.rtt_s / 2 + n_bytes / self.bytes_per_s + MESSAGE_S


GUESSED_LINK = LinkSpeed(GUESSED_RTT_S, GUESSED_LINK_BYTES_PER_S)

# The link from one device to another; None where they do not reach each other.
LinkOf = Callable[[PeerId, PeerId], LinkSpeed | None]


def step_s(
    model: ModelCost,
    stage: Stage[Device],
    context: int,
    n_tokens: int = 1,
    link: LinkOf | None = None,
    *,
    sessions: int = 1,
) -> float:
    """Seconds that one stage computes in a step over `n_tokens` tokens of so many sessions.

    A stage of several members needs `link`. Each session has so much context, and wants logits of its last token.
    """
    if is_cut(stage):
        assert link is not None, "what an exchange costs depends on links"
        joint = joint_s(model, stage, context, n_tokens, sessions=sessions)
        return joint + exchanges_s(model, stage, n_tokens, link)
    device = stage.leader
    layers = model.layers[stage.first : stage.end]
    last = stage.end == model.n_layers
    weights = sum(layer.read_bytes(n_tokens) for layer in layers) + (model.lm_head_bytes if last else 0)
    kv = sessions * context * sum(layer.kv_bytes for layer in layers)
    macs = n_tokens * sum(layer.macs + context * layer.context_macs for layer in layers)
    macs += sessions * model.lm_head_macs if last else 0  # logits of the last token only
    work_s = max((weights + kv) / device.read_bytes_per_s, macs / device.macs_per_s)
    late_s = sum(layer.late_s(device, n_tokens) for layer in layers)
    return work_s + late_s + len(layers) * device.layer_s + device.step_s


def joint_s(model: ModelCost, stage: Stage[Device], context: int, n_tokens: int = 1, *, sessions: int = 1) -> float:
    """Seconds that a stage of several devices reads and computes in a step, without the exchanges."""
    sums = StageSums.of(model, stage.first, stage.end, n_tokens)
    assert model.cuts is not None, "only what can be cut has members"
    each = [_halves(sums, model.cuts, device, context, sessions) for device in stage.members]
    return float(sum(max(half) for half in zip(*each, strict=True)))


@dataclass(frozen=True, slots=True)
class StageSums:
    """What a step over `n_tokens` tokens meets in layers [first, end), with the ends of the model that belong to them.

    Bytes, by what they are cut along; `macs` is for each byte of weights that a token reads.
    """

    n_layers: int
    n_tokens: int
    embed_bytes: int
    lm_head_bytes: int
    lm_head_macs: int
    head: int
    key: int
    ffn: int
    shared: int
    replicated: int
    experts: int  # of which so many are resident, and read and missed in a step
    resident: int
    routed: float
    active: float  # by one token
    beside: float  # read by the way while what is missed comes from disk
    missed: float
    kv: int
    context_macs: int
    macs: float

    @classmethod
    def of(cls, model: ModelCost, first: int, end: int, n_tokens: int = 1) -> StageSums:
        layers, is_last = model.layers[first:end], end == model.n_layers
        dense = sum(layer.dense_bytes for layer in layers)
        read = sum(layer.read_bytes() for layer in layers)
        return cls(
            n_layers=len(layers),
            n_tokens=n_tokens,
            embed_bytes=0 if first else model.embed_bytes,
            lm_head_bytes=model.lm_head_bytes if is_last else 0,
            lm_head_macs=model.lm_head_macs if is_last else 0,
            head=sum(layer.query_bytes for layer in layers),
            key=sum(layer.key_bytes for layer in layers),
            ffn=sum(layer.ffn_bytes for layer in layers),
            shared=sum(layer.shared_bytes for layer in layers),
            replicated=sum(layer.replicated_bytes for layer in layers),
            experts=sum(layer.expert_bytes for layer in layers),
            resident=sum(layer.resident_bytes for layer in layers) - dense,
            routed=sum(layer.read_bytes(n_tokens) for layer in layers) - dense,
            active=read - dense,
            beside=sum(layer.beside_bytes(n_tokens) for layer in layers),
            missed=sum(layer.missed_bytes(n_tokens) for layer in layers),
            kv=sum(layer.kv_bytes for layer in layers),
            context_macs=sum(layer.context_macs for layer in layers),
            macs=sum(layer.macs for layer in layers) / max(read, 1),
        )

    @property
    def whole_bytes(self) -> int:
        """What every member holds."""
        return self.replicated + self.embed_bytes

    def cut_bytes(self, kv_tokens: int) -> tuple[int, ...]:
        """What all members together hold, by axis; more where keys are held twice."""
        heads = self.head + self.key + self.kv * kv_tokens
        return heads, self.ffn, self.resident, self.shared, self.lm_head_bytes

    def memory_bytes(self, bounds: Bounds, cuts: Cuts, kv_tokens: int) -> float:
        """Weights and KV of a slice of these layers."""
        keys = cuts.key_share(bounds)
        cut = self.head * cuts.share(bounds, HEADS) + self.ffn * cuts.share(bounds, FFN)
        cut += self.shared * cuts.share(bounds, SHARED) + self.resident * cuts.share(bounds, EXPERT)
        ends = self.embed_bytes + self.lm_head_bytes * cuts.share(bounds, VOCAB)
        return self.replicated + cut + ends + (self.key + self.kv * kv_tokens) * keys


def _halves(sums: StageSums, cuts: Cuts, device: Device, context: int, sessions: int = 1) -> tuple[float, ...]:
    """Seconds of one member in each of the things that all members do at the same time."""
    bounds, n_tokens = device.slice, sums.n_tokens
    heads, experts, rows = (cuts.share(bounds, axis) for axis in (HEADS, EXPERT, VOCAB))
    keys = cuts.key_share(bounds)
    rate = device.read_bytes_per_s

    def seconds(weights: float, active: float, more: float = 0.0, more_macs: float = 0.0) -> float:
        return max((weights + more) / rate, n_tokens * (active * sums.macs + more_macs) / device.macs_per_s)

    attention, ffn = sums.head * heads + sums.key * keys, sums.ffn * cuts.share(bounds, FFN)
    shared = sums.shared * cuts.share(bounds, SHARED)
    late_s = experts * (sums.missed / device.disk_bytes_per_s - sums.beside / rate)
    return (
        seconds(attention, attention, sessions * context * keys * sums.kv, context * heads * sums.context_macs),
        seconds(ffn, ffn),
        seconds(shared + experts * sums.routed, shared + experts * sums.active),
        seconds(sums.replicated, sums.replicated),
        max(sums.lm_head_bytes * rows / rate, sessions * sums.lm_head_macs * rows / device.macs_per_s),
        max(late_s, 0.0),
        sums.n_layers * device.layer_s + device.step_s,
    )


def exchange_of(step_s: float) -> float:
    """`Device.exchange` of a device whose steps cost so much: system calls get slower faster than Python does."""
    return min(max((step_s / STEP_S) ** 2, 1.0), MAX_EXCHANGE)


def exchanges_s(model: ModelCost, stage: Stage[Device], n_tokens: int, link: LinkOf) -> float:
    """Seconds of all exchanges of one step of a stage."""
    n_exchanges = 2 * stage.n_layers + (stage.end == model.n_layers)
    return n_exchanges * exchange_s(stage.members, link, model.hidden, n_tokens)


def exchange_s(members: Sequence[Device], link: LinkOf, hidden: int, n_tokens: int = 1) -> float:
    """Seconds until each of several devices has the sums of all; the worst pair of them counts."""
    n = len(members)
    ways = [link_between(link, a, b) for a in members for b in members if a is not b]
    rtt_s, rate = max(way.rtt_s for way in ways), min(way.bytes_per_s for way in ways)
    payload = hidden * PAYLOAD_BITS / 8 + FRAME_BYTES
    seen = [way.exchange for way in ways if way.exchange is not None]
    if len(seen) == len(ways):
        return _rehearsed_s(members, seen, n_tokens, payload)
    cpu_s = EXCHANGE_S + EXCHANGE_EACH_S * (n - 1) + EXCHANGE_ROW_S * (n_tokens - 1)
    cpu_s *= max(device.exchange for device in members)
    if n_tokens < SCATTER_TOKENS:
        return rtt_s / 2 + (n - 1) * n_tokens * payload / rate + cpu_s
    return rtt_s + 2 * (n - 1) / n * n_tokens * payload / rate + cpu_s


def _rehearsed_s(members: Sequence[Device], seen: Sequence[Exchange], n_tokens: int, payload: float) -> float:
    """The same from what pairs of them saw; the worst pair counts."""
    n = len(members)
    others_s = EXCHANGE_EACH_S * (n - 2) * max(device.exchange for device in members)
    wait_s, rate = max(each.wait_s for each in seen) + others_s, min(each.bytes_per_s for each in seen)
    if n_tokens < SCATTER_TOKENS:
        return wait_s + (n - 1) * n_tokens * payload / rate
    return 2 * wait_s + 2 * (n - 1) / n * n_tokens * payload / rate


def link_between(link: LinkOf, a: Device, b: Device) -> LinkSpeed:
    """The link from a to b; ValueError where there is none."""
    found = link(a.id, b.id)
    if found is None:
        raise ValueError(f"{a.name} does not reach {b.name}")
    return found
