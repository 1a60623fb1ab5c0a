"""A checkpoint as training leaves it: a folder with config.json, safetensors files and a tokenizer.

The files may be broken or hostile: every offset, shape and type is checked before it is used. Tensors are mapped, and
read some rows at a time.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swarm.errors import BadModelFile, ModelNotFound, UnsupportedModel
from swarm.files import stamps
from swarm.limits import MAX_CONFIG_JSON_BYTES, MAX_SAFETENSORS_HEADER_BYTES, MAX_TOKENIZER_BYTES
from swarm.plain import printable

F32 = npt.NDArray[np.float32]
Config = Mapping[str, Any]

# How a file calls its types, and how NumPy reads them. BF16 is the upper half of a float.
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "U8": "u1"}


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of the checkpoint: where it lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    def floats(self, *index: int | slice | npt.NDArray[np.int64]) -> F32:
        """The values at this index, as NumPy has it: only these are read."""
        picked = np.frombuffer(self.data, DTYPES[self.dtype]).reshape(self.shape)[index]
        if self.dtype == "BF16":
            return (picked.astype(np.uint32) << 16).view(np.float32)
        return picked.astype(np.float32)

    def bytes_(self, *index: int | slice) -> npt.NDArray[np.uint8]:
        """The same of a tensor of bytes."""
        return np.frombuffer(self.data, np.uint8).reshape(self.shape)[index]


class Checkpoint:
    """An open folder: config, tensors by name, and the tokenizer's files. Made by `open_checkpoint`."""

    def __init__(
        self, folder: Path, config: Config, tensors: Mapping[str, SourceTensor], files: list[Path], name: str
    ) -> None:
        self.folder, self.config, self.tensors, self.files, self.name = folder, config, tensors, files, name

    @property
    def identity(self) -> str:
        """Another text for another folder, or for files that have changed."""
        return repr(stamps(self.files))

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; empty when it is not there."""
        path = self.folder / name
        return _read_json(path, MAX_TOKENIZER_BYTES) if path.exists() else {}

    def text(self, name: str) -> str | None:
        """A text file of the folder."""
        path = self.folder / name
        return _read(path, MAX_CONFIG_JSON_BYTES).decode("utf-8", "replace") if path.exists() else None


def open_checkpoint(folder: Path, name: str = "") -> Checkpoint:
    """Open a folder, of a model called `name` (as the folder is, where nobody says).

    Raise ModelNotFound, BadModelFile or UnsupportedModel for what is not a checkpoint.
    """
    if not folder.is_dir():
        raise ModelNotFound(f"{folder}: there is no such folder; give one with config.json and safetensors files")
    if not (folder / "config.json").exists():
        raise ModelNotFound(f"{folder}: there is no config.json; give the folder of a checkpoint, as the hub has it")
    files = list(_tensor_files(folder))
    tensors: dict[str, SourceTensor] = {}
    for file in files:
        for tensor in _read_tensors(file):
            if tensor.name in tensors:
                raise BadModelFile(f"{file}: tensor {tensor.name!r} is in another file, too; fetch the folder again")
            tensors[tensor.name] = tensor
    return Checkpoint(folder, read_config(folder), tensors, files, name or folder.resolve().name)


def read_config(folder: Path) -> Config:
    """config.json of a folder; of a model that also sees, with what it says of the text."""
    config = _read_json(folder / "config.json", MAX_CONFIG_JSON_BYTES)
    text = config.get("text_config", {})
    return {**config, **(text if isinstance(text, dict) else {}), "architectures": config.get("architectures")}


def _tensor_files(folder: Path) -> Iterator[Path]:
    """The safetensors files: those that the index names, or all that are there."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(_read_json(index, MAX_TOKENIZER_BYTES).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / Path(name).name).exists()]
        if missing:
            raise ModelNotFound(f"{folder}: {missing[0]} is missing, and {len(missing) - 1} more; fetch them first")
        yield from (folder / Path(name).name for name in names)
        return
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        other = next((p.name for p in sorted(folder.iterdir()) if p.suffix in (".bin", ".pt", ".pth")), None)
        hint = f"; {other} is of an older kind, which may run programs when it is opened" if other else ""
        raise ModelNotFound(f"{folder}: there are no safetensors files{hint}")
    yield from files


def _read_tensors(path: Path) -> Iterator[SourceTensor]:
    """The tensors of one file, checked."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise BadModelFile(f"{path}: it has {size} bytes; fetch it again")
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    (n_bytes,) = struct.unpack_from("<Q", mapped)
    if n_bytes > min(MAX_SAFETENSORS_HEADER_BYTES, size - 8):
        raise BadModelFile(f"{path}: its header would have {n_bytes} bytes; it is no safetensors file, or cut off")
    table = _parse_json(bytes(mapped[8 : 8 + n_bytes]), path)
    data = mapped[8 + n_bytes :]
    for name, entry in table.items():
        if name != "__metadata__":
            yield _tensor(path, name, entry, data)


def _tensor(path: Path, name: str, entry: Any, data: memoryview) -> SourceTensor:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        start, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadModelFile(f"{path}: the entry of tensor {name!r} makes no sense; fetch it again") from error
    if dtype not in DTYPES:
        raise UnsupportedModel(f"{path}: tensor {name!r} is {dtype}; Swarm converts from {', '.join(DTYPES)}")
    width = np.dtype(DTYPES[dtype]).itemsize
    if min(shape, default=1) < 0 or not 0 <= start <= end <= len(data) or end - start != math.prod(shape) * width:
        raise BadModelFile(f"{path}: tensor {name!r} does not lie in the file; fetch it again")
    return SourceTensor(name, dtype, shape, data[start:end])


def _read_json(path: Path, limit: int) -> dict[str, Any]:
    return _parse_json(_read(path, limit), path)


def _read(path: Path, limit: int) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise BadModelFile(f"{path}: it has {size} bytes, more than the {limit} of any such file")
    return path.read_bytes()


def _parse_json(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadModelFile(f"{path}: it is no JSON ({printable(str(error))}); fetch it again") from error
    if not isinstance(value, dict):
        raise BadModelFile(f"{path}: it is no JSON object; fetch it again")
    return value
