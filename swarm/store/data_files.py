"""The chunks of one model on disk: one sparse file a layer, every chunk at a place that the manifest alone decides.

Chunks of a tensor lie one after the other, so a layer loads with sequential reads, an expert or a slice is one piece,
and letting go of a layer is deleting its file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarm.files import PRIVATE, sync
from swarm.limits import MAX_OPEN_DATA_FILES, MAX_STORE_FILES
from swarm.store.manifest import HEADER_STEP, Manifest
from swarm.wire.codec import Buffer

HEADER, OUTSIDE = "header", "outside"  # the files of what belongs to no layer
_libc, _OFFSET = ctypes.CDLL(None), ctypes.c_int64
_LAYER = re.compile(r"blk\.(\d{1,4})\.")
_ALIGNMENT = 4096  # of a tensor in its file: pages are mapped, and direct reads need it


class DataFiles:
    """Writes, reads and maps chunks. Knows nothing of which are there or right."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self._directory = directory
        self._manifest = manifest
        self._regions: dict[str, tuple[str, int]] = {}  # tensor -> file, where it begins there
        self._sizes: dict[str, int] = {HEADER: manifest.header_bytes}
        self.chunks: dict[str, list[int]] = {HEADER: list(manifest.header_chunks)}  # of every file
        for tensor in manifest.tensors:
            group = group_of(tensor.name)
            self.chunks.setdefault(group, []).extend(tensor.chunks)
            start = self._sizes.get(group, 0)
            self._regions[tensor.name] = (group, start)
            self._sizes[group] = start + -(-tensor.n_bytes // _ALIGNMENT) * _ALIGNMENT
        self._open: OrderedDict[str, int] = OrderedDict()
        self._dirty: set[str] = set()

    def write(self, chunk: int, data: Buffer) -> None:
        group, offset = self.position(chunk)
        fd = self._descriptor(group)
        view = memoryview(data)
        while view:
            n_written = os.pwrite(fd, view, offset)
            view, offset = view[n_written:], offset + n_written
        self._dirty.add(group)

    def read(self, chunk: int, start: int, n_bytes: int) -> bytes:
        """Bytes of a chunk, fewer when the file is shorter than it was.

        A plain read and not a view: a peer waits for the network anyway, the copy costs less than the page faults of a
        fresh mapping (0.1 ms a MiB), and a file that somebody truncates gives a short read instead of SIGBUS.
        """
        group, offset = self.position(chunk)
        return os.pread(self._descriptor(group), n_bytes, offset + start)

    def view(self, name: str) -> npt.NDArray[np.uint8]:
        """The chunks of a tensor, one after the other, mapped."""
        group, start = self._regions[name]
        return self._map(group)[start : start + self._manifest.by_name[name].n_bytes]

    def header(self) -> mmap.mmap:
        return mmap.mmap(self._descriptor(HEADER), self._manifest.header_bytes, access=mmap.ACCESS_READ)

    def position(self, chunk: int) -> tuple[str, int]:
        """The file of a chunk, and where it lies in it."""
        tensor = self._manifest.tensor_of(chunk)
        if tensor is None:
            return HEADER, chunk * HEADER_STEP
        group, start = self._regions[tensor.name]
        return group, start + tensor.offset(chunk)

    def path_of(self, chunk: int) -> Path:
        return self._path(self.position(chunk)[0])

    def is_whole(self, group: str) -> bool:
        """False when the file is missing or was cut: then nothing in it counts."""
        try:
            return self._path(group).stat().st_size == self._sizes[group]
        except OSError:
            return False

    def delete(self, group: str) -> None:
        fd = self._open.pop(group, None)
        if fd is not None:
            os.close(fd)
        self._dirty.discard(group)
        self._path(group).unlink(missing_ok=True)

    def free(self, chunks: Iterable[int]) -> None:
        """Give the room of these chunks back to the disk; nothing where it cannot take a part of a file back."""
        pieces: dict[str, list[tuple[int, int]]] = {}
        for chunk in sorted(chunks):
            group, start = self.position(chunk)
            end = start + int(self._manifest.chunk_sizes[chunk])
            of_group = pieces.setdefault(group, [])
            if of_group and of_group[-1][1] == start:
                of_group[-1] = of_group[-1][0], end
            else:
                of_group.append((start, end))
        for group, ranges in pieces.items():
            for start, end in ranges:
                punch(self._descriptor(group), start, end - start)

    def take_dirty(self) -> list[Path]:
        """The files written since the last time, for `flush`."""
        paths = [self._path(group) for group in self._dirty] + [self._directory] * bool(self._dirty)
        self._dirty.clear()
        return paths

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _path(self, group: str) -> Path:
        return self._directory / f"{group}.data"

    def _map(self, group: str) -> npt.NDArray[np.uint8]:
        return np.frombuffer(mmap.mmap(self._descriptor(group), 0, access=mmap.ACCESS_READ), np.uint8)

    def _descriptor(self, group: str) -> int:
        fd = self._open.get(group)
        if fd is not None:
            self._open.move_to_end(group)
            return fd
        if len(self._open) >= MAX_OPEN_DATA_FILES:
            os.close(self._open.popitem(last=False)[1])
        path = self._path(group)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
        if os.fstat(fd).st_size != self._sizes[group]:
            os.ftruncate(fd, self._sizes[group])
        self._open[group] = fd
        return fd


def punch(descriptor: int, start: int, n_bytes: int) -> bool:
    """Make a hole in a file, which keeps its size; False where the file system has none."""
    keep_size_and_punch = 1 | 2
    call = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)
    return call is not None and call(descriptor, keep_size_and_punch, _OFFSET(start), _OFFSET(n_bytes)) == 0


def can_punch(directory: Path) -> bool:
    """Whether a file there can have holes made in it. Raise OSError."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"1" * _ALIGNMENT)
        file.flush()
        return punch(file.fileno(), 0, _ALIGNMENT)


def flush(paths: Iterable[Path]) -> None:
    """Wait until the disk has what was written to these files and directories; needs nothing of a DataFiles."""
    for path in paths:
        with suppress(FileNotFoundError):  # deleted since
            sync(path)


def group_of(name: str) -> str:
    """The file that holds a tensor: one for each layer, one for the rest."""
    match = _LAYER.match(name)
    return f"layer{int(match[1]):04d}" if match and int(match[1]) < MAX_STORE_FILES else OUTSIDE
