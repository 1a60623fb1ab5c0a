"""An embedding of which no row is in memory until a token needs it: it is read from the disk, a few kilobytes.

All of it is verified once, when it is loaded. Its checksums row by row stay in memory: what the disk gives later, when
the system has let go of the file's pages, is compared with them, so that no damaged row ever becomes an answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from swarm.kernels import _native
from swarm.kernels.quants import Quant

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
CACHE_LINE = 64
SUM_BYTES = 4  # of a row: its CRC-32C


class RowReader(Protocol):
    """Where the rows are."""

    def verified(self) -> Iterable[U8]:
        """All rows (n, row_bytes), some at a time; raise BadModelFile."""

    def read(self, row: int) -> bytes:
        """A row as it is there now; raise BadModelFile."""

    def damaged(self, row: int) -> Exception:
        """The error of a row that is not what it was."""


class RowTable:
    """The rows of a matrix (rows, cols) on disk, packed as they are asked for: the bits of one that is in memory."""

    def __init__(self, reader: RowReader, quant: Quant, rows: int, cols: int) -> None:
        """Read all of it once; raise BadModelFile when it is damaged."""
        self.rows, self.cols = rows, cols
        self._reader, self._quant = reader, quant
        self._sums = array("I", (_native.crc32c(row) for block in reader.verified() for row in block))
        if len(self._sums) != rows:
            raise ValueError(f"{len(self._sums)} rows of a matrix of {rows}")

    @property
    def n_bytes(self) -> int:
        """Of the checksums, in memory."""
        return SUM_BYTES * len(self._sums)

    def take(self, ids: Sequence[int]) -> tuple[I32, _native.Mat]:
        """Where each of these rows is in a small matrix, and that. Raise BadModelFile, ValueError for no such ids."""
        if not ids or min(ids) < 0 or max(ids) >= self.rows:
            raise ValueError(f"token ids {min(ids, default=0)} to {max(ids, default=0)}, and {self.rows} rows")
        raw = np.frombuffer(b"".join(map(self._row, ids)), np.uint8).reshape(len(ids), -1)
        packed = _aligned(_native.packed_bytes(self._quant.id, len(ids), self.cols, self.cols))
        return np.arange(len(ids), dtype=np.int32), _native.pack(self._quant.id, raw, self.cols, packed)

    def _row(self, row: int) -> bytes:
        data = self._reader.read(row)
        if _native.crc32c(np.frombuffer(data, np.uint8)) != self._sums[row]:
            raise self._reader.damaged(row)
        return data


def _aligned(n_bytes: int) -> U8:
    """Bytes that begin on a cache line."""
    whole: U8 = np.empty(n_bytes + CACHE_LINE, np.uint8)
    start = -whole.ctypes.data % CACHE_LINE
    return whole[start : start + n_bytes]
