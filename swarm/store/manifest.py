"""What a model consists of: its header, its tensors, and the hash of every chunk. Bytes in, values out; no files here.

A chunk is a rectangle of one tensor, in the blocks of the GGUF file, row by row: whole rows for most tensors, groups
of columns for those that are cut by columns when devices share a layer (attention output and FFN down). Experts are
slabs of their tensor, and no chunk crosses a slab. So a layer, a single expert, and a device's slice of either are each
a set of whole chunks, every one of them verified on its own.

Why the file's own blocks and not the packed layout of csrc, although packing is lossless: the device that has the GGUF
serves it as it is, without a second copy on its disk and without packing anything for others; a manifest stays valid
when a kernel wants another layout; and every device can prove that it holds the original's bytes. The price is to pack
when a layer is loaded: 0.8 GiB/s on one core of a 2-core cloud machine, where BLAKE3 reaches 1.2 GiB/s.

The encoding is canonical msgpack, and the BLAKE3 hash of it is the model's id:
    [format, name, header bytes, tensor names joined by NUL, table (n_tensors x 8 little-endian u64), digests (32 each)]
A row of the table: ggml type, cut, step, number of dimensions, four dimensions (outermost first, then zeros). Chunks
are numbered in this order: the header by HEADER_STEP bytes, then tensor by tensor, slab by slab, `step` rows or columns
each.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import chain
from math import prod
from typing import NamedTuple

import msgpack
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.errors import BadModelFile
from swarm.kernels.quants import Quant
from swarm.limits import (
    CHUNK_BYTES,
    EXPERT_CHUNK_BYTES,
    MAX_CHUNK_BYTES,
)
from swarm.store.rectangles import Rectangle, Rows
from swarm.wire.ids import ChunkId, ModelId

FORMAT = 1
HEADER_STEP = 1024 * 1024
DIGEST_BYTES = 32
SLICE_UNIT = 32  # rows or columns: slices of layers begin and end at multiples of it
_CUT_BY_COLUMNS = re.compile(r"(attn_output|ffn_down|ffn_down_exps|ffn_down_shexp)\.weight$")
ROW = struct.Struct("<8Q")


class Cut(IntEnum):
    """Which way a tensor is cut into chunks."""

    ROWS = 0
    COLUMNS = 1


class ChunkPlace(NamedTuple):
    """The rectangle of a chunk: rows [row0, row1) and bytes [byte0, byte1) of each row, in one slab."""

    slab: int
    row0: int
    row1: int
    byte0: int
    byte1: int


@dataclass(frozen=True)
class ChunkedTensor:
    """A tensor and how it is cut: `step` rows or columns a chunk, numbered from `first_chunk` on."""

    name: str
    quant: Quant
    shape: tuple[int, ...]
    cut: Cut
    step: int
    first_chunk: int

    @property
    def n_slabs(self) -> int:
        return prod(self.shape[:-2])

    @property
    def rows(self) -> int:
        return self.shape[-2] if len(self.shape) > 1 else 1

    @property
    def row_bytes(self) -> int:
        return self.quant.row_bytes(self.shape[-1])

    @property
    def n_bytes(self) -> int:
        return self.n_slabs * self.rows * self.row_bytes

    @property
    def chunks_per_slab(self) -> int:
        return -(-(self.rows if self.cut is Cut.ROWS else self.shape[-1]) // self.step)

    @property
    def chunks(self) -> range:
        """The numbers of all its chunks."""
        return range(self.first_chunk, self.first_chunk + self.n_slabs * self.chunks_per_slab)

    def chunks_of(self, slabs: range, rows: Rows | None = None, columns: range | None = None) -> Iterator[int]:
        """The chunks that hold these rows and columns (None: all) of these slabs: what a slice or an expert needs.

        Each one once, in ascending order. A vector is kept whole.
        """
        wanted = rows if self.cut is Cut.ROWS else columns if columns is None else [columns]
        numbers: Sequence[int] = range(self.chunks_per_slab)
        if wanted is not None and len(self.shape) > 1:
            touched = (range(piece.start // self.step, -(-piece.stop // self.step)) for piece in wanted if piece)
            numbers = sorted(set(chain.from_iterable(touched)))
        for slab in slabs:
            start = self.first_chunk + slab * self.chunks_per_slab
            yield from (start + number for number in numbers)

    def place(self, chunk: int) -> ChunkPlace:
        """Where the chunk lies in the tensor."""
        slab, number = divmod(chunk - self.first_chunk, self.chunks_per_slab)
        start = number * self.step
        if self.cut is Cut.ROWS:
            return ChunkPlace(slab, start, min(start + self.step, self.rows), 0, self.row_bytes)
        end = min(start + self.step, self.shape[-1])
        return ChunkPlace(slab, 0, self.rows, self.quant.row_bytes(start), self.quant.row_bytes(end))

    def offset(self, chunk: int) -> int:
        """Where the chunk begins when the chunks lie one after the other, as they do on disk."""
        slab, row0, _, byte0, _ = self.place(chunk)
        return (slab * self.rows + row0) * self.row_bytes + byte0 * self.rows


@dataclass(frozen=True)
class Manifest:
    """A model as a list of chunks. Two devices with the same file make the same manifest."""

    name: str
    header_bytes: int
    tensors: tuple[ChunkedTensor, ...]
    digests: bytes

    @cached_property
    def encoded(self) -> bytes:
        names = "\0".join(tensor.name for tensor in self.tensors)
        table = table_of(self.tensors)
        return bytes(msgpack.packb([FORMAT, self.name, self.header_bytes, names, table, self.digests]))

    @cached_property
    def id(self) -> ModelId:
        return ModelId(blake3(self.encoded).hexdigest())

    @property
    def n_chunks(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    @property
    def header_chunks(self) -> range:
        """The chunks of the header: metadata and tokenizer."""
        return range(-(-self.header_bytes // HEADER_STEP))

    @cached_property
    def by_name(self) -> dict[str, ChunkedTensor]:
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def chunk_sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of every chunk."""
        sizes = np.full(self.n_chunks, HEADER_STEP, np.int64)
        if self.header_bytes:
            sizes[self.header_chunks[-1]] = self.header_bytes - self.header_chunks[-1] * HEADER_STEP
        for tensor in self.tensors:
            per_slab = [place_bytes(tensor.place(tensor.chunks[i])) for i in range(tensor.chunks_per_slab)]
            sizes[tensor.chunks.start : tensor.chunks.stop] = np.tile(per_slab, tensor.n_slabs)
        return sizes

    @cached_property
    def total_bytes(self) -> int:
        return self.header_bytes + sum(tensor.n_bytes for tensor in self.tensors)

    def digest(self, chunk: int) -> bytes:
        return self.digests[chunk * DIGEST_BYTES : (chunk + 1) * DIGEST_BYTES]

    def chunk_id(self, chunk: int) -> ChunkId:
        return ChunkId(self.digest(chunk).hex())

    def find(self, chunk: ChunkId) -> list[int]:
        """The numbers of the chunks with this id: mostly one, several where bytes repeat."""
        digest = bytes.fromhex(chunk)
        prefixes, order = self._index
        key = np.uint64(int.from_bytes(digest[:8], "little"))
        first, end = np.searchsorted(prefixes, key, "left"), np.searchsorted(prefixes, key, "right")
        return [int(number) for number in order[first:end] if self.digest(int(number)) == digest]

    @cached_property
    def _index(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
        """The first eight bytes of every digest, sorted, and whose they are: a dict would take ten times as much."""
        prefixes = np.frombuffer(self.digests, "<u8").reshape(-1, DIGEST_BYTES // 8)[:, 0].astype(np.uint64)
        order = np.argsort(prefixes, kind="stable")
        return prefixes[order], order

    def tensor_of(self, chunk: int) -> ChunkedTensor | None:
        """The tensor that a chunk belongs to; None for the header."""
        position = bisect_right(self._first_chunks, chunk)
        return self.tensors[position - 1] if position else None

    @cached_property
    def _first_chunks(self) -> list[int]:
        return [tensor.first_chunk for tensor in self.tensors]

    def chunks_of(self, rectangles: Iterable[Rectangle]) -> list[int]:
        """The chunks of the header and of these rectangles of tensors: what a device needs that holds them."""
        wanted = set(self.header_chunks)
        for name, rows, columns, slabs in rectangles:
            tensor = self.by_name[name]
            wanted.update(tensor.chunks_of(range(tensor.n_slabs) if slabs is None else slabs, rows, columns))
        return sorted(wanted)


def plan_chunks(name: str, quant: Quant, shape: tuple[int, ...], first_chunk: int) -> ChunkedTensor:
    """Decide how a tensor is cut. Raise BadModelFile when a single row is too long to travel."""
    aim = EXPERT_CHUNK_BYTES if len(shape) > 2 else CHUNK_BYTES
    rows, row_bytes = (shape[-2] if len(shape) > 1 else 1), quant.row_bytes(shape[-1])
    unit = max(SLICE_UNIT, quant.block_cols)
    unit_bytes = rows * (unit // quant.block_cols) * quant.block_bytes
    if _CUT_BY_COLUMNS.search(name) and len(shape) > 1 and unit_bytes <= MAX_CHUNK_BYTES:
        step = min(max(1, aim // unit_bytes) * unit, shape[-1])
        return ChunkedTensor(name, quant, shape, Cut.COLUMNS, step, first_chunk)
    if row_bytes > MAX_CHUNK_BYTES:
        raise BadModelFile(f"tensor {name!r}: a row of {row_bytes} bytes is more than the {MAX_CHUNK_BYTES} of a chunk")
    step = min(max(1, aim // row_bytes), rows)
    if step > SLICE_UNIT:
        step -= step % SLICE_UNIT
    return ChunkedTensor(name, quant, shape, Cut.ROWS, step, first_chunk)


def table_of(tensors: Iterable[ChunkedTensor]) -> bytes:
    """The tensors' rows of an encoded manifest."""
    return b"".join(ROW.pack(*_row(tensor)) for tensor in tensors)


def _row(tensor: ChunkedTensor) -> tuple[int, ...]:
    dims = tensor.shape + (0,) * (4 - len(tensor.shape))
    return (tensor.quant.id, tensor.cut, tensor.step, len(tensor.shape), *dims)


def place_bytes(place: ChunkPlace) -> int:
    """Bytes of a chunk."""
    return (place.row1 - place.row0) * (place.byte1 - place.byte0)
