"""The chunks of one model on this device: some in data files or files of experts, or all in the GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from typing import Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.cores import default_threads
from swarm.errors import ResourceError
from swarm.files import disk_errors
from swarm.store.data_files import DataFiles, can_punch, flush
from swarm.store.gguf import GGUF
from swarm.store.gguf_chunks import InOrder, chunk_of_gguf
from swarm.store.journal import Journal
from swarm.store.manifest import Manifest
from swarm.wire.codec import Buffer

Bits = npt.NDArray[np.bool_]


class Elsewhere(Protocol):
    """Where chunks of a model lie besides data files and the GGUF file: those of experts, packed, without loss."""

    def chunks(self) -> list[int]: ...
    def read(self, chunk: int) -> bytes | None: ...
    def close(self) -> None: ...
    def delete(self) -> None: ...


class ModelChunks:
    """Puts, reads and verifies chunks; safe to use from several threads."""

    def __init__(
        self, directory: Path, manifest: Manifest, source: GGUF | None = None, elsewhere: Elsewhere | None = None
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.source = source
        self.files = DataFiles(directory, manifest)
        self._journal = Journal(directory / "journal", manifest.n_chunks)
        self.on_disk: Bits = self._journal.held
        self.in_source: Bits = np.full(manifest.n_chunks, source is not None, np.bool_)
        self.elsewhere = elsewhere
        self.in_experts: Bits = np.zeros(manifest.n_chunks, np.bool_)  # what only `elsewhere` has
        self.may_move = False  # chunks of experts may go from data files while somebody reads
        self.held: Bits = self.on_disk | self.in_source  # what can be read here; kept up to date
        self._checked: Bits = np.zeros(manifest.n_chunks, np.bool_)
        # What the data files take. Chunks in the user's own GGUF file cost nothing.
        self.stored_bytes = int(manifest.chunk_sizes[self.on_disk].sum())
        self.unsynced_bytes = 0  # put since the last flush
        self._may_vouch = True
        self._lock = RLock()
        self._settle()
        if elsewhere is not None:
            moved = [chunk for chunk in elsewhere.chunks() if not self.on_disk[chunk]]
            self._count_elsewhere(moved)
            if moved:
                self.files.free(moved)  # a run that was killed may have left them there

    def put(self, chunk: int, data: Buffer) -> bool:
        """Keep a chunk that a peer sent; False when it is not what the manifest says. Raise DiskFull."""
        if len(data) != self.manifest.chunk_sizes[chunk] or not self._is_right(chunk, data):
            return False
        with self._lock, disk_errors(self.directory, "home"):
            if not self.held[chunk]:
                self.files.write(chunk, data)
                self._journal.note_held(chunk)
                self.on_disk[chunk] = self.held[chunk] = self._checked[chunk] = True
                self.stored_bytes += len(data)
                self.unsynced_bytes += len(data)
        return True

    def read(self, chunk: int, start: int = 0, n_bytes: int | None = None) -> Buffer | None:
        """Bytes [start, start + n_bytes) of a chunk, None when it is not here. Its hash is checked once in each run."""
        size = int(self.manifest.chunk_sizes[chunk])
        n_bytes = size - start if n_bytes is None else n_bytes
        if not 0 <= start <= start + n_bytes <= size:
            return None
        if self.in_source[chunk]:
            self._look_at_source()
        with self._lock:
            if self.on_disk[chunk] and self._checked[chunk]:
                data = self.files.read(chunk, start, n_bytes)
                if len(data) == n_bytes:
                    return data
                self._lose(chunk)
            whole = self._read_whole(chunk)
        return None if whole is None else memoryview(whole)[start : start + n_bytes]

    def check(self, chunks: Iterable[int]) -> list[int]:
        """Hash those of these chunks that were not hashed in this run, before they count; return what is damaged.

        What is damaged is not held any more. Disks and memory flip bits, and a bit of a weight changes answers unseen.
        """
        self._look_at_source()
        return self._hash_all([chunk for chunk in chunks if self.held[chunk] and not self._checked[chunk]])

    def verify(self, progress: Callable[[int, int], None] | None = None) -> list[int]:
        """Hash everything that is here anew; forget what is wrong and return it."""
        self._look_at_source()
        with self._lock:
            self._checked[:] = False
        return self._hash_all([int(chunk) for chunk in np.flatnonzero(self.held)], progress)

    @property
    def can_move(self) -> bool:
        """Whether the disk would have the room of chunks that go. Raise OSError."""
        return can_punch(self.directory)

    def move_out(self, chunks: list[int]) -> int:
        """These chunks are right `elsewhere`: they go from the data files; return the bytes gained.

        What `elsewhere` has must survive a power cut by now. Raise ResourceError.
        """
        with self._lock, disk_errors(self.directory, "home"):
            moved = [chunk for chunk in chunks if self.on_disk[chunk] and not self.in_source[chunk]]
            if not moved or not self.can_move:
                return 0
            self._count_elsewhere(moved)
            self._forget(moved)
            self._journal.flush()  # as in `trim`
            self.files.free(moved)
            return int(self.manifest.chunk_sizes[moved].sum())

    def trim(self, keep: Iterable[int]) -> int:
        """Delete the data files in which no chunk is worth keeping; return the bytes gained."""
        kept = np.zeros(self.manifest.n_chunks, np.bool_)
        kept[list(keep)] = True
        with self._lock:
            before = self.stored_bytes
            for group, chunks in self.files.chunks.items():
                if not kept[chunks].any():
                    # First the note: a file without a note costs a fetch, a note without a file would cost trust.
                    # It must be on the disk before the file goes: else, after a power cut, a note without its file.
                    self._forget([chunk for chunk in chunks if self.on_disk[chunk]])
                    self._journal.flush()
                    self.files.delete(group)
            return before - self.stored_bytes

    def sync(self) -> None:
        """Flush: what is here now is here after a power cut, too. Others may read and put meanwhile."""
        with self._lock:
            n_notes, paths = self._journal.n_notes, self.files.take_dirty()
            self.unsynced_bytes = 0
        if not paths:
            return
        try:
            with disk_errors(self.directory, "home"):
                flush(paths)
        except ResourceError:
            # Linux forgets what it could not write: no later flush of this run may vouch for it.
            self._may_vouch = False
            raise
        with self._lock:
            if self._may_vouch:
                self._journal.note_synced(n_notes)
        self._journal.flush()  # the notes as well: without them nobody knows what the files hold

    def close(self) -> None:
        with self._lock:
            self.sync()
            self.files.close()
            self._journal.close()
            if self.elsewhere is not None:
                self.elsewhere.close()
            if self.source is not None:
                self.source.close()

    def _settle(self) -> None:
        """After a crash: believe only what is really there."""
        for group, chunks in self.files.chunks.items():
            if self.on_disk[chunks].any() and not self.files.is_whole(group):
                self._forget([chunk for chunk in chunks if self.on_disk[chunk]])
        claims = [chunk for chunk in self._journal.unsynced if self.on_disk[chunk]]
        self._forget([chunk for chunk in claims if not self._is_right(chunk, self._read_disk(chunk))])
        self._checked[claims] = self.on_disk[claims]
        if claims:
            flush({self.directory, *(self.files.path_of(chunk) for chunk in claims)})
            self._journal.note_synced(self._journal.n_notes)

    def _read_whole(self, chunk: int) -> Buffer | None:
        """A chunk from wherever it is, hashed unless that was done before."""
        data = self._read_raw(chunk)
        if data is None:
            if self.in_experts[chunk]:
                self._lose(chunk)
            return None
        # What is elsewhere is written anew by others: it is hashed each time, which costs less than to unpack it.
        if (self._checked[chunk] and not self.in_experts[chunk]) or self._is_right(chunk, data):
            self._checked[chunk] = True
            return data
        self._lose(chunk)
        return None

    def _read_raw(self, chunk: int, in_order: InOrder | None = None) -> bytes | None:
        """A chunk from wherever it is, right or not; None where it is not here."""
        if self.on_disk[chunk]:
            return self._read_disk(chunk)
        if self.in_experts[chunk] and self.elsewhere is not None:
            return self.elsewhere.read(chunk)
        if not self.in_source[chunk] or self.source is None:
            return None
        return in_order.read(chunk) if in_order is not None else chunk_of_gguf(self.source, self.manifest, chunk)

    def _hash_all(self, chunks: list[int], progress: Callable[[int, int], None] | None = None) -> list[int]:
        """Read these chunks one after the other, as a disk likes it, and hash them on all cores; return the damaged."""
        wrong: list[int] = []
        in_order = InOrder(self.source, self.manifest) if self.source is not None else None

        def look(chunk: int) -> int | None:
            with self._lock:
                data = self._read_raw(chunk, in_order)
            right = data is not None and self._is_right(chunk, data)
            with self._lock:
                if right:
                    self._checked[chunk] = self.held[chunk]
                elif self.held[chunk]:
                    self._lose(chunk)
            return None if right else chunk

        with ThreadPoolExecutor(default_threads(), "digest") as pool:
            for number, damaged in enumerate(pool.map(look, chunks), 1):
                wrong += [] if damaged is None else [damaged]
                if progress:
                    progress(number, len(chunks))
        return wrong

    def _look_at_source(self) -> None:
        """A file that its user has cut or replaced serves no more; one that was written to is hashed again."""
        with self._lock:
            if self.source is None or not self.in_source.any():
                return
            if not self.source.is_there:
                self.in_source[:] = False
                self.held[:] = self.on_disk | self.in_experts
                self._checked &= self.on_disk
            elif self.source.was_written():
                self._checked &= self.on_disk

    def _read_disk(self, chunk: int) -> bytes:
        return self.files.read(chunk, 0, int(self.manifest.chunk_sizes[chunk]))

    def _is_right(self, chunk: int, data: Buffer) -> bool:
        return blake3(data).digest() == self.manifest.digest(chunk)

    def _lose(self, chunk: int) -> None:
        """A chunk turned out to be damaged: it is fetched again like any other that is not here."""
        if self.in_experts[chunk]:
            self.in_experts[chunk] = False
            self.stored_bytes -= int(self.manifest.chunk_sizes[chunk])
        self.in_source[chunk] = self.held[chunk] = False
        if self.on_disk[chunk]:
            self._forget([chunk])

    def _count_elsewhere(self, chunks: list[int]) -> None:
        """These chunks, not in data files, are elsewhere: they are held, and count against the quota, as before."""
        fresh = [chunk for chunk in chunks if not self.in_experts[chunk]]
        self.stored_bytes += int(self.manifest.chunk_sizes[fresh].sum()) if fresh else 0
        self.in_experts[fresh] = self.held[fresh] = True

    def _forget(self, chunks: list[int]) -> None:
        if chunks:
            self.stored_bytes -= int(self.manifest.chunk_sizes[chunks].sum())
            self.on_disk[chunks] = self._checked[chunks] = False
            self.held[chunks] = self.in_source[chunks] | self.in_experts[chunks]
            self._journal.note_lost(chunks)
