"""The experts of a layer in a file, packed: each is one aligned run of gate, up and down, to be read alone.

    page 0         JSON: shapes, sizes, the checksum of the table
    table          uint32 (n_experts, pieces): CRC32C of each piece of each expert
    experts        one after the other, `expert_bytes` each

Written once, from the GGUF file or the chunks of a store, and read by the threads of an expert cache past the page
cache. A file that is complete has its name; one that was cut off is written again.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarm.files import PRIVATE, disk_full, is_disk_full, partial_of, publish
from swarm.kernels import PACKED_LAYOUT, _native

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

FORMAT = "swarm experts 1"
PAGE = 4096  # what reads past the page cache are aligned to, on any disk
PIECE_BYTES = 832 * PAGE  # read at once: a third of an expert of GLM-4.5-Air, so that several readers share one miss
DIRECT = getattr(os, "O_DIRECT", 0)
DAMAGED, NOTE = ".damaged", ".chunks"  # after a file's name, see expert_chunks.py


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """What all experts of a layer look like: quant number, rows and columns of gate, up and down."""

    n_experts: int
    matrices: tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]

    @property
    def offsets(self) -> list[int]:
        """Where gate, up and down begin in an expert's bytes, and where they end."""
        ends = [0]
        for quant, rows, cols in self.matrices:
            ends.append((ends[-1] + _native.packed_bytes(quant, rows, cols, cols) + 63) // 64 * 64)
        return ends

    @property
    def expert_bytes(self) -> int:
        """What one expert takes on disk and in memory: whole pages."""
        return _whole_pages(self.offsets[-1])

    def mats(self, memory: U8) -> tuple[_native.Mat, _native.Mat, _native.Mat]:
        """The three matrices of an expert whose bytes begin at the start of `memory`."""
        offsets = self.offsets
        gate, up, down = (
            _native.Mat(*matrix, memory[offsets[i] : offsets[i + 1]]) for i, matrix in enumerate(self.matrices)
        )
        return gate, up, down


class ExpertFile:
    """An open file of experts. `through_page_cache`: this disk refuses reads that leave it out."""

    def __init__(self, path: Path, shape: ExpertShape, piece_bytes: int, sums: U32, descriptor: int) -> None:
        self.path, self.shape, self.piece_bytes, self.sums = path, shape, piece_bytes, sums
        self.first = _first(shape, piece_bytes)  # where expert 0 begins
        self.descriptor = descriptor
        self.through_page_cache = not read_past_page_cache(descriptor)

    @classmethod
    def open(cls, path: Path, shape: ExpertShape, piece_bytes: int = PIECE_BYTES) -> ExpertFile | None:
        """The file, when it is there, complete, and holds experts of this shape."""
        with suppress(OSError, ValueError, RecursionError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                header = json.loads(os.pread(descriptor, PAGE, 0).rstrip(b"\0"))
                sums = _table(descriptor, shape, piece_bytes)
                if header == _header(shape, piece_bytes, sums) and _is_whole(descriptor, shape, piece_bytes):
                    return cls(path, shape, piece_bytes, sums, os.dup(descriptor))
            finally:
                os.close(descriptor)
        return None

    @classmethod
    def damaged(cls, path: Path) -> bool | None:
        """Whether an expert of a file differs from its checksum; None for what is no file of experts."""
        with suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
            with path.open("rb") as opened:
                told = json.loads(opened.read(PAGE).rstrip(b"\0"))
            first, second, third = (tuple(map(int, matrix)) for matrix in told["matrices"])
            shape = ExpertShape(int(told["experts"]), (first, second, third))  # type: ignore[arg-type]
            file = cls.open(path, shape, int(told["piece_bytes"]))
            return None if file is None else not file.is_right
        return None

    @property
    def is_right(self) -> bool:
        """Whether all experts have their checksums: all of it is read."""
        whole = np.memmap(self.path, np.uint8, "r", self.first, (self.shape.n_experts, self.shape.expert_bytes))
        pieces = range(0, self.shape.expert_bytes, self.piece_bytes)
        return all(
            _native.crc32c(expert[at : at + self.piece_bytes]) == int(self.sums[number][i])
            for number, expert in enumerate(whole)
            for i, at in enumerate(pieces)
        )

    def close(self) -> None:
        """Nobody reads it any more."""
        os.close(self.descriptor)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            self.close()


def write_experts(
    path: Path,
    shape: ExpertShape,
    experts: Iterable[Sequence[U8]],
    *,
    threads: int = 1,
    piece_bytes: int = PIECE_BYTES,
    written: Callable[[int], None] | None = None,
) -> None:
    """Pack `experts` (gate, up, down of each: GGUF rows) into a new file at `path`, with its directory's lock held.

    written: told the bytes of each expert. Raise DiskFull.
    """
    partial = partial_of(path)
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    try:
        # A full disk says so now, and the file lies in one run where the disk has one.
        os.posix_fallocate(descriptor, 0, _first(shape, piece_bytes) + shape.n_experts * shape.expert_bytes)
        sums = _write_all(descriptor, shape, _packed(shape, experts, threads), piece_bytes, written)
        _pwrite(descriptor, sums.tobytes(), PAGE)
        _pwrite(descriptor, json.dumps(_header(shape, piece_bytes, sums)).encode().ljust(PAGE, b"\0"), 0)
        publish(partial, path)
        _forget(descriptor)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path.parent, "XDG_CACHE_HOME or --home") from error
        raise
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def note_of(path: Path) -> Path:
    """What says which chunks of a store lie nowhere but in this file."""
    return path.with_name(path.name + NOTE)


def take_away(path: Path) -> None:
    """A damaged file is to be written anew; what is right in it stays readable where nothing else has it."""
    if note_of(path).exists():
        path.replace(path.with_name(path.name + DAMAGED))
    else:
        path.unlink(missing_ok=True)


def _packed(shape: ExpertShape, experts: Iterable[Sequence[U8]], threads: int) -> Iterator[U8]:
    """The bytes of one expert after the other, in the same memory."""
    memory = np.frombuffer(mmap.mmap(-1, shape.expert_bytes), np.uint8)
    for matrices in experts:
        for (quant, _, cols), raw, start in zip(shape.matrices, matrices, shape.offsets, strict=False):
            _native.pack(quant, np.ascontiguousarray(raw), cols, memory[start:], 0, threads)
        yield memory


def _write_all(
    descriptor: int, shape: ExpertShape, packed: Iterable[U8], piece_bytes: int, written: Callable[[int], None] | None
) -> U32:
    expert_bytes, number = shape.expert_bytes, 0
    sums = np.zeros((shape.n_experts, _pieces(shape, piece_bytes)), np.uint32)
    for number, memory in enumerate(packed, 1):
        sums[number - 1] = [_native.crc32c(memory[at : at + piece_bytes]) for at in range(0, expert_bytes, piece_bytes)]
        _pwrite(descriptor, memory.tobytes(), _first(shape, piece_bytes) + (number - 1) * expert_bytes)
        if written is not None:
            written(expert_bytes)
    if number != shape.n_experts:
        raise ValueError(f"{number} experts of {shape.n_experts}")
    return sums


def _pwrite(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done


def _forget(descriptor: int) -> None:
    """What was written is not read through the page cache: leave that to others."""
    with suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _whole_pages(n_bytes: int) -> int:
    return (n_bytes + PAGE - 1) // PAGE * PAGE


def _pieces(shape: ExpertShape, piece_bytes: int) -> int:
    return (shape.expert_bytes + piece_bytes - 1) // piece_bytes


def _first(shape: ExpertShape, piece_bytes: int) -> int:
    return PAGE + _whole_pages(4 * shape.n_experts * _pieces(shape, piece_bytes))


def _header(shape: ExpertShape, piece_bytes: int, sums: U32) -> dict[str, object]:
    return {
        "format": FORMAT,
        "layout": PACKED_LAYOUT,
        "experts": shape.n_experts,
        "matrices": [list(matrix) for matrix in shape.matrices],
        "piece_bytes": piece_bytes,
        "table": _native.crc32c(np.frombuffer(sums.tobytes(), np.uint8)),
    }


def _table(descriptor: int, shape: ExpertShape, piece_bytes: int) -> U32:
    pieces = _pieces(shape, piece_bytes)
    data = os.pread(descriptor, 4 * shape.n_experts * pieces, PAGE)
    return np.frombuffer(data, np.uint32).reshape(shape.n_experts, pieces)


def _is_whole(descriptor: int, shape: ExpertShape, piece_bytes: int) -> bool:
    return os.fstat(descriptor).st_size == _first(shape, piece_bytes) + shape.n_experts * shape.expert_bytes


def read_past_page_cache(descriptor: int) -> bool:
    """Have this descriptor read past the page cache, and try it: file systems in memory or behind FUSE refuse."""
    if not DIRECT:
        return False
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | DIRECT)
        os.preadv(descriptor, [mmap.mmap(-1, PAGE)], 0)
        return True
    except OSError:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        return False
