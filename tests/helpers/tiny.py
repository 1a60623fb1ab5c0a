"""Small random checkpoints of every family, as GGUF files.

A `Tiny` says what a checkpoint looks like; `make_weights` gives it random values, one array for each role of each
layer, in the order of rows that the original checkpoints have. `write_tiny` puts them into a GGUF file, stored as a
`mix` says; `tests/helpers/transformers_oracle.py` puts the same values, less what storage lost, into transformers.
Norms, biases and router corrections are random too: at their usual ones and zeros they would hide a swapped norm.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from swarm.kernels.quants import Quant, dequantize, quant_by_name
from swarm.kernels.reference import llama3_divisors
from tests.helpers.gguf_writer import write_gguf
from tests.helpers.quantize import quantize
from tests.helpers.tiny_text import VOCAB, text_metadata

OUTSIDE = -1
Key = tuple[int, str]  # layer (or OUTSIDE), role
Weights = Mapping[Key, np.ndarray]
Metadata = dict[str, object]


@dataclass(frozen=True)
class TinyMoe:
    n_experts: int = 8
    top_k: int = 3
    ffn: int = 32
    shared: int = 0
    gating: str = "softmax"
    normalise: bool = True
    scale: float = 1.0
    n_group: int = 1
    top_group: int = 1
    bias: bool = False
    fused: bool = False  # gate and up of all experts in one tensor
    dense_layers: int = 0


@dataclass(frozen=True)
class TinyLatent:
    """Widths of latent attention; `q_rank` 0: the query has one matrix."""

    rank: int = 64
    q_rank: int = 96
    nope: int = 64
    value: int = 32


@dataclass(frozen=True)
class Tiny:
    name: str
    arch: str
    n_layers: int = 3
    hidden: int = 64
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 32  # 4 * 32 is not 64, on purpose
    ffn: int = 96
    vocab: int = len(VOCAB)
    context: int = 512
    eps: float = 1e-5
    theta: float = 10000.0
    rope_dims: int = 32
    bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    qkv_fused: bool = False
    llama3_factor: float = 0.0
    yarn_factor: float = 0.0
    yarn_magnitude: float = 0.0  # of cos and sin, in place of the one that follows from the factor
    linear_factor: float = 0.0
    sections: tuple[int, ...] = ()  # of rotated columns, in models that see
    moe: TinyMoe | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0  # logits are divided by it
    attention_scale: float = 0.0  # 0: as the width of heads has it
    temper: float = 0.0
    yarn_multiplier: float = 0.0
    latent: TinyLatent | None = None
    window: int = 0  # of attention in every other layer, beginning with the first
    mtp: str = "none"  # none, present, or absent (declared and counted, but without its tensors)
    left_out: tuple[str, ...] = ()  # keys that files are known to lack

    @property
    def sandwich(self) -> bool:
        return self.arch == "glm4"

    @property
    def biased(self) -> bool:
        """Biases everywhere, and sinks."""
        return self.arch == "gpt-oss"

    def is_moe(self, layer: int) -> bool:
        return self.moe is not None and layer >= self.moe.dense_layers


_HEAD_KEYS = ("attention.key_length", "attention.value_length", "rope.dimension_count")
_GLM = {"rope_dims": 16, "bias": True}
_GRANITE = {"embedding_scale": 12.0, "residual_scale": 0.22, "logit_scale": 8.0, "attention_scale": 0.05}
_FLASH = TinyMoe(shared=1, gating="sigmoid", scale=1.8, bias=True, dense_layers=1)
_AIR = TinyMoe(shared=1, gating="sigmoid", bias=True, dense_layers=1)

TINY: dict[str, Tiny] = {
    tiny.name: tiny
    for tiny in (
        Tiny("llama", "llama", theta=5e5, llama3_factor=8.0),
        Tiny("llama-tied", "llama", head_dim=16, rope_dims=16, tied=True, left_out=_HEAD_KEYS),
        Tiny("llama-linear", "llama", linear_factor=4.0),
        Tiny("qwen2", "qwen2", hidden=96, n_heads=6, head_dim=16, rope_dims=16, eps=1e-6, theta=1e6, bias=True),
        Tiny("qwen2-yarn", "qwen2", eps=1e-6, bias=True, tied=True, yarn_factor=4.0, yarn_magnitude=1.3),
        Tiny("qwen3", "qwen3", eps=1e-6, theta=1e6, qk_norm=True, tied=True),
        Tiny("qwen3-yarn", "qwen3", eps=1e-6, theta=1e4, qk_norm=True, yarn_factor=4.0),
        Tiny("qwen3moe", "qwen3moe", eps=1e-6, theta=1e6, qk_norm=True, moe=TinyMoe()),
        Tiny("smollm3", "smollm3", n_layers=5, hidden=128, eps=1e-6, theta=5e6, tied=True),
        Tiny("granite", "granite", tied=True, **_GRANITE),
        Tiny("granitemoe", "granitemoe", tied=True, moe=TinyMoe(), **_GRANITE),
        Tiny("granitemoe-shared", "granitemoe", moe=TinyMoe(shared=1), **_GRANITE),
        Tiny("mistral3", "mistral3", theta=1e6, yarn_factor=16.0, temper=0.1, yarn_multiplier=1.0),
        Tiny("flash", "deepseek2", theta=1e6, eps=1e-6, latent=TinyLatent(), mtp="present", moe=_FLASH),
        Tiny(
            "deepseek-lite",
            "deepseek2",
            eps=1e-6,
            latent=TinyLatent(q_rank=0, nope=32, value=64),
            yarn_factor=40.0,
            yarn_multiplier=0.707,
            moe=TinyMoe(shared=2, normalise=False, dense_layers=1),
        ),
        Tiny("gpt-oss", "gpt-oss", theta=150000.0, bias=True, yarn_factor=32.0, window=20, moe=TinyMoe(), n_layers=4),
        Tiny("gpt-oss-near", "gpt-oss", theta=150000.0, bias=True, window=128, moe=TinyMoe(top_k=4)),
        Tiny("chatglm", "chatglm", eps=1.5625e-7, qkv_fused=True, **_GLM),
        Tiny("chatglm-separate", "chatglm", eps=1.5625e-7, left_out=("rope.dimension_count",), **_GLM),
        Tiny("glm-edge", "chatglm", rope_dims=16, tied=True),
        Tiny("glm4", "glm4", **_GLM),
        Tiny("glm4-fused", "glm4", qkv_fused=True, left_out=("rope.dimension_count", "rope.freq_base"), **_GLM),
        Tiny("glm4v", "glm4", sections=(2, 3, 3, 0), **_GLM),
        Tiny("air", "glm4moe", theta=1e6, moe=_AIR, mtp="present", left_out=("expert_gating_func",), **_GLM),
        Tiny("intellect3", "glm4moe", theta=1e6, moe=_AIR, mtp="absent", left_out=("expert_weights_norm",), **_GLM),
        Tiny(
            "glm355b",
            "glm4moe",
            n_layers=4,
            theta=1e6,
            qk_norm=True,
            moe=replace(_AIR, scale=2.5, dense_layers=2, fused=True),
            qkv_fused=True,
            **_GLM,
        ),
        Tiny("glm-groups", "glm4moe", theta=1e6, moe=replace(_AIR, n_group=4, top_group=2), **_GLM),
    )
}


def wide(tiny: Tiny, ffn: int = 512) -> Tiny:
    """The same with rows of 256 and 512 columns, which K-quants need; heads of 64, q width twice the hidden one."""
    return replace(
        tiny,
        name=f"{tiny.name}-wide",
        hidden=256,
        n_heads=4 if "attention.key_length" in tiny.left_out else 8,
        head_dim=64,
        rope_dims=64 * tiny.rope_dims // tiny.head_dim,
        latent=tiny.latent and TinyLatent(rank=256, q_rank=4 * tiny.latent.q_rank, nope=96, value=64),
        ffn=ffn,
        moe=tiny.moe and replace(tiny.moe, ffn=ffn),
    )


# ---- values ----


def shapes(tiny: Tiny) -> dict[Key, tuple[int, ...]]:
    """The shape of every role of every layer."""
    found: dict[Key, tuple[int, ...]] = {
        (OUTSIDE, "embed"): (tiny.vocab, tiny.hidden),
        (OUTSIDE, "output_norm"): (tiny.hidden,),
    }
    if not tiny.tied:
        found[OUTSIDE, "output"] = (tiny.vocab, tiny.hidden)
    for layer in range(tiny.n_layers):
        found |= {(layer, role): shape for role, shape in _layer_shapes(tiny, layer)}
    return found


def _layer_shapes(tiny: Tiny, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, q, kv = tiny.hidden, tiny.n_heads * tiny.head_dim, tiny.n_kv_heads * tiny.head_dim
    if tiny.latent:
        q = tiny.n_heads * tiny.latent.value
        yield from _latent_shapes(tiny, tiny.latent)
    else:
        yield from {"attn_norm": (hidden,), "q": (q, hidden), "k": (kv, hidden), "v": (kv, hidden)}.items()
    if tiny.bias:
        yield from {"q_bias": (q,), "k_bias": (kv,), "v_bias": (kv,)}.items()
    if tiny.qk_norm:
        yield from {"q_norm": (tiny.head_dim,), "k_norm": (tiny.head_dim,)}.items()
    yield from {"o": (hidden, q), "ffn_norm": (hidden,)}.items()
    if tiny.biased:
        yield from {"out_bias": (hidden,), "sinks": (tiny.n_heads,)}.items()
    if tiny.sandwich:
        yield from {"attn_post_norm": (hidden,), "ffn_post_norm": (hidden,)}.items()
    if tiny.moe is not None and tiny.is_moe(layer):
        yield from _moe_shapes(tiny.moe, hidden)
        if tiny.biased:
            yield from _expert_bias_shapes(tiny.moe, hidden)
    else:
        yield from {"gate": (tiny.ffn, hidden), "up": (tiny.ffn, hidden), "down": (hidden, tiny.ffn)}.items()


def _latent_shapes(tiny: Tiny, latent: TinyLatent) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, heads = tiny.hidden, tiny.n_heads
    yield "attn_norm", (hidden,)
    if latent.q_rank:
        yield from {"q_a": (latent.q_rank, hidden), "q_a_norm": (latent.q_rank,)}.items()
    yield "q", (heads * (latent.nope + tiny.rope_dims), latent.q_rank or hidden)
    yield from {"kv_a": (latent.rank + tiny.rope_dims, hidden), "kv_a_norm": (latent.rank,)}.items()
    yield from {"k_b": (heads, latent.rank, latent.nope), "v_b": (heads, latent.value, latent.rank)}.items()


def _moe_shapes(moe: TinyMoe, hidden: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "router", (moe.n_experts, hidden)
    if moe.bias:
        yield "router_bias", (moe.n_experts,)
    yield "expert_gate", (moe.n_experts, moe.ffn, hidden)
    yield "expert_up", (moe.n_experts, moe.ffn, hidden)
    yield "expert_down", (moe.n_experts, hidden, moe.ffn)
    if moe.shared:
        width = moe.shared * moe.ffn
        yield from {
            "shared_gate": (width, hidden),
            "shared_up": (width, hidden),
            "shared_down": (hidden, width),
        }.items()


def _expert_bias_shapes(moe: TinyMoe, hidden: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "router_logit_bias", (moe.n_experts,)
    yield "expert_gate_bias", (moe.n_experts, moe.ffn)
    yield "expert_up_bias", (moe.n_experts, moe.ffn)
    yield "expert_down_bias", (moe.n_experts, hidden)


def make_weights(tiny: Tiny, seed: int = 1) -> Weights:
    """Random values for every role: norms about one, biases about zero, matrices that keep the scale."""
    rng = np.random.default_rng([seed, zlib.crc32(tiny.name.encode())])
    return {key: _values(rng, key[1], shape) for key, shape in shapes(tiny).items()}


def _values(rng: np.random.Generator, role: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = rng.standard_normal(shape, dtype=np.float32)
    if role.endswith("norm"):
        return np.float32(1) + np.float32(0.2) * noise
    if role.endswith("bias"):
        return np.float32(0.3) * noise
    return noise * np.float32(shape[-1] ** -0.5)


# ---- how they are stored ----

# Mixes of more than one quant: for most matrices, for values and down projections, for the LM head.
MIXES = {
    "Q4_0": ("Q4_0", "Q4_0", "Q6_K"),
    "MXFP4": ("Q8_0", "Q8_0", "Q8_0"),  # experts in it
    "Q4_K": ("Q4_K", "Q6_K", "Q6_K"),
    "Q5_K": ("Q5_K", "Q6_K", "Q6_K"),
}
# What replaces a quant whose blocks do not fit the columns.
_FALLBACK = {
    "Q2_K": "IQ4_NL",
    "Q3_K": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_FALLBACK |= dict.fromkeys(("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"), "IQ4_NL")
_FALLBACK |= dict.fromkeys(("TQ1_0", "TQ2_0"), "IQ4_NL")
_CAREFUL = ("v", "down", "expert_down")


def stored_quant(tiny: Tiny, mix: str, role: str, shape: tuple[int, ...]) -> str:
    """The type in which a mix (or a single quant) stores a role, much as the usual quantising tools choose it."""
    if role == "v" and tiny.qkv_fused:
        role = "q"
    if len(shape) == 1 or role == "router" or role.endswith("bias"):
        return "F32"
    most, careful, output = MIXES.get(mix, (mix, mix, mix))
    name = output if role == "output" else careful if role in _CAREFUL else most
    if mix == "MXFP4" and role.startswith("expert_"):
        name = mix
    return name if shape[-1] % quant_by_name(name).block_cols == 0 else _FALLBACK[name]


def after_storage(tiny: Tiny, weights: Weights, mix: str) -> Weights:
    """The values that a file of this mix stands for."""
    return {key: _stored(values, stored_quant(tiny, mix, key[1], values.shape)) for key, values in weights.items()}


def _stored(values: np.ndarray, quant_name: str) -> np.ndarray:
    quant = quant_by_name(quant_name)
    return dequantize(quant, quantize(quant, values))


# ---- the GGUF file ----


def write_tiny(path: Path | str, tiny: Tiny, weights: Weights, mix: str = "F32", more: Metadata | None = None) -> Path:
    """Write a checkpoint as a GGUF file in the types of `mix`, with more or other metadata."""
    return write_gguf(path, gguf_metadata(tiny) | (more or {}), tensors_of(tiny, weights, mix))


def tensors_of(tiny: Tiny, weights: Weights, mix: str = "F32") -> dict[str, tuple[np.ndarray, str]]:
    """The tensors of its file: values, and the type that they are stored in."""
    tensors = dict(_gguf_tensors(tiny, weights, mix))
    return tensors | _mtp_tensors(tiny, weights, mix) if tiny.mtp == "present" else tensors


def make_tiny(path: Path | str, name: str, mix: str = "F32", seed: int = 1) -> Path:
    """Write the checkpoint called `name` (see TINY); "-wide" after the name makes its rows wide enough for K-quants."""
    tiny = wide(TINY[name.removesuffix("-wide")]) if name.endswith("-wide") else TINY[name]
    return write_tiny(path, tiny, make_weights(tiny, seed), mix)


_NAMES = {
    "embed": "token_embd.weight",
    "output_norm": "output_norm.weight",
    "output": "output.weight",
    "attn_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "o": "attn_output.weight",
    "ffn_norm": "ffn_norm.weight",
    "attn_post_norm": "post_attention_norm.weight",
    "ffn_post_norm": "post_ffw_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "router": "ffn_gate_inp.weight",
    "router_bias": "exp_probs_b.bias",
    "expert_gate": "ffn_gate_exps.weight",
    "expert_up": "ffn_up_exps.weight",
    "expert_down": "ffn_down_exps.weight",
    "q_a": "attn_q_a.weight",
    "q_a_norm": "attn_q_a_norm.weight",
    "kv_a": "attn_kv_a_mqa.weight",
    "kv_a_norm": "attn_kv_a_norm.weight",
    "k_b": "attn_k_b.weight",
    "v_b": "attn_v_b.weight",
    "out_bias": "attn_output.bias",
    "sinks": "attn_sinks.weight",
    "router_logit_bias": "ffn_gate_inp.bias",
    "expert_gate_bias": "ffn_gate_exps.bias",
    "expert_up_bias": "ffn_up_exps.bias",
    "expert_down_bias": "ffn_down_exps.bias",
    "shared_gate": "ffn_gate_shexp.weight",
    "shared_up": "ffn_up_shexp.weight",
    "shared_down": "ffn_down_shexp.weight",
}


def _gguf_tensors(tiny: Tiny, weights: Weights, mix: str) -> Iterator[tuple[str, tuple[np.ndarray, str]]]:
    if tiny.llama3_factor:
        yield "rope_freqs.weight", (llama3_rope_divisors(tiny), "F32")
    for name, keys in tensor_names(tiny).items():
        parts = [_file_rows(tiny, role, weights[layer, role]) for layer, role in keys]
        values = np.concatenate(parts, axis=max(parts[0].ndim - 2, 0))
        yield name, (values, stored_quant(tiny, mix, keys[0][1], values.shape))


def tensor_names(tiny: Tiny) -> dict[str, list[Key]]:
    """The file's tensors, each with the layer and roles whose rows it holds, in order."""
    names: dict[str, list[Key]] = {}
    fused = _fused_names(tiny)
    for layer, role in shapes(tiny):
        name = fused.get(role) or _NAMES[role]
        if tiny.latent and tiny.latent.q_rank and role == "q":
            name = "attn_q_b.weight"
        if tiny.arch in {"glm4moe", "gpt-oss"} and role == "ffn_norm":
            name = "post_attention_norm.weight"
        names.setdefault(name if layer == OUTSIDE else f"blk.{layer}.{name}", []).append((layer, role))
    return names


