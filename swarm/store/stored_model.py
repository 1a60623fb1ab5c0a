"""A model read from chunks as if it were a GGUF file: what a device loads from that never had the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from swarm.errors import ModelNotFound
from swarm.store.gguf_header import parse_metadata
from swarm.store.gguf_metadata import Metadata
from swarm.store.manifest import ChunkedTensor, Cut
from swarm.store.model_chunks import ModelChunks

U8 = npt.NDArray[np.uint8]


class StoredModel:
    """Metadata, tensor table and tensors of a model in the chunk store; only what is held can be read."""

    def __init__(self, chunks: ModelChunks) -> None:
        self._chunks = chunks
        self.manifest = chunks.manifest
        self.name = chunks.manifest.name
        self.size_bytes = chunks.manifest.total_bytes

    @property
    def tensors(self) -> Mapping[str, ChunkedTensor]:
        return self.manifest.by_name

    @cached_property
    def metadata(self) -> Metadata:
        self._require(self.manifest.header_chunks, "its header")
        if self._chunks.source is not None:
            return self._chunks.source.metadata
        return parse_metadata(self._chunks.files.header(), self.name)

    def raw(self, name: str) -> U8:
        """The stored bytes of a tensor, (rows ..., row_bytes): mapped, or put together from chunks."""
        tensor = self._held(name)
        shape = (*tensor.shape[:-1], tensor.row_bytes)
        mapped = self._mapped(tensor)
        if mapped is not None:
            return mapped.reshape(shape)
        whole = np.empty((tensor.n_slabs, tensor.rows, tensor.row_bytes), np.uint8)
        for number, slab in enumerate(self.slabs(name)):
            whole[number] = slab
        return whole.reshape(shape)

    def slabs(self, name: str) -> Iterator[U8]:
        """The experts of a tensor one after the other, (rows, row_bytes) each: never all of them in memory."""
        tensor = self._held(name)
        mapped = self._mapped(tensor)
        if mapped is not None:
            yield from mapped.reshape(tensor.n_slabs, tensor.rows, tensor.row_bytes)
            return
        for slab in range(tensor.n_slabs):
            yield self._joined(tensor, tensor.chunks_of(range(slab, slab + 1)))

    def drop(self, name: str) -> None:
        """Let the system take back the memory that reading this tensor has filled."""
        if self._chunks.source is not None:
            self._chunks.source.drop(name)

    def _mapped(self, tensor: ChunkedTensor) -> U8 | None:
        """The tensor as it lies in the GGUF file or, if it is cut by rows, in the data file."""
        part = slice(tensor.chunks.start, tensor.chunks.stop)
        if self._chunks.source is not None and self._chunks.in_source[part].all():
            return self._chunks.source.raw(tensor.name)
        if tensor.cut is Cut.ROWS and self._chunks.on_disk[part].all():
            return self._chunks.files.view(tensor.name)
        return None

    def _joined(self, tensor: ChunkedTensor, chunks: Iterable[int]) -> U8:
        """One slab, put together from its chunks."""
        rows = np.empty((tensor.rows, tensor.row_bytes), np.uint8)
        for chunk in chunks:
            data = self._chunks.read(chunk)
            if data is None:
                raise ModelNotFound(
                    f"{self.name}: a chunk of tensor {tensor.name!r} was damaged; it must be fetched again"
                )
            _, row0, row1, byte0, byte1 = tensor.place(chunk)
            rows[row0:row1, byte0:byte1] = np.frombuffer(data, np.uint8).reshape(row1 - row0, byte1 - byte0)
        return rows

    def _held(self, name: str) -> ChunkedTensor:
        tensor = self.tensors[name]
        self._require(tensor.chunks, f"tensor {name!r}")
        return tensor

    def _require(self, chunks: range, what: str) -> None:
        n_missing = len(chunks) - int(self._chunks.held[chunks.start : chunks.stop].sum())
        if n_missing:
            raise ModelNotFound(
                f"{self.name}: {n_missing} of {len(chunks)} chunks of {what} are not on this device yet"
            )
