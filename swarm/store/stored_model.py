"""A model read from chunks as if it were a GGUF file: what a device loads from that never had the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from swarm.errors import BadModelFile, ModelNotFound
from swarm.store.gguf_header import parse_metadata
from swarm.store.gguf_metadata import Metadata
from swarm.store.manifest import ChunkedTensor, Cut
from swarm.store.model_chunks import ModelChunks
from swarm.store.rectangles import U8, Rows, cut, overlaps
from swarm.store.row_file import RowFile, RowPiece


class StoredModel:
    """Metadata, tensor table and tensors of a model in the chunk store; only what is held can be read."""

    def __init__(self, chunks: ModelChunks) -> None:
        self._chunks = chunks
        self.manifest = chunks.manifest
        self.name = chunks.manifest.name
        self.size_bytes = chunks.manifest.total_bytes

    @property
    def chunks(self) -> ModelChunks:
        """What it is read from."""
        return self._chunks

    @property
    def tensors(self) -> Mapping[str, ChunkedTensor]:
        return self.manifest.by_name

    @cached_property
    def metadata(self) -> Metadata:
        self._require(self.manifest.header_chunks, "its header")
        if self._chunks.source is not None:
            return self._chunks.source.metadata
        return parse_metadata(self._chunks.files.header(), self.name)

    def raw(self, name: str, rows: Rows | None = None, columns: range | None = None) -> U8:
        """The stored bytes of a tensor, or of a rectangle of it: (rows ..., row_bytes).

        Mapped, or put together from chunks. Only the chunks that the rectangle touches must be here.
        """
        tensor = self.tensors[name]
        mapped = self._mapped(tensor, rows, columns)
        if mapped is not None:
            return cut(mapped, tensor.quant, rows, columns)
        if len(tensor.shape) == 1:
            return cut(self._joined(tensor, 0, None, None)[0], tensor.quant, rows, columns)
        slabs = list(self._join_slabs(tensor, rows, columns))
        return slabs[0] if len(tensor.shape) == 2 else np.stack(slabs).reshape(*tensor.shape[:-2], *slabs[0].shape)

    def slabs(
        self, name: str, rows: Rows | None = None, columns: range | None = None, slabs: range | None = None
    ) -> Iterator[U8]:
        """The rectangle of each expert (or of these slabs) of a tensor, one after the other: never all in memory."""
        tensor = self.tensors[name]
        wanted = range(tensor.n_slabs) if slabs is None else slabs
        mapped = self._mapped(tensor, rows, columns, wanted)
        if mapped is None:
            yield from (self._joined(tensor, slab, rows, columns) for slab in wanted)
            return
        for slab in mapped.reshape(tensor.n_slabs, tensor.rows, tensor.row_bytes)[wanted.start : wanted.stop]:
            yield cut(slab, tensor.quant, rows, columns)

    def open_rows(self, name: str) -> RowFile:
        """A matrix to read single rows of. Raise ModelNotFound; BadModelFile where its rows are cut, or not here."""
        tensor = self.tensors[name]
        if tensor.cut is not Cut.ROWS or len(tensor.shape) != 2:
            raise BadModelFile(f"{self.name}: tensor {name!r} is not cut into whole rows; make its manifest again")
        self._require(tensor.chunks, f"tensor {name!r}")
        return RowFile(name, tensor.row_bytes, [self._piece(tensor, chunk) for chunk in tensor.chunks])

    def drop(self, name: str) -> None:
        """Let the system take back the memory that reading this tensor has filled."""
        if self._chunks.source is not None:
            self._chunks.source.drop(name)

    def _mapped(
        self, tensor: ChunkedTensor, rows: Rows | None, columns: range | None, slabs: range | None = None
    ) -> U8 | None:
        """The tensor as it lies in the GGUF file or, if it is cut by rows, in the data file.

        Only this rectangle of it is sure to be there. Raise ModelNotFound when it is not.
        """
        chunks = list(tensor.chunks_of(range(tensor.n_slabs) if slabs is None else slabs, rows, columns))
        self._require(chunks, f"tensor {tensor.name!r}")
        if self._chunks.source is not None and self._chunks.in_source[chunks].all():
            return self._chunks.source.raw(tensor.name)
        stays = len(tensor.shape) < 3 or not self._chunks.may_move  # a mapped chunk that goes would read as zeros
        if tensor.cut is Cut.ROWS and stays and self._chunks.on_disk[chunks].all():
            return self._chunks.files.view(tensor.name).reshape(*tensor.shape[:-1], tensor.row_bytes)
        return None

    def _piece(self, tensor: ChunkedTensor, chunk: int) -> RowPiece:
        """Where a chunk of whole rows lies."""
        place, digest = tensor.place(chunk), self.manifest.digest(chunk)
        n_rows = place.row1 - place.row0
        if self._chunks.on_disk[chunk] or self._chunks.source is None:
            return RowPiece(self._chunks.files.path_of(chunk), self._chunks.files.position(chunk)[1], n_rows, digest)
        entry = self._chunks.source.tensors[tensor.name]
        path = self._chunks.source.split_files[entry.split]
        return RowPiece(path, entry.offset + tensor.offset(chunk), n_rows, digest)

    def _join_slabs(self, tensor: ChunkedTensor, rows: Rows | None, columns: range | None) -> Iterator[U8]:
        return (self._joined(tensor, slab, rows, columns) for slab in range(tensor.n_slabs))

    def _joined(self, tensor: ChunkedTensor, slab: int, rows: Rows | None, columns: range | None) -> U8:
        """A rectangle of one slab, put together from the chunks that it touches."""
        ranges = [range(tensor.rows)] if rows is None else rows
        first = 0 if columns is None else tensor.quant.row_bytes(columns.start)
        end = tensor.row_bytes if columns is None else tensor.quant.row_bytes(columns.stop)
        joined = np.empty((sum(map(len, ranges)), end - first), np.uint8)
        for chunk in tensor.chunks_of(range(slab, slab + 1), rows, columns):
            _, row0, row1, byte0, byte1 = tensor.place(chunk)
            data = self._read(tensor, chunk).reshape(row1 - row0, byte1 - byte0)
            left, right = max(first, byte0), min(end, byte1)
            for source, target in overlaps(ranges, row0, row1):
                joined[target, left - first : right - first] = data[source, left - byte0 : right - byte0]
        return joined

    def _read(self, tensor: ChunkedTensor, chunk: int) -> U8:
        data = self._chunks.read(chunk)
        if data is None:
            raise ModelNotFound(f"{self.name}: a chunk of tensor {tensor.name!r} was damaged; it must be fetched again")
        return np.frombuffer(data, np.uint8)

    def _require(self, chunks: Sequence[int], what: str) -> None:
        n_missing = len(chunks) - int(self._chunks.held[chunks].sum())
        if n_missing:
            raise ModelNotFound(
                f"{self.name}: {n_missing} of {len(chunks)} chunks of {what} are not on this device yet"
            )
