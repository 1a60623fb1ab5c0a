#!/usr/bin/env python3
"""Turns a dense llama GGUF file into a glm4moe one, a mixture of experts, that computes the same function.

So there is a model with real weights, whose text a person can judge, for all that has to do with experts: routing,
slicing them over devices, keeping some of them in memory. How it is the same function:

- The feed-forward of a layer is cut into eight slices of its columns. Slice 0 becomes the shared expert. Slices 1 to 7
  become experts, and each is stored `--copies` times: expert 7 * copy + slice - 1.
- The seven experts of one copy have one router row, and one correction bias, in common. So the best seven are always
  the seven slices of one copy, and which copy it is depends on the token. Their weights are equal: a seventh each,
  times a scale of seven.
- Layer 0 stays dense, as the first layers of this family do. Query and key rows go back to the order of halves.

Quantised blocks are moved and never changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

N_SLICES = 8
N_ROUTED = N_SLICES - 1  # slices that are routed to; the other one is shared
BIAS_SPREAD = 0.05  # makes some copies more popular than others, as in trained models

Quant = gguf.GGMLQuantizationType


@dataclass(frozen=True)
class Stored:
    """Rows of a tensor as the file stores them: uint8 (rows, row_bytes), or float32 for vectors and routers."""

    data: np.ndarray
    quant: Quant


class DenseModel:
    """A dense llama file, read."""

    def __init__(self, path: Path) -> None:
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: Stored(tensor.data, tensor.tensor_type) for tensor in self.reader.tensors}
        architecture = self.reader.fields["general.architecture"].contents()
        if architecture != "llama" or self.key("expert_count", 0) or "rope_freqs.weight" in self.tensors:
            raise SystemExit(f"{path}: not a dense llama model with plain rotary frequencies")
        self.n_layers = self.key("block_count")
        self.hidden = self.key("embedding_length")
        self.ffn = self.key("feed_forward_length")
        self.n_heads = self.key("attention.head_count")
        self.n_kv_heads = self.key("attention.head_count_kv", self.n_heads)
        self.head_dim = self.key("attention.key_length", self.hidden // self.n_heads)
        self._check_slices(path)

    def key(self, name: str, default: object = None):
        """The metadata value llama.NAME."""
        found = self.reader.fields.get(f"llama.{name}")
        return default if found is None else found.contents()

    def layer(self, layer: int, name: str) -> Stored:
        """A tensor of a layer."""
        return self.tensors[f"blk.{layer}.{name}.weight"]

    def _check_slices(self, path: Path) -> None:
        down = self.layer(0, "ffn_down").quant
        block = gguf.GGML_QUANT_SIZES[down][0]
        if self.ffn % (N_SLICES * block):
            raise SystemExit(
                f"{path}: {self.ffn} columns in blocks of {block} ({down.name}) do not make {N_SLICES} slices"
            )


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense", type=Path, help="a dense llama GGUF file")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--copies", type=int, default=8, help="copies of each expert (default 8: 56 experts, 7 used)")
    parser.add_argument("--seed", type=int, default=1, help="of the routers (default 1)")
    arguments = parser.parse_args()
    if not 1 <= arguments.copies <= 128:
        raise SystemExit(f"--copies is {arguments.copies}: must be 1 to 128")
    upcycle(arguments.dense, arguments.out, arguments.copies, arguments.seed)


def upcycle(dense: Path, out: Path, copies: int = 8, seed: int = 1) -> None:
    """Write the mixture that computes what the dense model does."""
    model = DenseModel(dense)
    writer = gguf.GGUFWriter(out, "glm4moe")
    write_metadata(writer, model, copies)
    for name, stored in mixture_tensors(model, copies, np.random.default_rng(seed)):
        writer.add_tensor(name, np.ascontiguousarray(stored.data), raw_dtype=stored.quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_metadata(writer: gguf.GGUFWriter, model: DenseModel, copies: int) -> None:
    """The shape of the mixture, and the dense model's tokenizer as it is."""
    writer.add_name("mixture of " + (model.reader.fields["general.name"].contents() or "a dense model"))
    writer.add_block_count(model.n_layers)
    writer.add_context_length(model.key("context_length"))
    writer.add_embedding_length(model.hidden)
    writer.add_feed_forward_length(model.ffn)
    writer.add_head_count(model.n_heads)
    writer.add_head_count_kv(model.n_kv_heads)
    writer.add_key_length(model.head_dim)
    writer.add_value_length(model.head_dim)
    writer.add_layer_norm_rms_eps(model.key("attention.layer_norm_rms_epsilon"))
    writer.add_rope_freq_base(model.key("rope.freq_base", 10000.0))
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_expert_count(N_ROUTED * copies)
    writer.add_expert_used_count(N_ROUTED)
    writer.add_expert_shared_count(1)
    writer.add_expert_feed_forward_length(model.ffn // N_SLICES)
    writer.add_expert_weights_scale(float(N_ROUTED))
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_leading_dense_block_count(1)
    for name, found in model.reader.fields.items():
        if name.startswith("tokenizer.") or name in {"general.file_type", "general.quantization_version"}:
            sub_type = found.types[-1] if found.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, found.contents(), found.types[0], sub_type=sub_type)