def _fused_names(tiny: Tiny) -> dict[str, str]:
    """Roles that share a tensor with others, whose rows follow one another as roles do in `shapes`."""
    fused: dict[str, str] = {}
    if tiny.qkv_fused:
        fused |= dict.fromkeys(("q", "k", "v"), "attn_qkv.weight")
        fused |= dict.fromkeys(("q_bias", "k_bias", "v_bias"), "attn_qkv.bias")
    if tiny.arch in {"chatglm", "glm4"}:
        fused |= dict.fromkeys(("gate", "up"), "ffn_up.weight")
    if tiny.moe and tiny.moe.fused:
        fused |= dict.fromkeys(("expert_gate", "expert_up"), "ffn_gate_up_exps.weight")
    return fused


@dataclass(frozen=True)
class StoredTensor:
    """What a file's tensor table says of a tensor."""

    shape: tuple[int, ...]
    quant: Quant


def tensor_table(tiny: Tiny, mix: str = "F32") -> dict[str, StoredTensor]:
    """The tensor table of the checkpoint's file, without its values: also for models too large to make."""
    shape_of = shapes(tiny)
    table = (
        {"rope_freqs.weight": StoredTensor((tiny.rope_dims // 2,), quant_by_name("F32"))} if tiny.llama3_factor else {}
    )
    for name, keys in tensor_names(tiny).items():
        parts = [shape_of[key] for key in keys]
        row_axis = max(len(parts[0]) - 2, 0)
        shape = (*parts[0][:row_axis], sum(part[row_axis] for part in parts), *parts[0][row_axis + 1 :])
        table[name] = StoredTensor(shape, quant_by_name(stored_quant(tiny, mix, keys[0][1], shape)))
    return table


PERMUTED = frozenset({"granite", "granitemoe", "llama", "mistral3", "smollm3"})


def _file_rows(tiny: Tiny, role: str, values: np.ndarray) -> np.ndarray:
    """Files of llama and its like turn adjacent pairs: rows of a head alternate between its two halves."""
    n_heads = tiny.n_heads if role.startswith("q") else tiny.n_kv_heads
    if tiny.sections and role in {"q", "k", "q_bias", "k_bias"}:
        return _pairs_to_halves(values, n_heads, tiny.rope_dims)
    if tiny.arch not in PERMUTED or role not in {"q", "k"}:
        return values
    halves = values.reshape(n_heads, 2, tiny.head_dim // 2, -1)
    return halves.swapaxes(1, 2).reshape(values.shape)


def _pairs_to_halves(values: np.ndarray, n_heads: int, dims: int) -> np.ndarray:
    """Of the rotated rows of each head, the first of all pairs before the second of all."""
    heads = values.reshape(n_heads, -1, *values.shape[1:])
    return np.concatenate([heads[:, 0:dims:2], heads[:, 1:dims:2], heads[:, dims:]], axis=1).reshape(values.shape)


def _mtp_tensors(tiny: Tiny, weights: Weights, mix: str) -> dict[str, tuple[np.ndarray, str]]:
    """A block that predicts a further token: a copy of the last layer, and what feeds it."""
    last = f"blk.{tiny.n_layers - 1}."
    prefix = f"blk.{tiny.n_layers}."
    tensors = dict(_gguf_tensors(tiny, weights, mix))
    block = {prefix + n.removeprefix(last): tensor for n, tensor in tensors.items() if n.startswith(last)}
    rng = np.random.default_rng(tiny.hidden)
    feeds = rng.standard_normal((tiny.hidden, 2 * tiny.hidden), np.float32) / np.float32(np.sqrt(2 * tiny.hidden))
    block[prefix + "nextn.eh_proj.weight"] = (feeds, "F32")
    for name in ("enorm", "hnorm", "shared_head_norm"):
        block[f"{prefix}nextn.{name}.weight"] = (rng.uniform(0.5, 1.5, tiny.hidden).astype(np.float32), "F32")
    return block


def llama3_rope_divisors(tiny: Tiny) -> np.ndarray:
    """The rope_freqs.weight of a checkpoint with stretched frequencies."""
    return llama3_divisors(
        tiny.rope_dims,
        tiny.theta,
        factor=tiny.llama3_factor,
        low_factor=1.0,
        high_factor=4.0,
        original_context=ORIGINAL_CONTEXT,
    )


ORIGINAL_CONTEXT = 64  # before llama3 or yarn stretched it


def gguf_metadata(tiny: Tiny) -> Metadata:
    """The key-value pairs of a checkpoint's file."""
    mtp_blocks = 0 if tiny.mtp == "none" else 1
    keys: Metadata = {
        "block_count": tiny.n_layers + mtp_blocks,
        "context_length": tiny.context,
        "embedding_length": tiny.hidden,
        "feed_forward_length": tiny.ffn,
        "attention.head_count": tiny.n_heads,
        "attention.head_count_kv": tiny.n_kv_heads,
        "attention.key_length": tiny.head_dim,
        "attention.value_length": tiny.head_dim,
        "attention.layer_norm_rms_epsilon": tiny.eps,
        "rope.freq_base": tiny.theta,
        "rope.dimension_count": tiny.rope_dims,
    }
    if tiny.latent:
        keys |= _latent_metadata(tiny, tiny.latent)
    if tiny.yarn_factor:
        keys |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": tiny.yarn_factor,
            "rope.scaling.original_context_length": ORIGINAL_CONTEXT,
        }
    if tiny.yarn_magnitude:
        keys["rope.scaling.yarn_attn_factor"] = tiny.yarn_magnitude
    if tiny.yarn_multiplier:
        keys["rope.scaling.yarn_log_multiplier"] = tiny.yarn_multiplier * (0.1 if tiny.latent else 1.0)
    if tiny.window:
        keys["attention.sliding_window"] = tiny.window
    if tiny.temper:
        keys["attention.temperature_scale"] = tiny.temper
    if tiny.attention_scale:
        keys["attention.scale"] = tiny.attention_scale
    if tiny.arch.startswith("granite"):
        keys |= {f"{name}_scale": getattr(tiny, f"{name}_scale") for name in ("embedding", "residual", "logit")}
    if tiny.linear_factor:
        keys["rope.scale_linear"] = tiny.linear_factor  # as files of 2023 have it
    if tiny.sections:
        keys["rope.dimension_sections"] = np.array(tiny.sections, np.int32)
    if tiny.moe:
        keys |= _moe_metadata(tiny, tiny.moe)
    if mtp_blocks:
        keys["nextn_predict_layers"] = mtp_blocks
    named = {f"{tiny.arch}.{key}": value for key, value in keys.items() if key not in tiny.left_out}
    return {"general.architecture": tiny.arch, "general.name": f"tiny {tiny.name}", **named, **text_metadata(tiny.arch)}


def _latent_metadata(tiny: Tiny, latent: TinyLatent) -> Metadata:
    return {
        "attention.head_count_kv": 1,
        "attention.key_length": latent.rank + tiny.rope_dims,
        "attention.value_length": latent.rank,
        "attention.key_length_mla": latent.nope + tiny.rope_dims,
        "attention.value_length_mla": latent.value,
        "attention.kv_lora_rank": latent.rank,
        **({"attention.q_lora_rank": latent.q_rank} if latent.q_rank else {}),
    }


def _moe_metadata(tiny: Tiny, moe: TinyMoe) -> Metadata:
    if tiny.arch == "granitemoe":
        return {
            "expert_count": moe.n_experts,
            "expert_used_count": moe.top_k,
            "feed_forward_length": moe.ffn,
            "expert_shared_feed_forward_length": moe.shared * moe.ffn,
        }
    if tiny.arch == "gpt-oss":
        widths = {"feed_forward_length": moe.ffn, "expert_feed_forward_length": moe.ffn}
        return {**widths, "expert_count": moe.n_experts, "expert_used_count": moe.top_k}
    keys: Metadata = {
        "expert_count": moe.n_experts,
        "expert_used_count": moe.top_k,
        "expert_feed_forward_length": moe.ffn,
        "expert_weights_norm": moe.normalise,
        "expert_gating_func": 2 if moe.gating == "sigmoid" else 1,
    }
    if tiny.arch in {"deepseek2", "glm4moe"}:
        keys |= {
            "expert_shared_count": moe.shared,
            "leading_dense_block_count": moe.dense_layers,
            "expert_weights_scale": moe.scale,
        }
    if moe.n_group > 1:
        keys |= {"expert_group_count": moe.n_group, "expert_group_used_count": moe.top_group}
    return keys
