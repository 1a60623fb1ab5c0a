"""A model that several devices bring together: which ranges of which files are which of its chunks.

The manifest of such a model is planned from its header: every chunk has its number and its place, only the hashes are
not known before the bytes have come. A **unit** is a range of a file that holds whole chunks: a run of rows, or whole
slabs of a tensor that is cut by columns. Units are what devices share out; bytes in, values out, no files here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import msgpack
import numpy as np
from blake3 import blake3

from swarm.errors import RemoteProtocolError
from swarm.limits import MAX_MANIFEST_CHUNKS, MAX_SPLIT_FILES, UNIT_BYTES
from swarm.store.gguf_header import GGUFTensor
from swarm.store.manifest import (
    DIGEST_BYTES,
    FORMAT,
    HEADER_STEP,
    ROW,
    ChunkedTensor,
    Cut,
    Manifest,
    plan_chunks,
    table_of,
)
from swarm.store.manifest_decoding import decode_manifest
from swarm.store.variants import RepoFile
from swarm.wire.ids import ModelId

_PLACE = struct.Struct("<IQ")  # of a tensor: the number of its file, and where it begins there
_FORMAT = 1


@dataclass(frozen=True)
class FileUnit:
    """Bytes [start, end) of one file, which are these chunks."""

    file: int
    start: int
    end: int
    chunks: range


@dataclass(frozen=True)
class PullPlan:
    """Where a model lies, and how its files become chunks. Devices with the same plan have the same id."""

    repository: str
    commit: str
    files: tuple[RepoFile, ...]
    manifest: Manifest  # with zeros for hashes
    places: tuple[tuple[int, int], ...]  # of each tensor: file, and offset there

    @cached_property
    def encoded(self) -> bytes:
        files = [[file.path, file.n_bytes, file.sha256] for file in self.files]
        names = "\0".join(tensor.name for tensor in self.manifest.tensors)
        places = b"".join(_PLACE.pack(*place) for place in self.places)
        table = table_of(self.manifest.tensors)
        head = [self.manifest.name, self.manifest.header_bytes, names, table, places]
        return bytes(msgpack.packb([_FORMAT, self.repository, self.commit, files, *head]))

    @cached_property
    def id(self) -> ModelId:
        return ModelId(blake3(self.encoded).hexdigest())

    @cached_property
    def units(self) -> tuple[FileUnit, ...]:
        """Everything but the header, in the order of the chunks."""
        pairs = zip(self.manifest.tensors, self.places, strict=True)
        return tuple(unit for tensor, (file, offset) in pairs for unit in _units_of(tensor, file, offset))

    def cut(self, unit: FileUnit, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The chunks of a unit's bytes, each with its number."""
        tensor = self.manifest.tensor_of(unit.chunks.start)
        assert tensor is not None and len(data) == unit.end - unit.start
        first = tensor.place(unit.chunks.start)
        if tensor.cut is Cut.ROWS:
            start = tensor.offset(unit.chunks.start)
            for chunk in unit.chunks:
                offset = tensor.offset(chunk) - start
                yield chunk, data[offset : offset + int(self.manifest.chunk_sizes[chunk])]
            return
        slabs = np.frombuffer(data, np.uint8).reshape(-1, tensor.rows, tensor.row_bytes)
        for chunk in unit.chunks:
            slab, _, _, byte0, byte1 = tensor.place(chunk)
            yield chunk, np.ascontiguousarray(slabs[slab - first.slab, :, byte0:byte1]).tobytes()


def plan_pull(
    name: str,
    repository: str,
    commit: str,
    files: tuple[RepoFile, ...],
    *,
    header_bytes: int,
    tensors: Mapping[str, GGUFTensor],
) -> PullPlan:
    """The plan of a model of which the headers were read. Raise BadModelFile for a row too long to travel."""
    n_chunks = -(-header_bytes // HEADER_STEP)
    chunked: list[ChunkedTensor] = []
    for tensor in tensors.values():
        chunked.append(plan_chunks(tensor.name, tensor.quant, tensor.shape, n_chunks))
        n_chunks += len(chunked[-1].chunks)
    manifest = Manifest(name, header_bytes, tuple(chunked), bytes(n_chunks * DIGEST_BYTES))
    places = tuple((tensor.split, tensor.offset) for tensor in tensors.values())
    return PullPlan(repository, commit, files, manifest, places)


def decode_plan(data: bytes) -> PullPlan:
    """Read a plan that a peer sent; RemoteProtocolError for anything but one that makes sense."""
    try:
        form, repository, commit, files, name, header_bytes, names, table, places = msgpack.unpackb(
            data, max_array_len=MAX_SPLIT_FILES + 9
        )
        n_chunks = _count(table, header_bytes)
        zeros = bytes(n_chunks * DIGEST_BYTES)
        manifest = decode_manifest(msgpack.packb([FORMAT, name, header_bytes, names, table, zeros]))
        listed = tuple(RepoFile(str(path), int(n_bytes), str(sha256)) for path, n_bytes, sha256 in files)
        plan = PullPlan(str(repository), str(commit), listed, manifest, tuple(_PLACE.iter_unpack(places)))
    except (ValueError, TypeError, struct.error, msgpack.UnpackException, OverflowError) as error:
        raise RemoteProtocolError(f"a plan of a pull is broken: {error}") from error
    fitting = len(plan.places) == len(manifest.tensors) and all(file < len(listed) for file, _ in plan.places)
    # Both become part of an address that this device asks.
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", plan.repository) or not re.fullmatch(
        r"[0-9a-f]{40}", plan.commit
    ):
        raise RemoteProtocolError("a plan of a pull is broken: it names no repository at a commit")
    if form != _FORMAT or not fitting or plan.encoded != data:
        raise RemoteProtocolError("a plan of a pull is broken: it is not in the canonical form")
    if any(unit.end > listed[unit.file].n_bytes for unit in plan.units):
        raise RemoteProtocolError("a plan of a pull is broken: a tensor ends behind its file")
    return plan


def _count(table: bytes, header_bytes: int) -> int:
    """Chunks of a table, as decode_manifest will count them."""
    n_chunks = -(-header_bytes // HEADER_STEP)
    for _, cut, step, n_dims, *dims in ROW.iter_unpack(table):
        shape = dims[:n_dims]
        rows = shape[-2] if n_dims > 1 else 1
        slabs = int(np.prod([int(size) for size in shape[:-2]], dtype=object)) if n_dims > 2 else 1
        n_chunks += slabs * -(-(rows if cut == Cut.ROWS else shape[-1]) // max(step, 1))
        if n_chunks > MAX_MANIFEST_CHUNKS:
            raise ValueError("it has too many chunks")
    return n_chunks


def _units_of(tensor: ChunkedTensor, file: int, offset: int) -> Iterator[FileUnit]:
    """Runs of chunks that lie one after the other in the file, of about UNIT_BYTES."""
    per_slab, slab_bytes = tensor.chunks_per_slab, tensor.rows * tensor.row_bytes
    if tensor.cut is Cut.COLUMNS:
        step = per_slab * max(1, UNIT_BYTES // slab_bytes)
    else:
        step = max(1, UNIT_BYTES // max(1, tensor.step * tensor.row_bytes))
    for first in range(tensor.chunks.start, tensor.chunks.stop, step):
        chunks = range(first, min(first + step, tensor.chunks.stop))
        start = tensor.offset(first)
        end = tensor.n_bytes if chunks.stop == tensor.chunks.stop else tensor.offset(chunks.stop)
        yield FileUnit(file, offset + start, offset + end, chunks)
