"""Single rows of a matrix, read from where a device has it on its disk: chunks of the store, or the user's own file.

It has descriptors of its own: what the store lets go of, or a file that is replaced, stays readable as it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.errors import BadModelFile

U8 = npt.NDArray[np.uint8]


class RowPiece(NamedTuple):
    """Rows of a matrix that lie one after the other in a file, and the BLAKE3 of all of them."""

    path: Path
    offset: int
    n_rows: int
    digest: bytes


class RowFile:
    """A matrix of which each piece but the last has equally many rows. Closed with its last reference."""

    def __init__(self, name: str, row_bytes: int, pieces: Sequence[RowPiece]) -> None:
        """Raise BadModelFile when a file cannot be opened."""
        self.name, self.row_bytes = name, row_bytes
        self._pieces = pieces
        self._files: dict[Path, int] = {}
        for piece in pieces:
            if piece.path not in self._files:
                self._files[piece.path] = _opened(piece.path)
        self._places = [(self._files[piece.path], piece.offset) for piece in pieces]
        self._step = pieces[0].n_rows

    def verified(self) -> Iterator[U8]:
        """All rows (n, row_bytes), piece by piece; raise BadModelFile when one is not what its digest says."""
        for number, piece in enumerate(self._pieces):
            data = self._read(number, 0, piece.n_rows)
            if blake3(data, max_threads=blake3.AUTO).digest() != piece.digest:
                raise self._damaged(number)
            yield np.frombuffer(data, np.uint8).reshape(piece.n_rows, self.row_bytes)

    def read(self, row: int) -> bytes:
        """A row's bytes as they are there now; raise BadModelFile when the disk does not give them."""
        number, within = divmod(row, self._step)
        return self._read(number, within, 1)

    def damaged(self, row: int) -> BadModelFile:
        """The error of one that read other bytes than were there."""
        return self._damaged(row // self._step)

    def close(self) -> None:
        """Nobody reads it any more."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            self.close()

    def _read(self, number: int, first: int, n_rows: int) -> bytes:
        descriptor, offset = self._places[number]
        n_bytes = n_rows * self.row_bytes
        try:
            data = os.pread(descriptor, n_bytes, offset + first * self.row_bytes)
        except OSError as error:
            path = self._pieces[number].path
            raise BadModelFile(
                f"{path}: tensor {self.name!r} cannot be read from the disk ({error.strerror})"
            ) from error
        if len(data) != n_bytes:
            raise self._damaged(number)
        return data

    def _damaged(self, number: int) -> BadModelFile:
        return BadModelFile(
            f"{self._pieces[number].path}: tensor {self.name!r} is not what it was: the disk has damaged it, or "
            "the file was changed; start again: what is damaged is fetched anew"
        )


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BadModelFile(f"{path}: cannot be opened ({error.strerror})") from error
