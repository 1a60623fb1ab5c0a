"""A file that arrives in pieces, in any order: what has come is kept, however the process ends.

    .NAME.partial   the file in its full length, with holes
    .NAME.pieces    what it is to become, then the number of each piece that is there

A piece is written and then noted, both without a flush: after `kill -9` both are there. Only a power cut loses what
the system had not written yet. So the file is flushed every SYNC_BYTES and that is noted too; after a restart of the
machine (its boot id tells) only what was noted before a flush is believed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarm.files import partial_of, publish, replace_file, sync
from swarm.limits import MAX_JOURNAL_HEAD_BYTES, PIECE_BYTES, SYNC_BYTES

_NOTE = struct.Struct("<I")
_SYNCED = 0xFFFFFFFF  # everything noted before is on the disk
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class KeptPieces:
    """The pieces of one file. `origin` says where it comes from: pieces of another origin are not kept.

    Not safe to use from several threads; one process at a time uses a file (`files.locked`).
    """

    def __init__(self, path: Path, n_bytes: int, origin: str) -> None:
        """`path`: the name that the file will get. Raise OSError."""
        self.path = path
        self.n_bytes = n_bytes
        self.partial = partial_of(path)
        self.journal = journal_of(path)
        self.have: npt.NDArray[np.bool_] = np.zeros(-(-n_bytes // PIECE_BYTES), np.bool_)
        self._hash = hashlib.sha256()
        self._n_hashed = 0  # pieces, from the first on
        self._unsynced_bytes = 0
        head = {"origin": origin, "bytes": n_bytes, "piece": PIECE_BYTES}
        self._replay(head)
        self._fd = os.open(self.partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(self._fd).st_size != n_bytes:
            self.have[:] = False
            os.ftruncate(self._fd, n_bytes)
        numbers = b"".join(_NOTE.pack(int(piece)) for piece in np.flatnonzero(self.have))
        first = json.dumps({**head, "boot": _boot_id()}).encode() + b"\n"
        replace_file(self.journal, first + numbers + _NOTE.pack(_SYNCED), durable=False)
        self._notes = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the pieces that are here."""
        last = int(self.have[-1]) * (len(self.have) * PIECE_BYTES - self.n_bytes) if len(self.have) else 0
        return int(self.have.sum()) * PIECE_BYTES - last

    def piece(self, number: int) -> range:
        """The bytes of the file that a piece has."""
        return range(number * PIECE_BYTES, min((number + 1) * PIECE_BYTES, self.n_bytes))

    def put(self, number: int, data: bytes | bytearray | memoryview) -> None:
        """Keep a piece."""
        view, offset = memoryview(data), number * PIECE_BYTES
        assert len(view) == len(self.piece(number))
        self._unsynced_bytes += len(view)
        while view:
            n_written = os.pwrite(self._fd, view, offset)
            view, offset = view[n_written:], offset + n_written
        self.have[number] = True
        os.write(self._notes, _NOTE.pack(number))
        if self._unsynced_bytes >= SYNC_BYTES:
            self.sync()
        self._hash_on()

    def runs(self, most_bytes: int) -> Iterator[range]:
        """The pieces that are missing, as runs of neighbours of so many bytes at most."""
        missing = np.flatnonzero(~self.have)
        most = max(1, -(-most_bytes // PIECE_BYTES))
        for run in np.split(missing, np.flatnonzero(np.diff(missing) != 1) + 1):
            for start in range(0, len(run), most):
                part = run[start : start + most]
                yield range(int(part[0]), int(part[-1]) + 1)

    def sha256(self, progress: Callable[[int, int], None]) -> str:
        """The SHA-256 of the whole file, once all pieces are here; most was counted while they came."""
        assert self.have.all()
        while self._n_hashed < len(self.have):
            self._hash_next()
            progress(min(self._n_hashed * PIECE_BYTES, self.n_bytes), self.n_bytes)
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Flush: what is here survives a power cut."""
        os.fdatasync(self._fd)
        os.write(self._notes, _NOTE.pack(_SYNCED))
        self._unsynced_bytes = 0

    def publish(self) -> None:
        """Give the file its name; the journal goes."""
        self.close()
        publish(self.partial, self.path)
        self.journal.unlink(missing_ok=True)
        sync(self.path.parent)

    def discard(self) -> None:
        """Delete all that came."""
        self.close()
        self.partial.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go; what is here stays for the next time."""
        for descriptor in (self._fd, self._notes):
            if descriptor >= 0:
                os.close(descriptor)
        self._fd = self._notes = -1

    # ---- inside

    def _hash_on(self) -> None:
        """Count what now follows the pieces that were counted: it is still in memory."""
        while self._n_hashed < len(self.have) and self.have[self._n_hashed]:
            self._hash_next()

    def _hash_next(self) -> None:
        place = self.piece(self._n_hashed)
        self._hash.update(os.pread(self._fd, len(place), place.start))
        self._n_hashed += 1

    def _replay(self, head: dict[str, object]) -> None:
        """What an earlier process kept of the same file."""
        with suppress(OSError, ValueError):
            data = self.journal.read_bytes()
            line, _, notes = data.partition(b"\n")
            told = json.loads(line)
            if isinstance(told, dict) and {key: told.get(key) for key in head} == head:
                is_same_boot = told.get("boot") == _boot_id()
                self.have[_believed(notes, len(self.have), is_same_boot=is_same_boot)] = True


def journal_of(path: Path) -> Path:
    """Where it is noted what of a file has come."""
    return path.with_name(f".{path.name}.pieces")


def part_kept(path: Path) -> tuple[int, int, str] | None:
    """Bytes that came of the unfinished file `path`, in all, and its origin; None when nothing did."""
    try:
        with journal_of(path).open("rb") as file:
            line = file.readline(MAX_JOURNAL_HEAD_BYTES)
            told = json.loads(line)
            n_bytes, piece, origin = int(told["bytes"]), int(told["piece"]), str(told["origin"])
            n_pieces = -(-n_bytes // piece)
            kept = _believed(file.read(), n_pieces, is_same_boot=True)
        return min(len(kept) * piece, n_bytes), n_bytes, origin
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def kept_beginning(path: Path, origin: str, most_bytes: int) -> bytes:
    """The first bytes of an unfinished file, as far as they have come without a gap; none of another origin."""
    try:
        with journal_of(path).open("rb") as file:
            told = json.loads(file.readline(MAX_JOURNAL_HEAD_BYTES))
            if told["origin"] != origin or told["piece"] != PIECE_BYTES or told["boot"] != _boot_id():
                return b""
            n_bytes = int(told["bytes"])
            kept = set(_believed(file.read(), -(-n_bytes // PIECE_BYTES), is_same_boot=True))
        n_pieces = next(number for number in range(len(kept) + 1) if number not in kept)
        with partial_of(path).open("rb") as partial:
            return partial.read(min(n_pieces * PIECE_BYTES, n_bytes, most_bytes))
    except (OSError, ValueError, KeyError, TypeError):
        return b""


def _believed(notes: bytes, n_pieces: int, *, is_same_boot: bool) -> list[int]:
    """The pieces that notes tell of; a torn one at the end does not count."""
    values = [value for (value,) in _NOTE.iter_unpack(notes[: len(notes) // _NOTE.size * _NOTE.size])]
    if not is_same_boot:
        marks = [index for index, value in enumerate(values) if value == _SYNCED]
        values = values[: marks[-1] if marks else 0]
    return sorted({value for value in values if value < n_pieces})


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
