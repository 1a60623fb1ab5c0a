"""Chunks of a model that several devices bring together, on the disk of one of them, while their hashes are found.

    gathering/<plan id>/plan       what is brought (pull_plan.py)
    gathering/<plan id>/journal    which chunks are here, and *.data: the chunks, both as of any model
    gathering/<plan id>/digests    32 bytes a chunk: its hash, written before the chunk is noted

Once every chunk's hash is known, from whichever device has it, the folder becomes that of a model of the store: the
chunks lie in it where the manifest says.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import RLock

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.errors import RemoteProtocolError
from swarm.files import disk_errors, replace_file
from swarm.limits import GATHERING_KEPT_S, SYNC_BYTES
from swarm.store.data_files import DataFiles, flush
from swarm.store.journal import Journal
from swarm.store.manifest import DIGEST_BYTES, HEADER_STEP, Manifest
from swarm.store.pull_plan import FileUnit, PullPlan

Bits = npt.NDArray[np.bool_]


def drop_stale(root: Path) -> None:
    """Delete what was brought of models that nobody went on with for long."""
    for directory in (root / "gathering").glob("*"):
        with suppress(OSError):
            if time.time() - (directory / "journal").stat().st_mtime > GATHERING_KEPT_S:
                shutil.rmtree(directory, ignore_errors=True)


class Gathering:
    """Safe to use from several threads."""

    def __init__(self, root: Path, plan: PullPlan) -> None:
        """`root`: of the chunk store. Raise ResourceError."""
        self.plan = plan
        self.directory = root / "gathering" / plan.id
        with disk_errors(root, "home"):
            self.directory.mkdir(parents=True, exist_ok=True)
            replace_file(self.directory / "plan", plan.encoded)
            self._files = DataFiles(self.directory, plan.manifest)
            self._journal = Journal(self.directory / "journal", plan.manifest.n_chunks)
            self._digests = os.open(self.directory / "digests", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._digests, plan.manifest.n_chunks * DIGEST_BYTES)
        self.held: Bits = self._journal.held
        self._unsynced_bytes = 0
        self._lock = RLock()
        self._settle()

    def put_unit(self, unit: FileUnit, data: bytes) -> None:
        """Keep the chunks of a unit. Raise ResourceError."""
        for chunk, part in self.plan.cut(unit, data):
            self.put(chunk, part)

    def put_header(self, header: bytes) -> None:
        """Keep the chunks of the header."""
        for chunk in self.plan.manifest.header_chunks:
            self.put(chunk, header[chunk * HEADER_STEP : (chunk + 1) * HEADER_STEP])

    def put(self, chunk: int, data: bytes) -> None:
        """Keep a chunk, and note its hash."""
        digest = blake3(data).digest()
        with self._lock, disk_errors(self.directory, "home"):
            if self.held[chunk]:
                return
            os.pwrite(self._digests, digest, chunk * DIGEST_BYTES)
            self._files.write(chunk, data)
            self._journal.note_held(chunk)
            self.held[chunk] = True
            self._unsynced_bytes += len(data)
            if self._unsynced_bytes >= SYNC_BYTES:
                self._sync()

    def digest(self, chunk: int) -> bytes:
        """The hash of a chunk that is here."""
        return os.pread(self._digests, DIGEST_BYTES, chunk * DIGEST_BYTES)

    def has(self, unit: FileUnit) -> bool:
        """True when all its chunks are here."""
        return bool(self.held[unit.chunks.start : unit.chunks.stop].all())

    def finish(self, manifest: Manifest) -> None:
        """Become the folder of a model of the store, which opens it. Raise RemoteProtocolError for another model's."""
        mine = self.plan.manifest
        if (manifest.header_bytes, manifest.tensors) != (mine.header_bytes, mine.tensors):
            raise RemoteProtocolError("the model that was brought together is another one than was planned")
        wrong = [c for c in np.flatnonzero(self.held) if self.digest(int(c)) != manifest.digest(int(c))]
        with self._lock, disk_errors(self.directory, "home"):
            if wrong:
                self._journal.note_lost(map(int, wrong))
                self.held[wrong] = False
            self._sync()
            self.close()
            replace_file(self.directory / "manifest", manifest.encoded)
            (self.directory / "plan").unlink()
            (self.directory / "digests").unlink()

    def close(self) -> None:
        """Let go; what is here stays."""
        with self._lock:
            self._files.close()
            if self._digests >= 0:
                self._journal.close()
                os.close(self._digests)
                self._digests = -1

    def _sync(self) -> None:
        n_notes = self._journal.n_notes
        os.fdatasync(self._digests)
        flush(self._files.take_dirty())
        self._journal.note_synced(n_notes)
        self._journal.flush()
        self._unsynced_bytes = 0

    def _settle(self) -> None:
        """After a crash: believe only what is really there."""
        for group, chunks in self._files.chunks.items():
            if self.held[chunks].any() and not self._files.is_whole(group):
                self._forget(int(chunk) for chunk in chunks if self.held[chunk])
        claims = [chunk for chunk in self._journal.unsynced if self.held[chunk]]
        sizes = self.plan.manifest.chunk_sizes
        self._forget(c for c in claims if blake3(self._files.read(c, 0, int(sizes[c]))).digest() != self.digest(c))

    def _forget(self, chunks: Iterable[int]) -> None:
        lost = list(chunks)
        if lost:
            self._journal.note_lost(lost)
            self.held[lost] = False


class UnitPieces:
    """The units of one file that this device is to bring, as `download` wants them: pieces that are kept."""

    def __init__(self, gathering: Gathering, units: Collection[FileUnit]) -> None:
        self._gathering = gathering
        self._units = sorted(units, key=lambda unit: unit.start)
        self.have: Bits = np.array([gathering.has(unit) for unit in self._units], np.bool_)
        self.n_bytes = sum(unit.end - unit.start for unit in self._units)

    @property
    def kept_bytes(self) -> int:
        return sum(unit.end - unit.start for unit, is_here in zip(self._units, self.have, strict=True) if is_here)

    def piece(self, number: int) -> range:
        return range(self._units[number].start, self._units[number].end)

    def put(self, number: int, data: bytes) -> None:
        self._gathering.put_unit(self._units[number], data)
        self.have[number] = True

    def runs(self, most_bytes: int) -> Iterator[range]:
        """Missing units that lie one after the other in the file, of so many bytes at most."""
        first = 0
        for number in range(1, len(self._units) + 1):
            run = range(first, number)
            n_bytes = self._units[number - 1].end - self._units[first].start
            ends = number == len(self._units) or self.have[number] != self.have[first]
            if ends or n_bytes >= most_bytes or self._units[number].start != self._units[number - 1].end:
                if not self.have[first]:
                    yield run
                first = number
