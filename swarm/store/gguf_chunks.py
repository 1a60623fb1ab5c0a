"""The chunks of a model in the GGUF file itself.

They are read, and not taken from the map: the file is its user's, who may cut it at any moment, and a map of it would
end us.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
import numpy.typing as npt

from swarm.store.gguf import GGUF
from swarm.store.manifest import HEADER_STEP, Cut, Manifest

U8 = npt.NDArray[np.uint8]


def chunk_of_gguf(source: GGUF, manifest: Manifest, chunk: int) -> bytes:
    """A chunk, fewer bytes where the file ends before it."""
    tensor = manifest.tensor_of(chunk)
    if tensor is None:
        start = chunk * HEADER_STEP
        return source.read(0, start, min(HEADER_STEP, source.header_bytes - start))
    slab, row0, row1, byte0, byte1 = tensor.place(chunk)
    entry = source.tensors[tensor.name]
    start = entry.offset + slab * tensor.rows * tensor.row_bytes
    if byte1 - byte0 == tensor.row_bytes:
        return source.read(entry.split, start + row0 * tensor.row_bytes, (row1 - row0) * tensor.row_bytes)
    rows = (start + row * tensor.row_bytes + byte0 for row in range(row0, row1))
    return b"".join(source.read(entry.split, at, byte1 - byte0) for at in rows)


class InOrder:
    """Reads one chunk after the other, from any thread: of a slab that is cut by columns the file is read once.

    Such a chunk is some hundred bytes of each row: alone it takes thousands of reads.
    """

    def __init__(self, source: GGUF, manifest: Manifest) -> None:
        self._source, self._manifest = source, manifest
        self._slab: tuple[str, int, U8] | None = None
        self._lock = Lock()

    def read(self, chunk: int) -> bytes:
        """A chunk, fewer bytes where the file ends before it."""
        tensor = self._manifest.tensor_of(chunk)
        if tensor is None or tensor.cut is not Cut.COLUMNS:
            return chunk_of_gguf(self._source, self._manifest, chunk)
        place = tensor.place(chunk)
        with self._lock:
            if self._slab is None or self._slab[:2] != (tensor.name, place.slab):
                entry, n_bytes = self._source.tensors[tensor.name], tensor.rows * tensor.row_bytes
                data = self._source.read(entry.split, entry.offset + place.slab * n_bytes, n_bytes)
                self._slab = tensor.name, place.slab, np.frombuffer(data, np.uint8)
            slab = self._slab[2]
        if len(slab) != tensor.rows * tensor.row_bytes:
            return b""
        return slab.reshape(tensor.rows, -1)[:, place.byte0 : place.byte1].tobytes()