def mixture_tensors(model: DenseModel, copies: int, rng: np.random.Generator) -> Iterator[tuple[str, Stored]]:
    """The tensors of the mixture, by name."""
    for name in ("token_embd.weight", "output_norm.weight", "output.weight"):
        if name in model.tensors:
            yield name, model.tensors[name]
    for layer in range(model.n_layers):
        block = f"blk.{layer}."
        for name, stored in attention_tensors(model, layer):
            yield block + name, stored
        feed_forward = dense_tensors(model, layer) if layer == 0 else expert_tensors(model, layer, copies, rng)
        for name, stored in feed_forward:
            yield block + name, stored


def attention_tensors(model: DenseModel, layer: int) -> Iterator[tuple[str, Stored]]:
    """Attention and both norms; this family calls the second one post_attention_norm, and has biases (here zero)."""
    yield "attn_norm.weight", model.layer(layer, "attn_norm")
    yield "post_attention_norm.weight", model.layer(layer, "ffn_norm")
    yield "attn_output.weight", model.layer(layer, "attn_output")
    for name, n_heads in (("attn_q", model.n_heads), ("attn_k", model.n_kv_heads), ("attn_v", model.n_kv_heads)):
        stored = model.layer(layer, name)
        yield f"{name}.weight", stored if name == "attn_v" else halves_from_pairs(stored, n_heads)
        yield f"{name}.bias", Stored(np.zeros(n_heads * model.head_dim, np.float32), Quant.F32)


def halves_from_pairs(stored: Stored, n_heads: int) -> Stored:
    """Rows whose rotated partners are neighbours, put so that partners are half a head apart."""
    rows = stored.data.reshape(n_heads, -1, 2, stored.data.shape[-1])
    return Stored(rows.swapaxes(1, 2).reshape(stored.data.shape), stored.quant)


def dense_tensors(model: DenseModel, layer: int) -> Iterator[tuple[str, Stored]]:
    """A feed-forward network as it was."""
    for name in ("ffn_gate", "ffn_up", "ffn_down"):
        yield f"{name}.weight", model.layer(layer, name)


def expert_tensors(
    model: DenseModel, layer: int, copies: int, rng: np.random.Generator
) -> Iterator[tuple[str, Stored]]:
    """A feed-forward network in slices: one shared, the others as experts, and a router that takes whole copies."""
    for name in ("ffn_gate", "ffn_up", "ffn_down"):
        stored = model.layer(layer, name)
        slices = sliced_columns(stored) if name == "ffn_down" else sliced_rows(stored)
        yield f"{name}_shexp.weight", Stored(slices[0], stored.quant)
        yield f"{name}_exps.weight", Stored(np.tile(slices[1:], (copies, 1, 1)), stored.quant)
    router = rng.standard_normal((copies, model.hidden)) * model.hidden**-0.5
    yield "ffn_gate_inp.weight", Stored(np.repeat(router.astype(np.float32), N_ROUTED, axis=0), Quant.F32)
    bias = rng.standard_normal(copies) * BIAS_SPREAD
    yield "exp_probs_b.bias", Stored(np.repeat(bias.astype(np.float32), N_ROUTED), Quant.F32)


def sliced_rows(stored: Stored) -> np.ndarray:
    """(slices, rows / slices, row bytes) of a gate or up matrix."""
    return stored.data.reshape(N_SLICES, -1, stored.data.shape[-1])


def sliced_columns(stored: Stored) -> np.ndarray:
    """(slices, rows, row bytes / slices) of a down matrix, whose rows are whole blocks in each slice."""
    return stored.data.reshape(len(stored.data), N_SLICES, -1).swapaxes(0, 1)


if __name__ == "__main__":
    sys.exit(main())
