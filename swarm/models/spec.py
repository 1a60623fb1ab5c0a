"""What a model is, said once: everything a decoder needs to run it, and which rectangle of which tensor holds what.

A `ModelSpec` names no family: an engine that obeys every field here runs every family. A layer computes

    a = norm(h, ATTN_NORM);  q, k, v = a @ Q, K, V (+ biases);  q, k = per-head norm (if qk_norm);  rope
    o = attention(q, k, v, attention_scale) @ O (+ O_BIAS);     h += norm(o, ATTN_POST_NORM) if sandwich_norms else o
    b = norm(h, FFN_NORM);  f = ffn(b);                         h += norm(f, FFN_POST_NORM) if sandwich_norms else f

where ffn is DOWN @ (silu(GATE @ b) * (UP @ b)), or the mixture of such experts that `MoeSpec` describes, and attention
another with a `LatentSpec`. Logits are LM_HEAD @ norm(h, OUTPUT_NORM). Norms are RMS norms with `norm_eps`. `Scales`
and `Temper` say what else is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from swarm.parts import EMBED, LM_HEAD, Part


class Role(StrEnum):
    """What a tensor, or some of its rows, is for."""

    EMBED = "embed"
    OUTPUT_NORM = "output_norm"
    LM_HEAD = "lm_head"
    ROPE_FREQS = "rope_freqs"

    ATTN_NORM = "attn_norm"
    Q = "q"
    K = "k"
    V = "v"
    Q_BIAS = "q_bias"
    K_BIAS = "k_bias"
    V_BIAS = "v_bias"
    Q_A = "q_a"
    Q_A_NORM = "q_a_norm"
    KV_A = "kv_a"
    KV_A_NORM = "kv_a_norm"
    K_B = "k_b"
    V_B = "v_b"
    Q_NORM = "q_norm"
    K_NORM = "k_norm"
    O = "o"  # noqa: E741
    O_BIAS = "out_bias"
    SINKS = "sinks"
    ATTN_POST_NORM = "attn_post_norm"
    FFN_NORM = "ffn_norm"
    GATE = "gate"
    UP = "up"
    DOWN = "down"
    ROUTER = "router"
    ROUTER_BIAS = "router_bias"
    EXPERT_GATE = "expert_gate"
    EXPERT_UP = "expert_up"
    EXPERT_DOWN = "expert_down"
    ROUTER_LOGIT_BIAS = "router_logit_bias"
    EXPERT_GATE_BIAS = "expert_gate_bias"
    EXPERT_UP_BIAS = "expert_up_bias"
    EXPERT_DOWN_BIAS = "expert_down_bias"
    SHARED_GATE = "shared_gate"
    SHARED_UP = "shared_up"
    SHARED_DOWN = "shared_down"
    FFN_POST_NORM = "ffn_post_norm"
    MTP_PROJECTION = "mtp_projection"
    MTP_TOKEN_NORM = "mtp_token_norm"
    MTP_STATE_NORM = "mtp_state_norm"
    MTP_NORM = "mtp_norm"


EXPERT_ROLES = frozenset({Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN})
HEAD_ROLES = frozenset({Role.K_B, Role.V_B})  # a matrix for each query head, in one tensor


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A rectangle of a tensor in the file: these ranges of its rows, one after the other, and these columns of each.

    Of a tensor that holds experts it is the same rectangle of every expert. A vector of n values is n rows of one
    column. Ranges need not ascend, and a row may occur twice (see slices.py). `slabs` are those of the outermost
    dimension (None: all): of a tensor with a matrix for each head, some heads.
    """

    name: str
    rows: tuple[range, ...]
    columns: range
    slabs: range | None = None

    @property
    def n_rows(self) -> int:
        """Rows of all ranges together."""
        return sum(map(len, self.rows))


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Rotary frequencies stretched for contexts longer than the model was trained on; cos and sin times a factor.

    `linear` divides every frequency by `factor`. `yarn` (arXiv 2309.00071) does so only for the slow ones, and blends
    from beta_slow to beta_fast rotations over `original_context`. Both multiply cos and sin by `attention_factor`.
    """

    kind: Literal["linear", "yarn"]
    factor: float
    original_context: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    whole_pairs: bool = True  # the blend begins and ends at a pair, not between two


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary positions on the first `dims` values of each head; the rest pass unchanged.

    `half` turns value i with value i + dims / 2, `pair` turns value 2i with value 2i + 1, both by
    position * theta ** (-2i / dims). Where the spec has ROPE_FREQS, its values divide those frequencies.
    """

    style: Literal["half", "pair"]
    dims: int
    theta: float
    scaling: RopeScaling | None = None


