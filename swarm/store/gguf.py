"""GGUF model files: opened memory-mapped, checked, and read without copying."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from swarm.architectures import architecture
from swarm.errors import BadModelFile, ModelNotFound, UnsupportedQuant
from swarm.store.gguf_header import GGUFHeader, GGUFTensor, parse_header, parse_metadata
from swarm.store.gguf_metadata import Metadata
from swarm.store.gguf_pieces import JOINED, is_joined, what_piece
from swarm.store.rectangles import U8, Rows, cut
from swarm.store.split_names import is_split, split_paths


class GGUF:
    """An open model: metadata, tensor table, and zero-copy views of the tensors' bytes. Made by open_gguf."""

    def __init__(self, paths: list[Path], maps: list[mmap.mmap], headers: list[GGUFHeader]) -> None:
        self.path = paths[0]
        self.split_files = tuple(paths)
        self.size_bytes = sum(map(len, maps))
        self.metadata: Metadata = headers[0].metadata
        self.tensors: Mapping[str, GGUFTensor] = merged_tensors(paths, headers)
        self.header_bytes = headers[0].metadata_end
        self._maps = maps
        self._stamps = [_stamp(path) for path in paths]
        self._descriptors: dict[int, int] = {}

    @property
    def is_there(self) -> bool:
        """False when a file was cut or replaced since it was opened: what is mapped of it may be gone."""
        now = [_stamp(path) for path in self.split_files]
        return all(
            new is not None and old is not None and new[:2] == old[:2]
            for new, old in zip(now, self._stamps, strict=True)
        )

    def was_written(self) -> bool:
        """True when a file was written to since this was asked last: what was verified may be other bytes."""
        before, self._stamps = self._stamps, [_stamp(path) for path in self.split_files]
        return before != self._stamps

    def read(self, split: int, offset: int, n_bytes: int) -> bytes:
        """Bytes of a file as they lie there, fewer where it ends: what is cut under us gives no signal."""
        fd = self._descriptors.get(split)
        if fd is None:
            fd = self._descriptors[split] = os.open(self.split_files[split], os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(fd, n_bytes, offset)

    def header(self) -> memoryview:
        """The bytes of the first file up to the end of the metadata."""
        return memoryview(self._maps[0])[: self.header_bytes]

    def raw(self, name: str, rows: Rows | None = None, columns: range | None = None) -> U8:
        """The stored bytes of a tensor, or of a rectangle of it: (rows ..., row_bytes).

        A read-only view of the file; a copy where `rows` are several ranges.
        """
        tensor = self.tensors[name]
        flat = np.frombuffer(self._maps[tensor.split], np.uint8, tensor.n_bytes, tensor.offset)
        whole = flat.reshape(*tensor.shape[:-1], tensor.quant.row_bytes(tensor.shape[-1]))
        return cut(whole, tensor.quant, rows, columns)

    def slabs(
        self, name: str, rows: Rows | None = None, columns: range | None = None, slabs: range | None = None
    ) -> Iterator[U8]:
        """The rectangle of each expert of a tensor (its outer dimensions), one after the other, as `raw` gives it.

        slabs: of these only.
        """
        whole = self.raw(name)
        every = whole.reshape(-1, *whole.shape[-2:])
        for slab in every if slabs is None else every[slabs.start : slabs.stop]:
            yield cut(slab, self.tensors[name].quant, rows, columns)

    def drop(self, name: str) -> None:
        """Let the system take back the memory that reading this tensor has filled; views stay valid."""
        tensor = self.tensors[name]
        start = tensor.offset - tensor.offset % mmap.PAGESIZE
        self._maps[tensor.split].madvise(mmap.MADV_DONTNEED, start, tensor.offset + tensor.n_bytes - start)

    def close(self) -> None:
        """Unmap the files; one that is still viewed goes with its last view."""
        for mapped in self._maps:
            try:
                mapped.close()
            except BufferError:
                continue
        self._maps = []
        for fd in self._descriptors.values():
            os.close(fd)
        self._descriptors = {}

    def __enter__(self) -> GGUF:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_gguf(path: str | os.PathLike[str]) -> GGUF:
    """Open a GGUF file, or all files of a split one of which any is given.

    Raise ModelNotFound when a file is missing, BadModelFile when one is broken, UnsupportedQuant for a tensor of a type
    that Swarm does not run, UnsupportedModel when such a file is not of a kind that it runs.
    """
    paths = split_paths(Path(path))
    maps = [_map_file(file) for file in paths]
    try:
        headers = _read_headers(paths, maps)
    except BadModelFile:
        if is_piece := what_piece(paths[0]):
            raise BadModelFile(f"{paths[0]}: {is_piece}") from None
        raise
    if len(paths) == 1 and is_joined(maps[0], headers[0]):
        raise BadModelFile(f"{paths[0]}: {JOINED}")
    check_split(paths, headers)
    return GGUF(paths, maps, headers)


def _read_headers(paths: list[Path], maps: list[mmap.mmap]) -> list[GGUFHeader]:
    try:
        return [
            parse_header(data, str(file), number) for number, (file, data) in enumerate(zip(paths, maps, strict=True))
        ]
    except UnsupportedQuant:
        architecture(parse_metadata(maps[0], str(paths[0])))  # another quant of a model that cannot run helps nobody
        raise


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _map_file(path: Path) -> mmap.mmap:
    try:
        # A pipe that nobody writes to would hold an ordinary open for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ModelNotFound(f"{path}: there is no such file{_missing_file_hint(path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadModelFile(f"{path}: cannot be opened ({reason})") from error
    try:
        return _map_open_file(fd, path)
    finally:
        os.close(fd)


def _map_open_file(fd: int, path: Path) -> mmap.mmap:
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        raise BadModelFile(f"{path}: it is a directory; give a .gguf file{_files_hint(path)}")
    if not stat.S_ISREG(status.st_mode):
        raise BadModelFile(f"{path}: it is not a regular file; give a .gguf file")
    if status.st_size == 0:
        raise BadModelFile(f"{path}: the file is empty; fetch it again")
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise BadModelFile(f"{path}: cannot be mapped into memory ({error.strerror})") from error


def _missing_file_hint(path: Path) -> str:
    if is_split(path):
        return "; the model is split over several files, fetch all of them into one directory"
    return _files_hint(path.parent)


def _files_hint(directory: Path) -> str:
    """Names a few models that do lie in `directory`."""
    try:
        names = sorted(entry.name for entry in directory.iterdir() if entry.suffix == ".gguf")
    except OSError:
        return ""
    return f"; there is {', '.join(names[:3])}" if names else ""


def check_split(paths: Sequence[Path | str], headers: Sequence[GGUFHeader]) -> None:
    """Raise BadModelFile unless the split.* keys of each file agree with its name; the first has all metadata."""
    for number, (path, header) in enumerate(zip(paths, headers, strict=True)):
        _check_key(path, header, "split.no", number, len(paths) == 1)
        _check_key(path, header, "split.count", len(paths), len(paths) == 1)
    n_tensors = sum(len(header.tensors) for header in headers)
    claimed = headers[0].metadata.get("split.tensors.count", n_tensors)
    if not isinstance(claimed, int) or claimed != n_tensors:
        raise BadModelFile(
            f"{paths[0]}: split.tensors.count: it does not say {n_tensors}, as all its files hold; fetch them again"
        )


def _check_key(path: Path | str, header: GGUFHeader, key: str, expected: int, single: bool) -> None:
    """A file that is alone may say nothing, or that it is number 0 of 0 or 1."""
    value = header.metadata.get(key, expected if single else None)
    if isinstance(value, int) and (value == expected or (single and value == 0)):
        return
    if single and isinstance(value, int):
        raise BadModelFile(
            f"{path}: {key} is {value}: it is one file of a split model; give it back its name NAME-00001-of-0000N.gguf"
        )
    raise BadModelFile(f"{path}: {key}: it does not say {expected}, as the file's name does; fetch all its files again")


def merged_tensors(paths: Sequence[Path | str], headers: Sequence[GGUFHeader]) -> dict[str, GGUFTensor]:
    """The tensors of all files of a model. Raise BadModelFile when two have one of the same name."""
    tensors: dict[str, GGUFTensor] = {}
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in tensors:
                first = Path(paths[tensors[tensor.name].split]).name
                raise BadModelFile(
                    f"{paths[tensor.split]}: tensor {tensor.name!r} is in {first} too; fetch all its files again"
                )
            tensors[tensor.name] = tensor
    return tensors
