"""Chunks of experts, read from the files of experts: so that a device which fetched a model does not keep them twice.

A packed matrix gives the bytes of its GGUF rows back, so a chunk is a rectangle of one. Beside a file of experts lies a
note of the chunks that were read from it and had the digest of the manifest; those need not be anywhere else:

    layer0001-....experts           see expert_file.py
    layer0001-....experts.chunks    msgpack: shapes, the rectangles of the model's tensors, the chunks
    layer0001-....experts.damaged   what had such a note and was found damaged, until it is written anew

What is read here is what the disk has: whoever asks compares it with the digest.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from threading import RLock

import msgpack
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.engine.expert_file import DAMAGED, NOTE, ExpertFile, ExpertShape, note_of
from swarm.files import replace_file
from swarm.kernels import _native
from swarm.models.spec import NeededTensor
from swarm.store.manifest import ChunkedTensor, Manifest
from swarm.store.rectangles import Rectangle

U8 = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]
FORMAT = 1
READING = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    msgpack.UnpackException,
)  # a note or a file that is none


class ExpertChunks:
    """The chunks of one model that lie in its files of experts in `folder`; safe to use from several threads."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self._manifest = folder, manifest
        self._files: dict[str, _OpenFile] = {}
        self._where: dict[int, _OpenFile] = {}
        self._lock = RLock()
        for note in sorted(folder.glob(f"*{NOTE}")):
            with suppress(*READING):
                self._add(_opened(note, manifest))

    def chunks(self) -> list[int]:
        """Those that were found right here once."""
        return list(self._where)

    def read(self, chunk: int) -> bytes | None:
        """A chunk as the disk has it; None where it cannot be read."""
        with self._lock, suppress(OSError, ValueError):
            return self._where[chunk].read(chunk) if chunk in self._where else None
        return None

    def take(self, file: ExpertFile, needed: Sequence[NeededTensor], on_disk: Bits) -> list[int]:
        """Note which chunks this file holds; those of them that are right in it. Raise OSError.

        on_disk: which are in data files. Of a file that is known, only those are compared.
        """
        present = self._files.get(file.path.name)
        if present is not None and present.is_at(file.path):
            return [chunk for chunk in present.chunks if on_disk[chunk] and self._is_right(present, chunk)]
        rectangles = [Rectangle(need.ref.name, need.ref.rows, need.ref.columns, need.ref.slabs) for need in needed]
        opened = _OpenFile(file.path, file, rectangles, self._manifest)
        opened.keep_only([chunk for chunk in opened.chunks if self._is_right(opened, chunk)])
        replace_file(note_of(file.path), opened.note())
        self._add(opened)
        return opened.chunks

    def tidy(self) -> None:
        """Delete files whose chunks are all in later ones: of slices that this device had, and damaged ones."""
        with self._lock:
            used = set(map(id, self._where.values()))
            for name, file in list(self._files.items()):
                if id(file) not in used and file.chunks:
                    self._files.pop(name).delete()
            for name in (name for name, file in self._files.items() if file.is_at(self._folder / name)):
                (self._folder / (name + DAMAGED)).unlink(missing_ok=True)

    def close(self) -> None:
        """Nobody reads here any more."""
        self._let_go(_OpenFile.close)

    def delete(self) -> None:
        """Delete the files that chunks were given up for."""
        self._let_go(_OpenFile.delete)

    def _let_go(self, how: Callable[[_OpenFile], None]) -> None:
        with self._lock:
            for file in self._files.values():
                how(file)
            self._files.clear()
            self._where.clear()

    def _is_right(self, file: _OpenFile, chunk: int) -> bool:
        try:
            return blake3(file.read(chunk)).digest() == self._manifest.digest(chunk)
        except (OSError, ValueError):
            return False

    def _add(self, file: _OpenFile) -> None:
        with self._lock:
            before = self._files.get(file.name)
            self._files[file.name] = file
            self._where.update(dict.fromkeys(file.chunks, file))
            if before is not None:
                for chunk in before.chunks:
                    if self._where[chunk] is before:
                        del self._where[chunk]
                before.close()