@dataclass(frozen=True, slots=True)
class Scales:
    """Factors of what enters the first layer, of what every half adds to the residual stream, and of the logits."""

    embedding: float = 1.0
    residual: float = 1.0
    logits: float = 1.0


@dataclass(frozen=True, slots=True)
class Temper:
    """Attention that sharpens with distance: queries at a position times 1 + scale * ln(1 + position // step)."""

    scale: float
    step: int


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """Latent attention (DeepSeek-V2, arXiv 2405.04434): one row in the KV cache for all heads.

        c, k = a @ KV_A;  c = norm(c, KV_A_NORM) of `rank` columns;  k = rope(k) of the rest;  what is kept is [c, k]
        q = a @ Q, or norm(a @ Q_A, Q_A_NORM) @ Q with `q_rank` columns between;  of each head [n, r], n of `nope`
        o = attention([K_B @ n, rope(r)], [c, k], values c, attention_scale);  V_B @ o of each head, `value` columns

    The model's head_dim is what is kept of a token, and it has one key head.
    """

    rank: int
    q_rank: int
    nope: int
    value: int


@dataclass(frozen=True, slots=True)
class Swiglu:
    """(up + 1) * gate * sigmoid(alpha * gate), where gate is at most `limit` and up within it on both sides."""

    alpha: float
    limit: float


@dataclass(frozen=True, slots=True)
class MoeSpec:
    """A mixture of `n_experts` feed-forward networks, `top_k` of which run for a token, plus one that always runs.

    scores = softmax or sigmoid of ROUTER @ x (+ ROUTER_LOGIT_BIAS). Experts are chosen by scores (+ ROUTER_BIAS if
    correction_bias), ties to the lower index. With n_group > 1 only experts of the `top_group` groups with the greatest
    sum of their two best choice values may be chosen. Weights are the plain scores of the chosen, divided by their sum
    if `normalise`, times `scale`. The shared expert (width 0: none) is added with weight one. With `swiglu` the routed
    experts have biases, and that in place of silu(gate) * up.
    """

    n_experts: int
    top_k: int
    expert_ffn: int
    shared_ffn: int = 0
    gating: Literal["softmax", "sigmoid"] = "softmax"
    normalise: bool = True
    scale: float = 1.0
    n_group: int = 1
    top_group: int = 1
    correction_bias: bool = False
    swiglu: Swiglu | None = None


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One transformer block: a dense feed-forward of `ffn` columns, or a mixture (then `ffn` is 0).

    A layer that is not `rotated` does without rope. With a `window` a token sees the last so many positions, its own
    included. Where there are SINKS, each head has one more score, of a position without a value.
    """

    ffn: int
    moe: MoeSpec | None = None
    rotated: bool = True
    window: int = 0
    tensors: Mapping[Role, TensorRef] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model, family by family the same words. `tensors` are those outside layers; LM_HEAD is EMBED's when tied."""

    family: str
    n_layers: int
    hidden: int
    vocab: int
    context_length: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    norm_eps: float
    rope: RopeSpec
    attention_scale: float
    layers: tuple[LayerSpec, ...]
    qkv_bias: bool = False
    qk_norm: bool = False
    sandwich_norms: bool = False
    tied_lm_head: bool = False
    scales: Scales = Scales()
    temper: Temper | None = None
    latent: LatentSpec | None = None
    tensors: Mapping[Role, TensorRef] = field(default_factory=dict)

    @property
    def q_width(self) -> int:
        """Columns of all query heads; need not equal `hidden`."""
        return self.n_heads * (self.latent.nope + self.rope.dims if self.latent else self.head_dim)

    @property
    def out_width(self) -> int:
        """Columns of what all heads give."""
        return self.n_heads * (self.latent.value if self.latent else self.head_dim)

    @property
    def kv_width(self) -> int:
        """Columns of all key (or value) heads."""
        return self.n_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class MtpSpec:
    """A block that predicts the token after the next one (multi-token prediction), as a model of one layer.

    For token x at position p, and the model's state g of position p - 1 after its last norm:

        h = MTP_PROJECTION @ [norm(EMBED[x], MTP_TOKEN_NORM), norm(g, MTP_STATE_NORM)]

    Then the layer, MTP_NORM in place of OUTPUT_NORM, and LM_HEAD as in any model. These four are among the tensors of
    the layer, so that the layer is all that must be held beside a model whose embedding and head serve the block, too.
    `prefix` is how the names of what feeds it begin.
    """

    spec: ModelSpec
    prefix: str


