#!/usr/bin/env python3
"""Random models in the shapes of real ones, cut to a few layers, straight in quantised blocks: gigabytes in seconds.

    tools/bench/shapes.py                          list them
    tools/bench/shapes.py glm4-9b:Q4_0 --out DIR   write one
    tools/bench/shapes.py llama3-8b@2:Q4_0         two layers, and as little of the vocabulary as of the layers

The bytes are seeded noise with scales that keep activations at a usual size; the types of tensors follow the rules of
llama-quantize for the mix, with its fallbacks for rows that K-quants do not divide. Both engines run the same file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from gguf import ExpertGatingFuncType, GGMLQuantizationType, GGUFWriter

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from swarm.kernels.quants import Quant, quant_by_name  # noqa: E402

U8 = np.ndarray


@dataclass(frozen=True)
class Shape:
    """A model of `n_layers` layers; the real one has `real_layers`, which decides the mix of types."""

    arch: str
    n_layers: int
    real_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rope_dims: int
    theta: float = 10000.0
    n_experts: int = 0
    top_k: int = 0
    expert_ffn: int = 0
    shared: int = 0
    dense_layers: int = 0
    tied: bool = False
    mtp: bool = False  # a block more, that predicts further tokens

    @property
    def n_blocks(self) -> int:
        """Layers, and that block."""
        return self.n_layers + self.mtp


SHAPES = {
    "glm4-9b": Shape("glm4", 6, 40, 4096, 32, 2, 128, 13696, 151552, 64),
    "glm4.5-air": Shape(
        "glm4moe", 4, 46, 4096, 96, 8, 128, 10944, 151552, 64, 1e6, 128, 8, 1408, shared=1, dense_layers=1
    ),
    "glm4.5-air-mtp": Shape(
        "glm4moe", 2, 46, 4096, 96, 8, 128, 10944, 151552, 64, 1e6, 128, 8, 1408, shared=1, dense_layers=1, mtp=True
    ),
    "qwen3-30b-a3b": Shape("qwen3moe", 8, 48, 2048, 32, 4, 128, 6144, 151936, 128, 1e6, 128, 8, 768),
    "qwen3-0.6b": Shape("qwen3", 28, 28, 1024, 16, 8, 128, 3072, 151936, 128, 1e6, tied=True),
    "llama3-8b": Shape("llama", 6, 32, 4096, 32, 8, 128, 14336, 128256, 128, 5e5),
}
# Types of less than four bits, and with those of IQ4 what may be the type of all matrices but the LM head.
SMALL = ("Q3_K", "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ1_0", "TQ2_0")
ONE_TYPE = ("IQ4_NL", "IQ4_XS", *SMALL)
MIXES = ("Q4_0", "Q4_K_M", "Q8_0", *ONE_TYPE)
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", **dict.fromkeys(ONE_TYPE, "IQ4_NL")}
QK_NORM = ("qwen3", "qwen3moe")


def quant_for(shape: Shape, mix: str, name: str, layer: int, cols: int) -> Quant:
    """The type that llama-quantize gives a matrix."""
    if mix == "Q8_0":
        return quant_by_name("Q8_0")
    if name in ("output", "token_embd") and (name == "output" or shape.tied):
        wanted = "Q6_K"
    elif mix == "Q4_0" or mix in ONE_TYPE:
        wanted = mix
    else:
        more = shape.real_layers // 8 > layer or layer >= 7 * shape.real_layers // 8
        more = more or (layer - shape.real_layers // 8) % 3 == 2
        wanted = "Q6_K" if more and name in ("attn_v", "ffn_down", "ffn_down_exps", "ffn_down_shexp") else "Q4_K"
    quant = quant_by_name(wanted)
    return quant if cols % quant.block_cols == 0 else quant_by_name(FALLBACK[wanted])


def matrices(s: Shape) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """(name, layer, shape) of every matrix; layer -1 is outside layers."""
    yield "token_embd", -1, (s.vocab, s.hidden)
    q_width, kv_width = s.n_heads * s.head_dim, s.n_kv_heads * s.head_dim
    for i in range(s.n_blocks):
        for name, rows in (("attn_q", q_width), ("attn_k", kv_width), ("attn_v", kv_width)):
            yield name, i, (rows, s.hidden)
        yield "attn_output", i, (s.hidden, q_width)
        if s.n_experts and i >= s.dense_layers:
            yield from experts(s, i)
        elif s.arch == "glm4":
            yield "ffn_up", i, (2 * s.ffn, s.hidden)
            yield "ffn_down", i, (s.hidden, s.ffn)
        else:
            yield "ffn_gate", i, (s.ffn, s.hidden)
            yield "ffn_up", i, (s.ffn, s.hidden)
            yield "ffn_down", i, (s.hidden, s.ffn)
    if s.mtp:
        yield "nextn.eh_proj", s.n_layers, (s.hidden, 2 * s.hidden)
    if not s.tied:
        yield "output", -1, (s.vocab, s.hidden)


def experts(s: Shape, i: int) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """The matrices of a mixture."""
    yield "ffn_gate_exps", i, (s.n_experts, s.expert_ffn, s.hidden)
    yield "ffn_up_exps", i, (s.n_experts, s.expert_ffn, s.hidden)
    yield "ffn_down_exps", i, (s.n_experts, s.hidden, s.expert_ffn)
    if s.shared:
        yield "ffn_gate_shexp", i, (s.expert_ffn, s.hidden)
        yield "ffn_up_shexp", i, (s.expert_ffn, s.hidden)
        yield "ffn_down_shexp", i, (s.hidden, s.expert_ffn)


def vectors(s: Shape, i: int) -> dict[str, tuple[np.ndarray, str]]:
    """Norms, biases and routers of a layer: name -> (values, suffix)."""
    rng = np.random.default_rng([5, i])

    def noise(*shape: int, scale: float = 0.02, about: float = 0.0) -> np.ndarray:
        return (about + scale * rng.standard_normal(shape)).astype(np.float32)

    found = {"attn_norm": (noise(s.hidden, about=1), "weight")}
    post = "post_attention_norm"
    found[post if s.arch == "glm4moe" else "ffn_norm"] = (noise(s.hidden, about=1), "weight")
    if s.arch == "glm4":
        found[post] = (noise(s.hidden, about=1), "weight")
        found["post_ffw_norm"] = (noise(s.hidden, about=1), "weight")
    if s.arch in ("glm4", "glm4moe"):
        for name, heads in (("attn_q", s.n_heads), ("attn_k", s.n_kv_heads), ("attn_v", s.n_kv_heads)):
            found[name] = (noise(heads * s.head_dim), "bias")
    if s.arch in QK_NORM:
        found["attn_q_norm"] = (noise(s.head_dim, about=1), "weight")
        found["attn_k_norm"] = (noise(s.head_dim, about=1), "weight")
    if s.n_experts and i >= s.dense_layers:
        found["ffn_gate_inp"] = (noise(s.n_experts, s.hidden, scale=s.hidden**-0.5), "weight")
        if s.arch == "glm4moe":
            found["exp_probs_b"] = (noise(s.n_experts, scale=0.05), "bias")
    if i == s.n_layers:
        for name in ("enorm", "hnorm", "shared_head_norm"):
            found[f"nextn.{name}"] = (noise(s.hidden, about=1), "weight")
    return found


# Offsets of the half-precision scales in a block, and what they are: d times the usual |quant| is 1 / sqrt(cols).
SCALES = {
    "Q4_0": ((0, 1 / 4.6),),
    "Q8_0": ((0, 1 / 74.0),),
    "Q5_0": ((0, 1 / 9.2),),
    "Q4_K": ((0, 1 / 150.0), (2, 1 / 20.0)),
    "Q6_K": ((208, 1 / 1400.0),),
    "IQ4_NL": ((0, 1 / 66.0),),
    "IQ4_XS": ((0, 1 / 1220.0),),
    "Q3_K": ((108, 1 / 43.0),),
    "Q2_K": ((80, 1 / 12.0), (82, 1 / 8.0)),
    "IQ3_S": ((0, 1 / 157.0),),
    "IQ3_XXS": ((0, 1 / 166.0),),
    "IQ2_S": ((0, 1 / 57.0),),
    "IQ2_XS": ((0, 1 / 57.0),),
    "IQ2_XXS": ((0, 1 / 57.0),),
    "IQ1_S": ((0, 1 / 7.0),),
    "IQ1_M": ((48, 1 / 7.0),),
    "TQ1_0": ((52, 1.2),),
    "TQ2_0": ((64, 1.0),),
}


def noise_blocks(quant: Quant, rows: int, cols: int, seed: int) -> U8:
    """Seeded noise (rows, row_bytes) with sane scales; a large matrix repeats a run of 8192 rows."""
    rng = np.random.default_rng(seed)
    own = min(rows, 8192)
    n_blocks = own * cols // quant.block_cols
    blocks = np.frombuffer(rng.bytes(n_blocks * quant.block_bytes), np.uint8).reshape(n_blocks, -1).copy()
    if quant.name == "TQ2_0":  # no file has 3, and with it weights would not be about zero
        blocks &= ~((blocks & (blocks >> 1) & 0x55) << 1)
    for offset, unit in SCALES[quant.name]:
        scale = (unit * cols**-0.5 * rng.uniform(0.8, 1.2, n_blocks)).astype(np.float16)
        if quant.name == "IQ1_M":
            _put_in_pieces(blocks[:, offset : offset + 8], scale)
        else:
            blocks[:, offset : offset + 2] = scale.view(np.uint8).reshape(-1, 2)
    own_rows = blocks.reshape(own, -1)
    return np.resize(own_rows, (rows, own_rows.shape[1]))


def _put_in_pieces(scale_bytes: U8, d: np.ndarray) -> None:
    """The d of IQ1_M: four bits of it at the top of each of four words (n, 8 bytes)."""
    words = np.ascontiguousarray(scale_bytes).view("<u2") & 0x0FFF
    words |= (d.view(np.uint16)[:, None] >> np.array([0, 4, 8, 12], np.uint16) & 15) << 12
    scale_bytes[:] = words.view(np.uint8)


class Edit(Protocol):
    """What is to be different from noise."""

    def matrix(self, name: str, quant: Quant, rows: U8) -> None:
        """Change the stored rows (rows, row_bytes) of a matrix."""

    def vectors(self, layer: int, found: dict[str, tuple[np.ndarray, str]]) -> None:
        """Change what `vectors` gives for a layer."""

    def metadata(self, w: GGUFWriter) -> bool:
        """Add to the file's metadata; True when that was a tokenizer."""


