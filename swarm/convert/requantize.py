"""A GGUF file in other types: every tensor read as floats and stored anew, the metadata as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swarm.convert.output import Metadata, OutputTensor, Piece, Progress, Value, rows_of, write_model
from swarm.convert.types import F32, MIXES, U8, layer_of, quant_of
from swarm.errors import ConfigError
from swarm.files import stamps
from swarm.kernels.quants import Quant, dequantize
from swarm.limits import CONVERT_PIECE_BYTES
from swarm.store.gguf import GGUF
from swarm.store.gguf_header import GGUFTensor

ROUNDED_ONCE = 8  # bits: what is stored in fewer loses again when it is rounded again
AS_THEY_ARE = frozenset({"MXFP4"})  # what models were trained in, and loses in any other type of as few bits
QUANTIZATION_VERSION = 2
_NOT_OF_ONE_FILE = ("split.", "general.alignment")


def quantize_model(
    model: GGUF, mix: str, path: Path, *, again: bool = False, threads: int = 1, progress: Progress | None = None
) -> int:
    """Write `model` as a file of this mix (see MIXES); return the bytes that an earlier run had left.

    Raise ConfigError when most of it was rounded before, unless `again`.
    """
    if not again:
        refuse_rounded(model)
    tied, n_layers = "output.weight" not in model.tensors, 1 + max(map(layer_of, model.tensors), default=0)
    tensors = [
        _Recoded(model, tensor).output(quant_of(mix, tensor.name, tuple(tensor.shape), n_layers, tied=tied))
        for tensor in model.tensors.values()
    ]
    source = repr(stamps(model.split_files))
    return write_model(path, new_metadata(model, mix), tensors, source, threads=threads, progress=progress)


def refuse_rounded(model: GGUF) -> None:
    """ConfigError for a file most of whose weights have fewer than eight bits."""
    sizes: dict[str, int] = {}
    for tensor in model.tensors.values():
        if tensor.quant.name not in AS_THEY_ARE:
            sizes[tensor.quant.name] = sizes.get(tensor.quant.name, 0) + tensor.n_bytes
    most = max(sizes, key=lambda name: sizes[name], default="F32")
    bits = next(t.quant.block_bytes * 8 / t.quant.block_cols for t in model.tensors.values() if t.quant.name == most)
    if bits < ROUNDED_ONCE:
        raise ConfigError(
            f"{model.path} is mostly {most}: rounding it again loses more than rounding the original once; take a file "
            "in Q8_0, F16 or BF16, or say --again"
        )


def new_metadata(model: GGUF, mix: str) -> Metadata:
    """The metadata with the kind of file that it becomes."""
    kept: dict[str, Value] = {
        key: value for key, value in model.metadata.items() if not key.startswith(_NOT_OF_ONE_FILE)
    }
    kept["general.file_type"] = MIXES[mix].number
    kept["general.quantization_version"] = QUANTIZATION_VERSION
    return kept


@dataclass(frozen=True)
class _Recoded:
    """One tensor of the model, to be stored anew."""

    model: GGUF
    tensor: GGUFTensor

    def output(self, quant: Quant) -> OutputTensor:
        shape = tuple(self.tensor.shape)
        if self.tensor.quant.name in AS_THEY_ARE and quant.name != "F32":
            quant = self.tensor.quant
        rows = int(np.prod(shape[:-1], dtype=np.int64))
        read: Callable[[int, int], F32 | U8] = self._bytes if quant == self.tensor.quant else self._floats
        pieces: Sequence[Piece] = list(rows_of(read, rows, 4 * shape[-1], CONVERT_PIECE_BYTES))
        return OutputTensor(self.tensor.name, shape, quant, pieces)

    def _bytes(self, start: int, end: int) -> U8:
        raw = self.model.raw(self.tensor.name)
        return raw.reshape(-1, raw.shape[-1])[start:end]

    def _floats(self, start: int, end: int) -> F32:
        values = dequantize(self.tensor.quant, self._bytes(start, end))
        return values if len(self.tensor.shape) > 1 else values[0]
