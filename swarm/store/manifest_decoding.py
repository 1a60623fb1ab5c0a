"""A manifest that a peer sent: read, and refused unless it is exactly what this version of Swarm would have written."""

from __future__ import annotations

from typing import NoReturn

import msgpack

from swarm.errors import RemoteProtocolError
from swarm.kernels.quants import QUANTS
from swarm.limits import (
    MAX_CHUNK_BYTES,
    MAX_GGUF_HEADER_BYTES,
    MAX_GGUF_NAME_BYTES,
    MAX_GGUF_TENSORS,
    MAX_MANIFEST_BYTES,
    MAX_MANIFEST_CHUNKS,
    MAX_MANIFEST_NAMES_BYTES,
    MAX_NAME_BYTES,
    MAX_TENSOR_DIMENSION,
)
from swarm.store.manifest import DIGEST_BYTES, FORMAT, HEADER_STEP, ROW, ChunkedTensor, Cut, Manifest, place_bytes


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest that a peer sent; RemoteProtocolError for anything but a canonical one within the limits."""
    if len(data) > MAX_MANIFEST_BYTES:
        _fail(f"it has {len(data)} bytes, more than {MAX_MANIFEST_BYTES}")
    name, header_bytes, names, table, digests = _fields(data)
    if len(digests) % DIGEST_BYTES or len(digests) > MAX_MANIFEST_CHUNKS * DIGEST_BYTES:
        _fail(f"its digests take {len(digests)} bytes")
    tensor_names = names.split("\0") if names else []
    if len(tensor_names) > MAX_GGUF_TENSORS or len(table) != len(tensor_names) * ROW.size:
        _fail(f"it has {len(tensor_names)} names and a table of {len(table)} bytes")
    if len(set(tensor_names)) != len(tensor_names):
        _fail("a tensor occurs twice")
    n_chunks, tensors = -(-header_bytes // HEADER_STEP), []
    for tensor_name, row in zip(tensor_names, ROW.iter_unpack(table), strict=True):
        tensor = _checked_tensor(tensor_name, row, n_chunks)
        n_chunks += tensor.n_slabs * tensor.chunks_per_slab
        tensors.append(tensor)
    if n_chunks * DIGEST_BYTES != len(digests):
        _fail(f"it has {len(digests) // DIGEST_BYTES} digests for {n_chunks} chunks")
    manifest = Manifest(name, header_bytes, tuple(tensors), digests)
    if manifest.encoded != data:
        _fail("it is not in the canonical form")
    return manifest


def _fail(problem: str) -> NoReturn:
    raise RemoteProtocolError(f"a manifest is broken: {problem}")


def _fields(data: bytes) -> tuple[str, int, str, bytes, bytes]:
    """The five values after the format. Nested arrays, which could cost much memory, are not even looked at."""
    unpacker = msgpack.Unpacker(max_buffer_size=MAX_MANIFEST_BYTES, max_str_len=MAX_MANIFEST_NAMES_BYTES)
    unpacker.feed(data)
    try:
        if unpacker.read_array_header() != 6:
            _fail("it is not a list of six")
        values = [_scalar(unpacker, data) for _ in range(6)]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        _fail(f"{type(error).__name__}")
    if unpacker.tell() != len(data) or [type(value) for value in values] != [int, str, int, str, bytes, bytes]:
        _fail("its values have the wrong types")
    form, name, header_bytes, names, table, digests = values
    assert isinstance(form, int) and isinstance(name, str) and isinstance(header_bytes, int)
    assert isinstance(names, str) and isinstance(table, bytes) and isinstance(digests, bytes)
    if form != FORMAT:
        _fail(f"its format is {form}, and this version of Swarm reads {FORMAT}")
    if len(name.encode()) > MAX_NAME_BYTES or not name.isprintable():
        _fail("its name is not one short line")
    if not 0 <= header_bytes <= MAX_GGUF_HEADER_BYTES:
        _fail(f"it has a header of {header_bytes} bytes")
    return name, header_bytes, names, table, digests


def _scalar(unpacker: msgpack.Unpacker, data: bytes) -> object:
    position = unpacker.tell()
    lead = data[position] if position < len(data) else 0xC1
    # msgpack's positive integers, texts and byte strings; not maps, arrays, floats, nil and extensions.
    if not (
        lead < 0x80 or 0xA0 <= lead <= 0xBF or 0xC4 <= lead <= 0xC6 or 0xCC <= lead <= 0xCF or 0xD9 <= lead <= 0xDB
    ):
        _fail(f"a value begins with {lead:#x}")
    return unpacker.unpack()


def _checked_tensor(name: str, row: tuple[int, ...], first_chunk: int) -> ChunkedTensor:
    type_id, cut, step, n_dims, *dims = row
    shape, rest = tuple(dims[:n_dims]), dims[n_dims:]
    if not name or len(name.encode()) > MAX_GGUF_NAME_BYTES:
        _fail("a tensor name is empty or too long")
    if type_id not in QUANTS or cut not in (Cut.ROWS, Cut.COLUMNS) or not 1 <= n_dims <= 4 or any(rest):
        _fail(f"tensor {name!r} has a bad type, cut or number of dimensions")
    quant = QUANTS[type_id]
    if not all(1 <= size <= MAX_TENSOR_DIMENSION for size in shape) or shape[-1] % quant.block_cols:
        _fail(f"tensor {name!r} has bad dimensions")
    tensor = ChunkedTensor(name, quant, shape, Cut(cut), step, first_chunk)
    longest = tensor.rows if tensor.cut is Cut.ROWS else shape[-1]
    if not 1 <= step <= longest or (tensor.cut is Cut.COLUMNS and step % quant.block_cols):
        _fail(f"tensor {name!r} is cut every {step}")
    if place_bytes(tensor.place(first_chunk)) > MAX_CHUNK_BYTES:
        _fail(f"tensor {name!r} has chunks of more than {MAX_CHUNK_BYTES} bytes")
    if first_chunk + tensor.n_slabs * tensor.chunks_per_slab > MAX_MANIFEST_CHUNKS:
        _fail(f"it has more than {MAX_MANIFEST_CHUNKS} chunks")
    return tensor