def write_model(path: Path, shape: Shape, mix: str, edit: Edit | None = None) -> Path:
    """Write the model to `path`, unless it is there already; a tensor at a time is in memory."""
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    w = GGUFWriter(str(partial), shape.arch)
    add_metadata(w, shape)
    if edit is None or not edit.metadata(w):
        w.add_tokenizer_model("no_vocab")
    quants = [quant_for(shape, mix, name, layer, dims[-1]) for name, layer, dims in matrices(shape)]
    for quant, (name, layer, dims) in zip(quants, matrices(shape), strict=True):
        stored = (*dims[:-1], dims[-1] // quant.block_cols * quant.block_bytes)
        prefix, kind = f"blk.{layer}." if layer >= 0 else "", GGMLQuantizationType(quant.id)
        w.add_tensor_info(f"{prefix}{name}.weight", stored, np.dtype(np.uint8), int(np.prod(stored)), raw_dtype=kind)
    small = list(_vectors(shape, edit))
    for name, values in small:
        w.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for seed, (quant, (name, _, dims)) in enumerate(zip(quants, matrices(shape), strict=True)):
        rows = noise_blocks(quant, int(np.prod(dims[:-1])), dims[-1], seed)
        if edit is not None:
            edit.matrix(name, quant, rows)
        w.write_tensor_data(rows.reshape(*dims[:-1], -1))
    for _, values in small:
        w.write_tensor_data(values)
    w.close()
    partial.rename(path)
    return path


def _vectors(shape: Shape, edit: Edit | None) -> Iterator[tuple[str, np.ndarray]]:
    """Everything that is no quantised matrix, by its name in the file."""
    for i in range(shape.n_blocks):
        found = vectors(shape, i)
        if edit is not None:
            edit.vectors(i, found)
        for name, (values, suffix) in found.items():
            yield f"blk.{i}.{name}.{suffix}", values
    yield "output_norm.weight", np.ones(shape.hidden, np.float32)


def add_metadata(w: GGUFWriter, s: Shape) -> None:
    """What both engines need to know; no vocabulary, as both are fed ids."""
    w.add_name("random")
    w.add_block_count(s.n_blocks)
    if s.mtp:
        w.add_nextn_predict_layers(1)
    w.add_context_length(32768)
    w.add_embedding_length(s.hidden)
    w.add_feed_forward_length(s.ffn)
    w.add_head_count(s.n_heads)
    w.add_head_count_kv(s.n_kv_heads)
    w.add_key_length(s.head_dim)
    w.add_value_length(s.head_dim)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(s.rope_dims)
    w.add_rope_freq_base(s.theta)
    w.add_vocab_size(s.vocab)
    if s.n_experts:
        w.add_expert_count(s.n_experts)
        w.add_expert_used_count(s.top_k)
        w.add_expert_feed_forward_length(s.expert_ffn)
    if s.arch == "glm4moe":
        w.add_expert_shared_count(s.shared)
        w.add_leading_dense_block_count(s.dense_layers)
        w.add_expert_weights_scale(1.0)
        w.add_expert_weights_norm(True)
        w.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)


def model_file(spec: str, directory: Path) -> Path:
    """The file of NAME:MIX or NAME@LAYERS:MIX in `directory`, written when it is missing."""
    name, mix = spec.split(":")
    name, _, n_layers = name.partition("@")
    shape = cut(SHAPES[name], int(n_layers)) if n_layers else SHAPES[name]
    directory.mkdir(parents=True, exist_ok=True)
    return write_model(directory / f"{spec.replace(':', '-')}.gguf", shape, mix)


def cut(shape: Shape, n_layers: int) -> Shape:
    """A model of `n_layers` and that part of the vocabulary: attention keeps the share it has in the whole model."""
    vocab = shape.vocab * n_layers // shape.real_layers // 64 * 64
    return replace(shape, n_layers=n_layers, vocab=vocab)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="NAME:MIX or NAME@LAYERS:MIX")
    parser.add_argument("--out", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    args = parser.parse_args()
    if args.model is None:
        print("\n".join(f"{name}:{mix}" for name in SHAPES for mix in MIXES))
        return
    path = model_file(args.model, args.out)
    print(f"{path} {path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
