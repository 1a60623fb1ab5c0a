"""The default model in any type: zeros beside its columns, so that all rows are whole blocks, and ggml's own search.

SmolLM2-135M has 576 columns, which blocks of 256 do not divide. With as many zeros as make them 768, three more query
heads and one more key head, all of zeros, it computes the same function: a norm over more columns is the one over the
old, once its weights and its epsilon are made smaller. Importances, which the smallest types need, are mean squares of
what each matrix met on some text. The embedding, which is the LM head too, is Q8_0 in all of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np

from swarm.kernels.quants import dequantize, quant_by_name
from swarm.models.spec import TensorRef
from swarm.store.gguf import open_gguf
from tests.helpers.gguf_writer import write_gguf
from tests.helpers.numpy_decoder import NumpyDecoder
from tests.helpers.quality import NoLlama

HEAD, QUERIES_PER_KEY = 64, 3
HIDDEN, N_HEADS, N_KV_HEADS = 768, 12, 4
LEAST_IMPORTANCE = 1e-3  # of the mean: zeros must not count nothing, or the search divides by it
BESIDE = "Q8_0"  # what the embedding is stored in
PIECE_ROWS = 128  # quantised at once, by each thread

Values = Mapping[str, np.ndarray]


def widened(path: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Metadata and float tensors of the model with zeros beside its columns."""
    with open_gguf(path) as model:
        share = model.metadata["llama.embedding_length"] / HIDDEN
        metadata = dict(model.metadata) | {
            "llama.embedding_length": HIDDEN,
            "llama.attention.head_count": N_HEADS,
            "llama.attention.head_count_kv": N_KV_HEADS,
            "llama.attention.layer_norm_rms_epsilon": model.metadata["llama.attention.layer_norm_rms_epsilon"] * share,
        }
        tensors = {
            name: _widened(name, dequantize(entry.quant, model.raw(name)).reshape(entry.shape), share**0.5)
            for name, entry in model.tensors.items()
        }
    return metadata, tensors


def _widened(name: str, values: np.ndarray, norm_scale: float) -> np.ndarray:
    if values.ndim == 1:
        return np.pad(values * np.float32(norm_scale), (0, HIDDEN - len(values)))
    rows, cols = (_wide_length(name, axis, length) for axis, length in enumerate(values.shape))
    return np.pad(values, ((0, rows - values.shape[0]), (0, cols - values.shape[1])))


def _wide_length(name: str, axis: int, length: int) -> int:
    part = name.split(".")[-2]
    heads = {("attn_q", 0): N_HEADS, ("attn_k", 0): N_KV_HEADS, ("attn_v", 0): N_KV_HEADS, ("attn_output", 1): N_HEADS}
    if (part, axis) in heads:
        return heads[part, axis] * HEAD
    is_hidden = axis == (0 if part in ("attn_output", "ffn_down") else 1)
    return HIDDEN if is_hidden else length


class _Watching(NumpyDecoder):
    """Remembers the mean square of each column that a product meets, by the tensor's name and the number of columns."""

    def _seen_by(self, ref: TensorRef) -> Callable[[np.ndarray], np.ndarray]:
        self.squares: dict[tuple[str, int], np.ndarray] = getattr(self, "squares", {})

        def look(x: np.ndarray) -> np.ndarray:
            self.squares[ref.name, x.shape[-1]] = np.square(x, dtype=np.float32).mean(axis=0)
            return x

        return look


def importances(path: Path, ids: list[int]) -> dict[str, np.ndarray]:
    """How much each column of every matrix in layers counts on this text."""
    decoder = _Watching.open(path)
    decoder.logits(ids)
    found = {name: squares for (name, width), squares in decoder.squares.items() if width != HIDDEN or "attn" in name}
    for layer in range(decoder.spec.n_layers):
        before = decoder.squares[f"blk.{layer}.ffn_down.weight", HIDDEN]  # what gate and up meet
        found |= {f"blk.{layer}.ffn_{part}.weight": before for part in ("gate", "up")}
    return {name: squares + LEAST_IMPORTANCE * squares.mean() for name, squares in found.items()}


def write_requantized(
    path: Path, quant: str, metadata: Mapping[str, object], tensors: Values, important: Values
) -> Path:
    """Write the model with all matrices of layers in one type."""
    kinds = {name: _kind(name, values, quant) for name, values in tensors.items()}
    stored = {name: (ggml_quantized(kinds[name], tensors[name], important.get(name)), kinds[name]) for name in tensors}
    return write_gguf(path, metadata, stored)


def _kind(name: str, values: np.ndarray, quant: str) -> str:
    if values.ndim == 1 or quant == "F32":
        return "F32"
    return quant if name.startswith("blk.") else BESIDE


def ggml_quantized(quant: str, values: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Rows of a type as ggml's own search finds them; raise NoLlama where it is not installed."""
    values = np.ascontiguousarray(values, np.float32)
    if quant == "F32":
        return values
    kind, row_bytes = quant_by_name(quant).id, quant_by_name(quant).row_bytes(values.shape[1])
    out = np.empty((len(values), row_bytes), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)

    def piece(first: int) -> None:
        rows, found = values[first : first + PIECE_ROWS], out[first : first + PIECE_ROWS]
        counts = None if weights is None else weights.ctypes.data
        _ggml().ggml_quantize_chunk(kind, rows.ctypes.data, found.ctypes.data, 0, len(rows), rows.shape[1], counts)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(piece, range(0, len(values), PIECE_ROWS)))
    return out


@cache
def _ggml() -> ctypes.CDLL:
    found = find_spec("llama_cpp")
    if found is None or found.origin is None:
        raise NoLlama("llama-cpp-python is not installed: `make oracles`")
    library = ctypes.CDLL(str(Path(found.origin).parent / "lib" / "libggml-base.so"))
    numbers, pointer = ctypes.c_int64, ctypes.c_void_p
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, numbers, numbers, numbers, pointer]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    for quant in gguf.GGMLQuantizationType:  # before threads meet it
        if "IQ" in quant.name:
            library.ggml_quantize_init(int(quant))
    return library
