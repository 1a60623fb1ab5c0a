"""A model file's metadata and tensor table, read with a check on every value.

Nothing here trusts the file: a missing key, a value of the wrong type or out of range gives one `BadModelFile` (or
`UnsupportedModel`) that names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from swarm.architectures import architecture, quoted
from swarm.errors import BadModelFile, UnsupportedModel
from swarm.kernels.quants import Quant
from swarm.models.spec import LayerSpec, RopeScaling, RopeSpec


class TensorEntry(Protocol):
    """A line of a model's tensor table: the shape, outermost dimension first, and how the values are stored."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def quant(self) -> Quant: ...


# The largest values that make sense for a model, far above all that exist: a damaged file must not cost memory or time.
MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20  # columns of any activation
MAX_HEADS = 4096
MAX_HEAD_DIM = 1024
HEAD_STEP = 16  # columns of a head that the engine takes at a time
MAX_EXPERTS = 1024  # also the engine's bound
MAX_CONTEXT = 1 << 26
MAX_VOCAB = 1 << 22


# Keys that files may carry beside those that a family reads, whatever they say: they change no token's logits.
HARMLESS = frozenset(
    {
        "attention.key_length_swa",  # of windows of attention, and files with windows are refused
        "attention.layer_norm_epsilon",  # of the other kind of norm
        "attention.value_length_swa",
        "classifier.output_labels",
        "embedding_length_out",
        "pooling_type",
        "rope.dimension_count_swa",
        "rope.freq_base_swa",
        "rope.scaling.finetuned",
        "rope.scaling.original_context_length",  # yarn reads it, other ways do not need it
        "tensor_data_layout",
        "vocab_size",  # the embedding's rows say it
    }
)