class RoleShape(NamedTuple):
    """Rows and columns of one matrix (a vector has one column), and of how many experts or heads there is one each."""

    rows: int
    cols: int
    n_experts: int = 1


class NeededTensor(NamedTuple):
    """A matrix or vector that a shard holds: `rows` x `cols`, for each of `n_experts`. Layer -1 is outside layers."""

    role: Role
    layer: int
    ref: TensorRef
    rows: int
    cols: int
    n_experts: int


OUTSIDE_LAYERS = -1


def role_shape(spec: ModelSpec, layer: int, role: Role) -> RoleShape:
    """The shape that `role` has in this model; `layer` is ignored for roles outside layers."""
    if role in _OUTSIDE_SHAPES:
        return _outside_shape(spec, role)
    block = spec.layers[layer]
    if block.moe is not None:
        moe_shape = _moe_shape(spec.hidden, block.moe, role)
        if moe_shape is not None:
            return moe_shape
    if spec.latent is not None and role in _LATENT_ROLES:
        return _latent_shape(spec, spec.latent, role)
    return {
        Role.ATTN_NORM: RoleShape(spec.hidden, 1),
        Role.Q: RoleShape(spec.q_width, spec.hidden),
        Role.K: RoleShape(spec.kv_width, spec.hidden),
        Role.V: RoleShape(spec.kv_width, spec.hidden),
        Role.Q_BIAS: RoleShape(spec.q_width, 1),
        Role.K_BIAS: RoleShape(spec.kv_width, 1),
        Role.V_BIAS: RoleShape(spec.kv_width, 1),
        Role.Q_NORM: RoleShape(spec.head_dim, 1),
        Role.K_NORM: RoleShape(spec.head_dim, 1),
        Role.O: RoleShape(spec.hidden, spec.out_width),
        Role.O_BIAS: RoleShape(spec.hidden, 1),
        Role.SINKS: RoleShape(spec.n_heads, 1),
        Role.ATTN_POST_NORM: RoleShape(spec.hidden, 1),
        Role.FFN_NORM: RoleShape(spec.hidden, 1),
        Role.GATE: RoleShape(block.ffn, spec.hidden),
        Role.UP: RoleShape(block.ffn, spec.hidden),
        Role.DOWN: RoleShape(spec.hidden, block.ffn),
        Role.FFN_POST_NORM: RoleShape(spec.hidden, 1),
        Role.MTP_PROJECTION: RoleShape(spec.hidden, 2 * spec.hidden),
        Role.MTP_TOKEN_NORM: RoleShape(spec.hidden, 1),
        Role.MTP_STATE_NORM: RoleShape(spec.hidden, 1),
        Role.MTP_NORM: RoleShape(spec.hidden, 1),
    }[role]


_OUTSIDE_SHAPES = frozenset({Role.EMBED, Role.OUTPUT_NORM, Role.LM_HEAD, Role.ROPE_FREQS})


