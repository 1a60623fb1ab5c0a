"""The header of a GGUF file: metadata and tensor table, checked before use.

Bytes in, a GGUFHeader out; no files here. Format (little endian), from ggml's docs/gguf.md:

    "GGUF"  u32 version  u64 n_tensors  u64 n_keys
    n_keys    x  string key, u32 value type, value     (array: u32 item type, u64 count, items)
    n_tensors x  string name, u32 n_dims, u64 dims[n_dims] (columns first), u32 ggml_type, u64 offset
    padding to general.alignment (default 32), then the tensors' data

A string is u64 length and UTF-8 bytes. Nothing is allocated by a count that the file claims: large values are only
measured here, and decoded when somebody asks for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from swarm.errors import BadModelFile, UnsupportedQuant
from swarm.kernels.quants import QUANTS, Quant, why_refused
from swarm.limits import MAX_GGUF_METADATA, MAX_GGUF_TENSORS, MAX_TENSOR_DIMENSION
from swarm.plain import printable
from swarm.store.gguf_cursor import Cursor, FileBytes
from swarm.store.gguf_metadata import Metadata, read_metadata

MAX_DIMS = 4
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 64 * 1024

_BIG_ENDIAN = "it is a big-endian GGUF file; convert the model again on a little-endian machine"

# What files that are not GGUF begin with, and what to tell their owner.
_OTHER_FILES = (
    (b"<", "it is a web page, not a model: the download failed; fetch it again"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the model: run `git lfs pull` or fetch the file itself"),
    (b"FUGG", _BIG_ENDIAN),
    (b"lmgg", "it is in the old GGML format; convert the model again to GGUF"),
    (b"fmgg", "it is in the old GGMF format; convert the model again to GGUF"),
    (b"tjgg", "it is in the old GGJT format; convert the model again to GGUF"),
    (b"PK\x03\x04", "it is a zip archive (or a PyTorch file); unpack it, or convert the model to GGUF"),
    (b"\x1f\x8b", "it is compressed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; unpack it first"),
    (b'{"', "it is a JSON text, not a model; fetch it again"),
)


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor of the file: shape in NumPy order (rows ..., columns), `offset` from the start of its split file."""

    name: str
    shape: tuple[int, ...]
    quant: Quant
    split: int  # the number of its split file, from 0
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class GGUFHeader:
    """What one GGUF file says about itself."""

    version: int
    alignment: int
    metadata: Metadata
    tensors: tuple[GGUFTensor, ...]
    metadata_end: int
    data_start: int


