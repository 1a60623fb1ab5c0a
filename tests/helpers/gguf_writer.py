"""Writes GGUF files for tests, with the gguf package.

write_gguf(path, {"general.architecture": "llama", "llama.block_count": 2}, {"output.weight": (array, "Q4_K")})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np

from swarm.kernels.quants import quant_by_name
from tests.helpers.quantize import quantize

Metadata = Mapping[str, object]
Tensors = Mapping[str, tuple[np.ndarray, str]]

_TYPE_OF_DTYPE = {
    "uint8": gguf.GGUFValueType.UINT8,
    "int8": gguf.GGUFValueType.INT8,
    "uint16": gguf.GGUFValueType.UINT16,
    "int16": gguf.GGUFValueType.INT16,
    "uint32": gguf.GGUFValueType.UINT32,
    "int32": gguf.GGUFValueType.INT32,
    "uint64": gguf.GGUFValueType.UINT64,
    "int64": gguf.GGUFValueType.INT64,
    "float32": gguf.GGUFValueType.FLOAT32,
    "float64": gguf.GGUFValueType.FLOAT64,
    "bool": gguf.GGUFValueType.BOOL,
}


def write_gguf(path: Path | str, metadata: Metadata, tensors: Tensors) -> Path:
    """Write one file: `tensors` maps a name to float values in (rows, cols) order and the quant to store them in.

    Bytes are rows that are stored already. An int becomes uint32 (int32 when negative), a float float32; NumPy scalars
    and arrays keep their type.
    """
    path = Path(path)
    writer = gguf.GGUFWriter(path, arch="")
    writer.kv_data = [{}]
    writer.data_alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    for key, value in metadata.items():
        _add_value(writer, key, value)
    for name, (values, quant_name) in tensors.items():
        quant = quant_by_name(quant_name)
        raw = values if values.dtype == np.uint8 else quantize(quant, values)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType(quant.id))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return path


def write_header(path: Path | str, metadata: Metadata, shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> int:
    """Write the header of a model alone, with shape and quant of each tensor; return the bytes of the whole file."""
    writer = gguf.GGUFWriter(path, arch="")
    writer.kv_data = [{}]
    for key, value in metadata.items():
        _add_value(writer, key, value)
    n_bytes = 0
    for name, (shape, quant_name) in shapes.items():
        quant = quant_by_name(quant_name)
        size = int(np.prod([int(n) for n in shape[:-1]], dtype=np.int64)) * quant.row_bytes(shape[-1])
        kind = gguf.GGMLQuantizationType(quant.id)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
        n_bytes += -(-size // gguf.GGUF_DEFAULT_ALIGNMENT) * gguf.GGUF_DEFAULT_ALIGNMENT
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    header = Path(path).stat().st_size
    return -(-header // gguf.GGUF_DEFAULT_ALIGNMENT) * gguf.GGUF_DEFAULT_ALIGNMENT + n_bytes


def write_split_gguf(prefix: Path | str, metadata: Metadata, tensors: Tensors, n_files: int) -> list[Path]:
    """Write `prefix`-00001-of-0000N.gguf and so on, tensors dealt out in order, metadata in the first."""
    paths = []
    for number, names in enumerate(np.array_split(np.array(list(tensors), dtype=object), n_files)):
        split = {
            "split.no": np.uint16(number),
            "split.count": np.uint16(n_files),
            "split.tensors.count": np.int32(len(tensors)),
        }
        path = Path(f"{prefix}-{number + 1:05d}-of-{n_files:05d}.gguf")
        held = {name: tensors[name] for name in names}
        paths.append(write_gguf(path, {**metadata, **split} if number == 0 else split, held))
    return paths


def _add_value(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, np.generic):
        writer.add_key_value(key, value.item(), _TYPE_OF_DTYPE[value.dtype.name])
    elif isinstance(value, np.ndarray):
        sub_type = _TYPE_OF_DTYPE[value.dtype.name]
        writer.add_key_value(key, value.tolist(), gguf.GGUFValueType.ARRAY, sub_type=sub_type)
    elif isinstance(value, Sequence):
        sub_type = gguf.GGUFValueType.STRING if isinstance(value[0], str) else _scalar_type(value[0])
        writer.add_key_value(key, list(value), gguf.GGUFValueType.ARRAY, sub_type=sub_type)
    else:
        writer.add_key_value(key, value, _scalar_type(value))


def _scalar_type(value: object) -> gguf.GGUFValueType:
    if isinstance(value, bool):
        return gguf.GGUFValueType.BOOL
    if isinstance(value, int):
        return gguf.GGUFValueType.INT32 if value < 0 else gguf.GGUFValueType.UINT32
    assert isinstance(value, float), value
    return gguf.GGUFValueType.FLOAT32