class _OpenFile:
    """A file of experts and which chunks lie where in it."""

    def __init__(self, path: Path, file: ExpertFile, rectangles: Sequence[Rectangle], manifest: Manifest) -> None:
        self.name = path.name.removesuffix(DAMAGED)
        self.path, self.shape, self._first, self._piece_bytes = path, file.shape, file.first, file.piece_bytes
        self._rectangles = list(rectangles)
        self._tensors = [manifest.by_name[rectangle.name] for rectangle in rectangles]
        self._where = {
            chunk: (matrix, *where)
            for matrix, (tensor, rectangle) in enumerate(zip(self._tensors, rectangles, strict=True))
            if _fits(tensor, rectangle, self.shape.matrices[matrix]) and _gives_back(tensor)
            for chunk, *where in _chunks_within(tensor, rectangle)
        }
        self._last: tuple[tuple[int, int], U8] | None = None  # chunks of a matrix are asked for one after the other
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def chunks(self) -> list[int]:
        return list(self._where)

    def keep_only(self, chunks: Sequence[int]) -> None:
        self._where = {chunk: self._where[chunk] for chunk in chunks if chunk in self._where}
        self._last = None

    def read(self, chunk: int) -> bytes:
        matrix, expert, row, byte = self._where[chunk]
        tensor = self._tensors[matrix]
        _, row0, row1, byte0, byte1 = tensor.place(chunk)
        raw = self._matrix(expert, matrix)
        return raw[row : row + row1 - row0, byte : byte + byte1 - byte0].tobytes()

    def is_at(self, path: Path) -> bool:
        """Whether this is the file that has that path now."""
        with suppress(OSError):
            return self.path == path and os.path.samestat(os.fstat(self._descriptor), path.stat())
        return False

    def note(self) -> bytes:
        rectangles = [
            [r.name, [[rows.start, rows.stop] for rows in r.rows or ()], _ends(r.columns), _ends(r.slabs)]
            for r in self._rectangles
        ]
        table = [FORMAT, self._piece_bytes, self.shape.n_experts, self.shape.matrices, rectangles, self.chunks]
        return bytes(msgpack.packb(table))

    def close(self) -> None:
        os.close(self._descriptor)

    def delete(self) -> None:
        self.close()
        for name in (self.name, self.name + DAMAGED, self.name + NOTE):
            self.path.with_name(name).unlink(missing_ok=True)

    def _matrix(self, expert: int, matrix: int) -> U8:
        """The GGUF rows of a matrix of an expert."""
        last = self._last
        if last is None or last[0] != (expert, matrix):
            start, end = self.shape.offsets[matrix : matrix + 2]
            mapped = mmap.mmap(-1, end - start)
            memory: U8 = np.frombuffer(mapped, np.uint8)
            offset = self._first + expert * self.shape.expert_bytes + start
            if os.preadv(self._descriptor, [mapped], offset) != end - start:
                raise OSError(f"{self.path} is shorter than it was")
            with suppress(OSError):  # read once: leave the page cache to others
                os.posix_fadvise(self._descriptor, offset, end - start, os.POSIX_FADV_DONTNEED)
            last = (expert, matrix), _native.Mat(*self.shape.matrices[matrix], memory).unpack()
            self._last = last
        return last[1]


def _opened(note: Path, manifest: Manifest) -> _OpenFile:
    """The file of a note, or what is left of it; raise one of READING."""
    version, piece_bytes, n_experts, matrices, listed, chunks = msgpack.unpackb(note.read_bytes())
    if version != FORMAT:
        raise ValueError(version)
    shape = ExpertShape(n_experts, tuple(tuple(matrix) for matrix in matrices))  # type: ignore[arg-type]
    rectangles = [
        Rectangle(name, tuple(range(*rows) for rows in rows_of), range(*columns), range(*slabs) if slabs else None)
        for name, rows_of, columns, slabs in listed
    ]
    path = note.with_name(note.name.removesuffix(NOTE))
    for place in (path, path.with_name(path.name + DAMAGED)):
        if (file := ExpertFile.open(place, shape, piece_bytes)) is not None:
            opened = _OpenFile(place, file, rectangles, manifest)
            opened.keep_only(chunks)
            return opened
    raise FileNotFoundError(path)


def _fits(tensor: ChunkedTensor, rectangle: Rectangle, matrix: tuple[int, int, int]) -> bool:
    """Whether a matrix of this shape is this rectangle of a slab, in the type of the file."""
    rows, columns = rectangle.rows or (), rectangle.columns or range(0)
    return matrix == (tensor.quant.id, sum(map(len, rows)), len(columns)) and all(r.step == 1 for r in rows)


def _gives_back(tensor: ChunkedTensor) -> bool:
    """Whether packing this type loses nothing: a few are packed as codes of another."""
    cols = tensor.quant.block_cols
    memory = np.frombuffer(mmap.mmap(-1, _native.packed_bytes(tensor.quant.id, 1, cols, cols)), np.uint8)
    try:
        _native.Mat(tensor.quant.id, 1, cols, memory).unpack()
    except ValueError:
        return False
    return True


def _chunks_within(tensor: ChunkedTensor, rectangle: Rectangle) -> Iterator[tuple[int, int, int, int]]:
    """Chunks that lie whole in a rectangle: number, expert, row and byte of it where the chunk begins."""
    rows, columns = rectangle.rows or (), rectangle.columns or range(0)
    slabs = range(tensor.n_slabs) if rectangle.slabs is None else rectangle.slabs
    left, right = tensor.quant.row_bytes(columns.start), tensor.quant.row_bytes(columns.stop)
    starts = list(accumulate(map(len, rows), initial=0))
    for chunk in tensor.chunks_of(slabs, rows, columns):
        slab, row0, row1, byte0, byte1 = tensor.place(chunk)
        for start, piece in zip(starts, rows, strict=False):
            if piece.start <= row0 and row1 <= piece.stop and left <= byte0 and byte1 <= right:
                yield chunk, slab - slabs.start, start + row0 - piece.start, byte0 - left
                break


def _ends(of: range | None) -> list[int] | None:
    return None if of is None else [of.start, of.stop]