@dataclass(frozen=True)
class _TableRow:
    """A line of the tensor table, as the file has it; offset from the start of the data."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


def parse_header(data: FileBytes, where: str, split: int = 0, file_bytes: int | None = None) -> GGUFHeader:
    """Read the header at the start of `data`, the whole file; `where` names the file in errors.

    Of a file that is elsewhere, `data` may be the beginning and `file_bytes` its length: HeaderCut asks for more of it.
    Raise BadModelFile naming the field that is wrong, UnsupportedQuant naming the tensor.
    """
    cursor = Cursor(data, where, file_bytes)
    version = _read_version(cursor)
    n_tensors = cursor.count("number of tensors", MAX_GGUF_TENSORS, item_bytes=32)
    n_keys = cursor.count("number of metadata keys", MAX_GGUF_METADATA, item_bytes=13)
    metadata = read_metadata(cursor, n_keys)
    metadata_end = cursor.position
    alignment = _alignment(cursor, metadata)
    entries = [_read_entry(cursor, number) for number in range(n_tensors)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors = tuple(_tensor(cursor, entry, data_start, alignment, split) for entry in entries)
    _check_table(cursor, tensors)
    return GGUFHeader(version, alignment, metadata, tensors, metadata_end, data_start)


def parse_metadata(data: FileBytes, where: str) -> Metadata:
    """Read the metadata alone, from a file of which only the first `metadata_end` bytes are there."""
    cursor = Cursor(data, where)
    _read_version(cursor)
    cursor.u64("number of tensors")
    return read_metadata(cursor, cursor.count("number of metadata keys", MAX_GGUF_METADATA, item_bytes=13))


def _read_version(cursor: Cursor) -> int:
    if cursor.data[:4] != b"GGUF":
        _fail_other_file(cursor)
    cursor.skip(4, "magic")
    version = cursor.u32("version")
    if version in (2, 3):
        return version
    if version and version & 0xFFFF == 0:
        raise BadModelFile(f"{cursor.where}: {_BIG_ENDIAN}")
    raise BadModelFile(
        f"{cursor.where}: version: GGUF {version} is not supported, only 2 and 3; convert the model again"
    )


def _fail_other_file(cursor: Cursor) -> None:
    beginning = cursor.data[:64]
    text = beginning.lstrip(b"\xef\xbb\xbf \t\r\n")
    for prefix, meaning in _OTHER_FILES:
        if text.startswith(prefix):
            raise BadModelFile(f"{cursor.where}: {meaning}")
    if not beginning.strip(b"\0"):
        cursor.fail("magic", "it begins with zeros, as a download does that was not finished")
    cursor.fail("magic", f"it begins with {beginning[:4]!r}, not with GGUF")


def _alignment(cursor: Cursor, metadata: Metadata) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or not 8 <= value <= MAX_ALIGNMENT or value & (value - 1):
        shown = value if isinstance(value, (bool, int, float)) else "its value"
        cursor.fail("general.alignment", f"{shown} is not a power of two from 8 to {MAX_ALIGNMENT}")
    return value


def _read_entry(cursor: Cursor, number: int) -> _TableRow:
    name = cursor.name(f"name of tensor {number}")
    n_dims = cursor.u32(f"number of dimensions of tensor {name!r}")
    if not 1 <= n_dims <= MAX_DIMS:
        cursor.fail(f"number of dimensions of tensor {name!r}", f"{n_dims} is not 1 to {MAX_DIMS}")
    dims = tuple(cursor.u64(f"dimensions of tensor {name!r}") for _ in range(n_dims))
    return _TableRow(name, dims[::-1], cursor.u32(f"type of tensor {name!r}"), cursor.u64(f"offset of tensor {name!r}"))


def _tensor(cursor: Cursor, entry: _TableRow, data_start: int, alignment: int, split: int) -> GGUFTensor:
    """Check one line of the table on its own."""
    quant = QUANTS.get(entry.type_id)
    if quant is None:
        raise UnsupportedQuant(
            f"{cursor.where}: tensor {printable(entry.name)} is stored as {why_refused(entry.type_id)}"
        )
    n_bytes = _checked_bytes(cursor, entry, quant)
    if entry.offset % alignment:
        cursor.fail(
            f"offset of tensor {entry.name!r}", f"{entry.offset} is not a multiple of the alignment {alignment}"
        )
    start = data_start + entry.offset
    if start + n_bytes > cursor.file_bytes:
        cursor.fail(
            f"data of tensor {entry.name!r}", f"it ends at byte {start + n_bytes}, the file at {cursor.file_bytes}"
        )
    return GGUFTensor(entry.name, entry.shape, quant, split, start, n_bytes)


def _checked_bytes(cursor: Cursor, entry: _TableRow, quant: Quant) -> int:
    """The size that the dimensions give. Python's integers do not overflow."""
    field = f"dimensions of tensor {entry.name!r}"
    for size in entry.shape:
        if not 1 <= size <= MAX_TENSOR_DIMENSION:
            cursor.fail(field, f"{list(entry.shape)} has {size}, which is not 1 to {MAX_TENSOR_DIMENSION}")
    n_cols = entry.shape[-1]
    if n_cols % quant.block_cols:
        cursor.fail(field, f"rows of {n_cols} are not whole {quant.name} blocks of {quant.block_cols}")
    n_bytes = quant.row_bytes(n_cols)
    for size in entry.shape[:-1]:
        n_bytes *= size
    return n_bytes


def _check_table(cursor: Cursor, tensors: tuple[GGUFTensor, ...]) -> None:
    """Names are unique and no two tensors share bytes."""
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            cursor.fail(f"tensor {tensor.name!r}", "the name occurs twice")
        names.add(tensor.name)
    for before, after in pairwise(sorted(tensors, key=lambda tensor: tensor.offset)):
        if before.offset + before.n_bytes > after.offset:
            cursor.fail(f"offset of tensor {after.name!r}", f"its data overlaps that of {before.name!r}")
