"""A checkpoint as a GGUF file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swarm.convert.checkpoint import Checkpoint
from swarm.convert.checkpoint_keys import Fields, Keys, architecture_of, keys_of
from swarm.convert.checkpoint_tensors import output_tensors
from swarm.convert.checkpoint_text import text_keys
from swarm.convert.output import Progress, write_model
from swarm.convert.requantize import QUANTIZATION_VERSION
from swarm.convert.types import MIXES
from swarm.kernels.quants import Quant
from swarm.models import spec_from_gguf


@dataclass(frozen=True)
class _Entry:
    """A line of the tensor table to be."""

    shape: tuple[int, ...]
    quant: Quant


def convert_checkpoint(
    checkpoint: Checkpoint, mix: str, path: Path, *, threads: int = 1, progress: Progress | None = None
) -> int:
    """Write the file; return the bytes that an earlier run had left.

    Before the first byte the declaration of its family has accepted it, with every key and tensor: BadModelFile or
    UnsupportedModel otherwise.
    """
    tensors = output_tensors(checkpoint, mix)
    metadata = metadata_of(checkpoint, mix)
    spec_from_gguf(metadata, {tensor.name: _Entry(tensor.shape, tensor.quant) for tensor in tensors})
    return write_model(path, metadata, tensors, checkpoint.identity, threads=threads, progress=progress)


def metadata_of(checkpoint: Checkpoint, mix: str) -> Keys:
    """All keys of the file."""
    arch = architecture_of(checkpoint.config)
    keys: Keys = {
        "general.architecture": arch,
        "general.type": "model",
        "general.name": checkpoint.name,
        "general.file_type": MIXES[mix].number,
        "general.quantization_version": QUANTIZATION_VERSION,
    }
    keys |= {f"{arch}.{key}": value for key, value in keys_of(checkpoint.config).items()}
    return keys | text_keys(checkpoint, arch, Fields(checkpoint.config).whole("vocab_size"))
