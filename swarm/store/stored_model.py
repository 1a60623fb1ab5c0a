"""A model read from chunks as if it were a GGUF file: what a device loads from that never had the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        """The stored bytes of a tensor, (rows ..., row_bytes): mapped where it is cut by rows, else put together."""
        tensor = self._held(name)
        if self._chunks.source is not None:
            return self._chunks.source.raw(name)
        shape = (*tensor.shape[:-1], tensor.row_bytes)
        if tensor.cut is Cut.ROWS:
            return self._chunks.files.view(name).reshape(shape)
        whole = np.empty((tensor.n_slabs, tensor.rows, tensor.row_bytes), np.uint8)
        for number, slab in enumerate(self.slabs(name)):
            whole[number] = slab
        return whole.reshape(shape)

    def slabs(self, name: str) -> Iterator[U8]:
        """The experts of a tensor one after the other, (rows, row_bytes) each: never all of them in memory."""
        tensor = self._held(name)
        if self._chunks.source is not None or tensor.cut is Cut.ROWS:
            yield from self.raw(name).reshape(tensor.n_slabs, tensor.rows, tensor.row_bytes)
        else:
            yield from (_joined(tensor, slab) for slab in self._slab_bytes(tensor))

    def drop(self, name: str) -> None:
        """Let the system take back the memory that reading this tensor has filled."""
        if self._chunks.source is not None:
            self._chunks.source.drop(name)

    def _slab_bytes(self, tensor: ChunkedTensor) -> U8:
        return self._chunks.files.view(tensor.name).reshape(tensor.n_slabs, -1)

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


def _joined(tensor: ChunkedTensor, slab: U8) -> U8:
    """Rows from a slab whose chunks are groups of columns, one after the other."""
    rows = np.empty((tensor.rows, tensor.row_bytes), np.uint8)
    position = 0
    for chunk in tensor.chunks[: tensor.chunks_per_slab]:
        _, _, _, byte0, byte1 = tensor.place(chunk)
        end = position + tensor.rows * (byte1 - byte0)
        rows[:, byte0:byte1] = slab[position:end].reshape(tensor.rows, -1)
        position = end
    return rows