class Header:
    """Metadata and tensor table of one model file of architecture `arch`; keys are given without the `{arch}.`.

    It remembers which keys were asked for: what no declaration asks for must not matter (`refuse_other_keys`).
    """

    def __init__(self, metadata: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> None:
        self.metadata = metadata
        self.tensors = tensors
        self.arch = architecture(metadata)
        self._understood = set(HARMLESS)

    def whole(self, key: str, lo: int, hi: int, default: int | None = None) -> int:
        """The whole number `key`, lo <= value <= hi; BadModelFile when absent without a default, or out of range."""
        name, value = self._find(key, default)
        return _whole(name, self._only(name, value) if _is_list(value) else value, lo, hi)

    def wholes(self, key: str, lo: int, hi: int, count: int) -> list[int]:
        """The whole number `key` of the first `count` layers: one for all, or a list of one for each."""
        name, value = self._find(key, None)
        if not _is_list(value):
            return [_whole(name, value, lo, hi)] * count
        self._check_length(name, value)
        return [_whole(name, number, lo, hi) for number in list(value)[:count]]

    def real(self, key: str, lo: float, hi: float, default: float | None = None) -> float:
        """The number `key`, lo <= value <= hi (nan is never in range)."""
        name, value = self._find(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not lo <= value <= hi:
            raise BadModelFile(f"{name} is {quoted(value)}: must be a number from {lo:g} to {hi:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """The truth value `key`."""
        name, value = self._find(key, default)
        if not isinstance(value, bool):
            raise BadModelFile(f"{name} is {quoted(value)}: must be true or false")
        return value

    def text(self, key: str, default: str) -> str:
        """The string `key`."""
        name, value = self._find(key, default)
        if not isinstance(value, str):
            raise BadModelFile(f"{name} is {quoted(value)}: must be text")
        return value

    def has(self, tensor: str) -> bool:
        """Whether the file has this tensor."""
        return tensor in self.tensors

    def given(self, key: str) -> bool:
        """Whether `key` is there and not zero, false or empty."""
        self._understood.add(key)
        return _says_something(self.metadata.get(f"{self.arch}.{key}"))

    def refuse(self, key: str, why: str) -> None:
        """UnsupportedModel when `key` is there and not zero: it changes what the model computes."""
        if self.given(key):
            raise UnsupportedModel(f"{self.arch}.{key} is {quoted(self.metadata[f'{self.arch}.{key}'])}: {why}")

    def ignore(self, *keys: str) -> None:
        """Declare that these keys change nothing in this model."""
        self._understood.update(keys)

    def refuse_other_keys(self) -> None:
        """UnsupportedModel for a key of the architecture that nobody has asked for and that says something."""
        prefix = f"{self.arch}."
        for name in self.metadata:
            key = name.removeprefix(prefix)
            if name.startswith(prefix) and key not in self._understood and self.given(key):
                shown = f"{quoted(name)[1:-1]} is {quoted(self.metadata[name])}"
                raise UnsupportedModel(f"{shown}: Swarm's {self.arch} does not know what it changes")

    def _find(self, key: str, default: Any) -> tuple[str, Any]:
        self._understood.add(key)
        name = f"{self.arch}.{key}"
        value = self.metadata.get(name, default)
        if value is None:
            raise BadModelFile(f"{name} is missing: the file does not say what the model looks like")
        return name, value

    def _only(self, name: str, values: Sequence[Any] | npt.NDArray[Any]) -> Any:
        """The one value of a per-layer list that says the same for every layer."""
        self._check_length(name, values)
        if any(value != values[0] for value in values):
            raise UnsupportedModel(f"{name} differs from layer to layer: Swarm runs models whose layers are alike")
        return values[0]

    def _check_length(self, name: str, values: Sequence[Any] | npt.NDArray[Any]) -> None:
        """BadModelFile for a per-layer list that has not one value for each layer."""
        n_layers = self.metadata.get(f"{self.arch}.block_count")
        if len(values) == 0 or (isinstance(n_layers, int) and len(values) != n_layers):
            raise BadModelFile(f"{name} has {len(values)} values for {n_layers} layers; fetch the file again")


def _whole(name: str, value: Any, lo: int, hi: int) -> int:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, int) or isinstance(value, bool) or not lo <= value <= hi:
        raise BadModelFile(f"{name} is {quoted(value)}: must be a whole number from {lo} to {hi}")
    return value


def _says_something(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.any())
    return any(value) if isinstance(value, list | tuple) else bool(value)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


# ---- what all families say in the same keys ----


class Sizes(TypedDict):
    """What every file declares in the same words; the names are those of `ModelSpec`."""

    n_layers: int
    hidden: int
    vocab: int
    context_length: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    norm_eps: float
    attention_scale: float


def sizes(h: Header, *, n_layers: int | None = None, windowed: bool = False) -> Sizes:
    """n_layers: where they are not all blocks of the file. windowed: the family reads the keys of windows itself."""
    n_layers = block_count(h) if n_layers is None else n_layers
    n_heads, n_kv_heads, head_dim = heads(h, windowed=windowed)
    return Sizes(
        n_layers=n_layers,
        hidden=hidden_size(h),
        vocab=vocab_size(h),
        context_length=context_length(h),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        norm_eps=norm_eps(h),
        attention_scale=attention_scale(h, head_dim),
    )


def rope(h: Header, style: Literal["half", "pair"], head_dim: int, *, dims: int | None = None) -> RopeSpec:
    """dims: how much of a head turns where the file does not say; else all of it."""
    turning = rope_dims(h, head_dim, default=head_dim if dims is None else dims)
    return RopeSpec(style, turning, rope_theta(h), rope_scaling(h))


def block_count(h: Header) -> int:
    """Layers that the file declares."""
    return h.whole("block_count", 1, MAX_LAYERS)


def hidden_size(h: Header) -> int:
    """Width of the residual stream."""
    return h.whole("embedding_length", 2, MAX_WIDTH)


def context_length(h: Header) -> int:
    """Positions the model was made for."""
    return h.whole("context_length", 1, MAX_CONTEXT)


def norm_eps(h: Header) -> float:
    """What RMS norms add to the mean square."""
    return h.real("attention.layer_norm_rms_epsilon", 1e-12, 0.1)


def vocab_size(h: Header) -> int:
    """Rows of the embedding: a file's vocabulary may be shorter, never longer."""
    if not h.has("token_embd.weight"):
        raise BadModelFile("tensor token_embd.weight is missing: the file is not complete")
    shape = h.tensors["token_embd.weight"].shape
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_VOCAB:
        raise BadModelFile(f"tensor token_embd.weight has shape {shape}: must be tokens x {hidden_size(h)}")
    return shape[0]


def heads(h: Header, *, windowed: bool = False) -> tuple[int, int, int]:
    """Query heads, key/value heads, and the width of each. `windowed`: the family knows windows of attention."""
    if not windowed:
        h.refuse("attention.sliding_window", f"Swarm's {h.arch} has no sliding window attention")
    if not h.flag("attention.causal", default=True):
        raise UnsupportedModel(f"{h.arch}.attention.causal is False: Swarm runs models that write, not that embed")
    n_heads = h.whole("attention.head_count", 1, MAX_HEADS)
    n_kv_heads = h.whole("attention.head_count_kv", 1, MAX_HEADS, default=n_heads)
    if n_heads % n_kv_heads:
        raise BadModelFile(
            f"{h.arch}.attention.head_count is {n_heads}: not a multiple of the {n_kv_heads} key/value heads"
        )
    head_dim = _head_dim(h, n_heads)
    value_length = h.whole("attention.value_length", 1, MAX_HEAD_DIM, default=head_dim)
    if value_length != head_dim:
        raise UnsupportedModel(f"keys of {head_dim} and values of {value_length} columns: Swarm runs equal ones")
    return n_heads, n_kv_heads, head_dim


def _head_dim(h: Header, n_heads: int) -> int:
    hidden = hidden_size(h)
    if f"{h.arch}.attention.key_length" not in h.metadata and hidden % n_heads:
        raise BadModelFile(f"{h.arch}.embedding_length is {hidden}: not a multiple of the {n_heads} heads")
    head_dim = h.whole("attention.key_length", 1, MAX_HEAD_DIM, default=hidden // n_heads)
    if head_dim % HEAD_STEP:
        raise UnsupportedModel(f"heads of {head_dim} columns: Swarm runs multiples of {HEAD_STEP}")
    return head_dim


def rope_dims(h: Header, head_dim: int, default: int) -> int:
    """How many columns of each head are rotated."""
    dims = h.whole("rope.dimension_count", 1, MAX_HEAD_DIM, default=default)
    if dims % 2 or dims > head_dim:
        raise BadModelFile(f"{h.arch}.rope.dimension_count is {dims}: must be even and at most {head_dim}, the head's")
    return dims


def rope_theta(h: Header) -> float:
    """The base of the rotary frequencies."""
    return h.real("rope.freq_base", 1.0, 1e15, default=10000.0)


def refuse_other_windows(h: Header, head_dim: int, rope_dims: int, theta: float) -> None:
    """UnsupportedModel when heads of windowed layers are said to be other than those of the rest."""
    keys = {"attention.key_length": head_dim, "attention.value_length": head_dim, "rope.dimension_count": rope_dims}
    for key, value in {**keys, "rope.freq_base": theta}.items():
        if h.real(f"{key}_swa", 0.0, 1e15, default=value) not in (0, value):
            raise UnsupportedModel(f"{h.arch}.{key}_swa is not {value:g}: Swarm runs windows with the same heads")


def rope_scaling(h: Header, multipliers: tuple[float, float] = (1.0, 0.0)) -> RopeScaling | None:
    """What `rope.scaling.*` asks for; None when it asks for nothing.

    As llama.cpp has it: a factor without a type is linear, and attn_factor counts with any type. `multipliers`, of
    families that read yarn_log_multiplier, are those of the logarithms in the magnitude that yarn gives to cos and sin,
    and in what that is divided by.
    """
    kind = h.text("rope.scaling.type", default="linear")
    factor, sharpness = _stretch(h), _given_factor(h, "rope.scaling.attn_factor") or 1.0
    if kind == "yarn":
        return _yarn(h, factor, sharpness, multipliers)
    if kind not in ("none", "linear"):
        raise UnsupportedModel(f"{h.arch}.rope.scaling.type is {quoted(kind)}: Swarm runs none, linear and yarn")
    if kind == "none":
        factor = 1.0
    return RopeScaling("linear", factor, attention_factor=sharpness) if (factor, sharpness) != (1.0, 1.0) else None


def _stretch(h: Header) -> float:
    """How many times longer contexts became; files of 2023 say so in another key."""
    factor, old = (_given_factor(h, key) for key in ("rope.scaling.factor", "rope.scale_linear"))
    return factor or old or 1.0


def _given_factor(h: Header, key: str) -> float:
    """A factor of rotary frequencies; 0 when the file has none."""
    return h.real(key, 0.001, 1e6) if h.given(key) else 0.0


def yarn_log_multiplier(h: Header) -> float:
    """How much of yarn's sharper attention is left out of cos and sin; 0 when the file says nothing."""
    return h.real("rope.scaling.yarn_log_multiplier", 0.0, 1e3, default=0.0)


def _yarn(h: Header, factor: float, sharpness: float, multipliers: tuple[float, float]) -> RopeScaling | None:
    if not multipliers[1]:
        h.refuse("rope.scaling.yarn_log_multiplier", "Swarm runs yarn without it")
    if h.real("rope.scaling.yarn_ext_factor", 0.0, 1e3, default=1.0) != 1:
        raise UnsupportedModel(f"{h.arch}.rope.scaling.yarn_ext_factor is not 1: Swarm runs yarn as it was published")
    if factor < 1:
        raise UnsupportedModel(f"{h.arch}.rope.scaling.factor is {factor:g}: Swarm runs yarn that stretches")
    upper, lower = (yarn_attention_factor(factor, multiplier) for multiplier in multipliers)
    own = _given_factor(h, "rope.scaling.yarn_attn_factor") or upper / lower
    scaling = RopeScaling(
        kind="yarn",
        factor=factor,
        original_context=h.whole("rope.scaling.original_context_length", 1, MAX_CONTEXT, default=context_length(h)),
        attention_factor=sharpness * own,
        beta_fast=h.real("rope.scaling.yarn_beta_fast", 0.001, 1e6, default=32.0),
        beta_slow=h.real("rope.scaling.yarn_beta_slow", 0.001, 1e6, default=1.0),
    )
    return scaling if (factor, scaling.attention_factor) != (1.0, 1.0) else None


def yarn_attention_factor(factor: float, multiplier: float = 1.0) -> float:
    """How much yarn sharpens attention, on cos and sin each (arXiv 2309.00071, section 3.4)."""
    return 0.1 * multiplier * math.log(factor) + 1.0


def attention_scale(h: Header, head_dim: int) -> float:
    """What query-key products are multiplied with."""
    return h.real("attention.scale", 0.0, 1e3, default=0.0) or float(head_dim**-0.5)


def ffn_width(h: Header) -> int:
    """Columns of a feed-forward network that is alike in all layers."""
    return h.whole("feed_forward_length", 1, MAX_WIDTH)


def dense_layers(h: Header, count: int) -> tuple[LayerSpec, ...]:
    """The first `count` layers, without experts, as wide as the file says: all alike, or each by itself."""
    return tuple(LayerSpec(ffn) for ffn in h.wholes("feed_forward_length", 1, MAX_WIDTH, count)) if count else ()


# ---- mixtures of experts ----

Gating = Literal["softmax", "sigmoid"]

_GATINGS: dict[int, Gating] = {1: "softmax", 2: "sigmoid"}


def gating(h: Header, default: Gating) -> Gating:
    """How router values become scores; zero or absent means the family's own way."""
    number = h.whole("expert_gating_func", 0, 1 << 16, default=0)
    if number == 0:
        return default
    if number not in _GATINGS:
        raise UnsupportedModel(f"{h.arch}.expert_gating_func is {number}: Swarm runs 1 (softmax) and 2 (sigmoid)")
    return _GATINGS[number]


def experts(h: Header) -> tuple[int, int]:
    """Experts of a layer, and how many of them run for a token."""
    n_experts = h.whole("expert_count", 2, MAX_EXPERTS)
    top_k = h.whole("expert_used_count", 1, MAX_EXPERTS)
    if top_k > n_experts:
        raise BadModelFile(f"{h.arch}.expert_used_count is {top_k}: there are only {n_experts} experts")
    return n_experts, top_k


def expert_groups(h: Header, n_experts: int, top_k: int) -> tuple[int, int]:
    """Groups of experts, and in how many of them a token may choose; (1, 1) when there are none."""
    n_group = h.whole("expert_group_count", 0, MAX_EXPERTS, default=1) or 1
    if n_group == 1:
        h.ignore("expert_group_used_count")
        return 1, 1
    top_group = h.whole("expert_group_used_count", 1, MAX_EXPERTS)
    if n_experts % n_group or n_experts // n_group < 2:
        raise BadModelFile(f"{h.arch}.expert_group_count is {n_group}: {n_experts} experts do not make such groups")
    if top_group > n_group or top_group * (n_experts // n_group) < top_k:
        raise BadModelFile(
            f"{h.arch}.expert_group_used_count is {top_group}: {top_k} experts do not fit that many of {n_group} groups"
        )
    return n_group, top_group


def expert_scale(h: Header) -> float:
    """What expert weights are multiplied with; files write 0 for "nothing"."""
    return h.real("expert_weights_scale", 0.0, 1e4, default=1.0) or 1.0


def shared_width(h: Header, expert_ffn: int) -> int:
    """Columns of all shared experts together, which act as one; 0 when there is none."""
    count = h.whole("expert_shared_count", 0, MAX_EXPERTS, default=0)
    if count == 0:
        return 0
    return h.whole("expert_shared_feed_forward_length", 1, MAX_WIDTH, default=count * expert_ffn)
