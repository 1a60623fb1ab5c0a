"""Which chunks are on disk: a file to which eight bytes are added for every chunk, and nothing is ever rewritten.

A chunk is written to its data file and then noted here, both without a flush: after `kill -9` both are there. Only a
power cut loses what the system had not written yet, perhaps the data and not the note. So every SYNC_BYTES the data
files are flushed and SYNCED is noted, with the number of notes that there were before the flush: those are facts, later
ones are claims that `unsynced` lists, to be verified by their hash. That costs an SD card one flush per 64 MiB instead
of two per chunk, and nobody waits for it: chunks come and go while it runs.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarm.files import PRIVATE, replace_file

_NOTE = struct.Struct("<BxHI")  # kind, 16 bits of checksum, chunk (or, for SYNCED, a number of notes)
_HELD, _LOST, _SYNCED = 1, 2, 3


class Journal:
    """The notes of one model. `held` and `unsynced` say what they were when the journal was opened."""

    def __init__(self, path: Path, n_chunks: int) -> None:
        self._path = path
        self.held: npt.NDArray[np.bool_] = np.zeros(n_chunks, np.bool_)
        self.unsynced: list[int] = []
        data = path.read_bytes() if path.exists() else b""
        self.n_notes = self._replay(data, n_chunks)
        if self.n_notes > max(2 * n_chunks, 4096):
            self._compact()
        elif self.n_notes * _NOTE.size != len(data):
            os.truncate(path, self.n_notes * _NOTE.size)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)

    def note_held(self, chunk: int) -> None:
        """The chunk was verified and written."""
        self._add([_note(_HELD, chunk)])

    def note_lost(self, chunks: Iterable[int]) -> None:
        """The chunks are not to be used any more."""
        self._add([_note(_LOST, chunk) for chunk in chunks])

    def note_synced(self, n_notes: int) -> None:
        """All data files were flushed after the first n_notes."""
        self._add([_note(_SYNCED, n_notes)])

    def flush(self) -> None:
        """Wait until the notes so far would survive a power cut."""
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def _add(self, notes: list[bytes]) -> None:
        os.write(self._fd, b"".join(notes))
        self.n_notes += len(notes)

    def _replay(self, data: bytes, n_chunks: int) -> int:
        """Apply the notes up to the first torn or foreign one; return how many."""
        claims: dict[int, int] = {}  # chunk -> number of the note
        n_good = 0
        for kind, value in _notes(data):
            if kind == _SYNCED:
                claims = {chunk: number for chunk, number in claims.items() if number >= value}
            elif value >= n_chunks:
                break
            else:
                self.held[value] = kind == _HELD
                claims[value] = n_good
            n_good += 1
        self.unsynced = [chunk for chunk in claims if self.held[chunk]]
        return n_good

    def _compact(self) -> None:
        """Write the journal anew, without what later notes undid."""
        claims = set(self.unsynced)
        facts = [int(chunk) for chunk in np.flatnonzero(self.held) if chunk not in claims]
        notes = [_note(_HELD, chunk) for chunk in facts] + [_note(_SYNCED, len(facts))]
        notes += [_note(_HELD, chunk) for chunk in self.unsynced]
        replace_file(self._path, b"".join(notes))
        self.n_notes = len(notes)


def _note(kind: int, value: int) -> bytes:
    return _NOTE.pack(kind, _checksum(kind, value), value)


def _checksum(kind: int, value: int) -> int:
    return zlib.crc32(struct.pack("<BI", kind, value)) & 0xFFFF


def _notes(data: bytes) -> Iterator[tuple[int, int]]:
    for kind, checksum, value in _NOTE.iter_unpack(data[: len(data) // _NOTE.size * _NOTE.size]):
        if kind not in (_HELD, _LOST, _SYNCED) or checksum != _checksum(kind, value):
            return
        yield kind, value