def _outside_shape(spec: ModelSpec, role: Role) -> RoleShape:
    if role is Role.OUTPUT_NORM:
        return RoleShape(spec.hidden, 1)
    if role is Role.ROPE_FREQS:
        return RoleShape(spec.rope.dims // 2, 1)
    return RoleShape(spec.vocab, spec.hidden)


_LATENT_ROLES = frozenset({Role.Q, Role.Q_A, Role.Q_A_NORM, Role.KV_A, Role.KV_A_NORM, Role.K_B, Role.V_B})


def _latent_shape(spec: ModelSpec, latent: LatentSpec, role: Role) -> RoleShape:
    return {
        Role.Q: RoleShape(spec.q_width, latent.q_rank or spec.hidden),
        Role.Q_A: RoleShape(latent.q_rank, spec.hidden),
        Role.Q_A_NORM: RoleShape(latent.q_rank, 1),
        Role.KV_A: RoleShape(spec.head_dim, spec.hidden),
        Role.KV_A_NORM: RoleShape(latent.rank, 1),
        Role.K_B: RoleShape(latent.rank, latent.nope, spec.n_heads),
        Role.V_B: RoleShape(latent.value, latent.rank, spec.n_heads),
    }[role]


def _moe_shape(hidden: int, moe: MoeSpec, role: Role) -> RoleShape | None:
    return {
        Role.ROUTER: RoleShape(moe.n_experts, hidden),
        Role.ROUTER_BIAS: RoleShape(moe.n_experts, 1),
        Role.EXPERT_GATE: RoleShape(moe.expert_ffn, hidden, moe.n_experts),
        Role.EXPERT_UP: RoleShape(moe.expert_ffn, hidden, moe.n_experts),
        Role.EXPERT_DOWN: RoleShape(hidden, moe.expert_ffn, moe.n_experts),
        Role.ROUTER_LOGIT_BIAS: RoleShape(moe.n_experts, 1),
        Role.EXPERT_GATE_BIAS: RoleShape(moe.n_experts, moe.expert_ffn),
        Role.EXPERT_UP_BIAS: RoleShape(moe.n_experts, moe.expert_ffn),
        Role.EXPERT_DOWN_BIAS: RoleShape(moe.n_experts, hidden),
        Role.SHARED_GATE: RoleShape(moe.shared_ffn, hidden),
        Role.SHARED_UP: RoleShape(moe.shared_ffn, hidden),
        Role.SHARED_DOWN: RoleShape(hidden, moe.shared_ffn),
    }.get(role)


def tensors_needed(spec: ModelSpec, parts: Iterable[Part]) -> list[NeededTensor]:
    """What a shard with these parts holds, in the order it is used. Where they are of a slice, so is `spec`.

    A tied model that needs both ends lists the same rows twice, as EMBED and as LM_HEAD.
    """
    return list(_needed(spec, {Part(part.layer) for part in parts}))


def _needed(spec: ModelSpec, parts: Set[Part]) -> Iterator[NeededTensor]:
    layers = [part.layer for part in sorted(parts) if part.is_layer]
    if EMBED in parts:
        yield _need(spec, OUTSIDE_LAYERS, Role.EMBED, spec.tensors[Role.EMBED])
    if layers and Role.ROPE_FREQS in spec.tensors:
        yield _need(spec, OUTSIDE_LAYERS, Role.ROPE_FREQS, spec.tensors[Role.ROPE_FREQS])
    for layer in layers:
        for role, ref in spec.layers[layer].tensors.items():
            yield _need(spec, layer, role, ref)
    if LM_HEAD in parts:
        for role in (Role.OUTPUT_NORM, Role.LM_HEAD):
            yield _need(spec, OUTSIDE_LAYERS, role, spec.tensors[role])


def _need(spec: ModelSpec, layer: int, role: Role, ref: TensorRef) -> NeededTensor:
    return NeededTensor(role, layer, ref, ref.n_rows, len(ref.columns), role_shape(spec, layer, role).n_experts)
