"""A GGUF file that is written tensor by tensor, and goes on where a run that was cut off had come to.

The file grows under the name `partial_of(path)`. Beside it lies a note of how many tensors are surely on the disk, and
of what is being made: the header, which holds everything but the weights, and where these come from. A second run with
the same header and sources keeps what is there.
"""

from __future__ import annotations

import json
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.convert.types import F32, U8, stored
from swarm.errors import ConfigError, ResourceError
from swarm.files import check_space, is_disk_full, partial_of, publish, replace_file, try_lock
from swarm.kernels.quants import Quant
from swarm.limits import CONVERT_SYNC_BYTES

ALIGNMENT = 32
VERSION = 3
Value = str | bool | int | float | Sequence[str] | npt.NDArray[np.generic]
Metadata = Mapping[str, Value]
Progress = Callable[[int, int], None]  # bytes written, bytes in all
Piece = Callable[[], F32 | U8]  # some rows, when they are wanted: floats, or bytes as they are stored

# Numbers of the types of values.
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U64 = 4, 5, 6, 7, 8, 9, 10
_ARRAY_TYPES = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": _U32, "i4": _I32, "f4": _F32, "b1": _BOOL}
_ARRAY_TYPES |= {"u8": _U64, "i8": 11, "f8": 12}


@dataclass(frozen=True)
class OutputTensor:
    """A tensor to write: its pieces are its rows in order, each read and stored only when it is its turn."""

    name: str
    shape: tuple[int, ...]
    quant: Quant
    pieces: Sequence[Piece]

    @property
    def n_bytes(self) -> int:
        rows = int(np.prod(self.shape[:-1], dtype=np.int64))
        return rows * self.quant.row_bytes(self.shape[-1])


def write_model(
    path: Path,
    metadata: Metadata,
    tensors: Sequence[OutputTensor],
    source: str,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> int:
    """Write the file; return the bytes that an earlier run had left. `source` says where the weights come from.

    Raise ConfigError when the file is there or being written, DiskFull before the first byte.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already; remove it, or give another name with -o")
    head = header(metadata, tensors)
    total = len(head) + sum(_padded(tensor.n_bytes) for tensor in tensors)
    output = _Output(path, head, str(blake3(head + source.encode()).hexdigest()))
    with output:
        kept = output.begin(tensors, total)
        for tensor in tensors[kept:]:
            for raw in _in_order(tensor, threads):
                output.write(raw)
                if progress:
                    progress(output.written, total)
            output.end_tensor(tensor)
        output.finish()
    return output.found


def header(metadata: Metadata, tensors: Sequence[OutputTensor]) -> bytes:
    """Everything before the weights: metadata and the table of tensors."""
    parts = [b"GGUF", struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _value(value)]
    offset = 0
    for tensor in tensors:
        dims = tuple(reversed(tensor.shape))
        parts += [_text(tensor.name), struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.quant.id, offset)]
        offset += _padded(tensor.n_bytes)
    head = b"".join(parts)
    return head + bytes(_padded(len(head)) - len(head))


def _in_order(tensor: OutputTensor, threads: int) -> Iterator[U8]:
    """The bytes of a tensor's pieces, a few of them in work at once and never more in memory."""
    with ThreadPoolExecutor(threads, thread_name_prefix="quantize") as pool:
        under_way: deque[Future[U8]] = deque()
        try:
            for piece in tensor.pieces:
                under_way.append(pool.submit(_bytes_of, piece, tensor.quant))
                if len(under_way) > threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _bytes_of(piece: Piece, quant: Quant) -> U8:
    rows = piece()
    return rows.view(np.uint8) if rows.dtype == np.uint8 else stored(quant, rows.view(np.float32))


class _Output:
    """The growing file and the note beside it."""

    def __init__(self, path: Path, head: bytes, what: str) -> None:
        self._path, self._partial, self._head, self._what = path, partial_of(path), head, what
        self._note = self._partial.with_suffix(".note")
        self._file: IO[bytes] | None = None
        self._done = self._unsynced = 0
        self.written = self.found = 0

    def __enter__(self) -> _Output:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._failed(error) from error
        if not try_lock(descriptor):
            os.close(descriptor)
            raise ConfigError(f"{self._path} is being written by another process; wait for it, or give another name")
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._file is not None
        if error is not None:
            with suppress(OSError):  # what is there is kept for the next run, as far as it can be
                self._sync()
        self._file.close()
        if isinstance(error, OSError):
            raise self._failed(error) from error

    def begin(self, tensors: Sequence[OutputTensor], total: int) -> int:
        """Keep the tensors that an earlier run surely wrote; return how many."""
        assert self._file is not None
        self._done = min(self._noted(), len(tensors))
        self.written = len(self._head) + sum(_padded(tensor.n_bytes) for tensor in tensors[: self._done])
        if os.fstat(self._file.fileno()).st_size < self.written:
            self._done, self.written = 0, len(self._head)
        self.found = self.written if self._done else 0
        self._file.truncate(self.written if self._done else 0)
        check_space(self._path.parent, total - self.found, "free some, or choose another folder with -o")
        self._file.seek(0)
        self._write(self._head)
        self._file.seek(self.written)
        return self._done

    def write(self, raw: U8) -> None:
        self._write(np.ascontiguousarray(raw).data.cast("B"))
        self.written += raw.size
        self._unsynced += raw.size

    def end_tensor(self, tensor: OutputTensor) -> None:
        padding = _padded(tensor.n_bytes) - tensor.n_bytes
        self._write(bytes(padding))
        self.written += padding
        self._done += 1
        if self._unsynced >= CONVERT_SYNC_BYTES:
            self._sync()

    def finish(self) -> None:
        """Give the file its name."""
        publish(self._partial, self._path)
        self._note.unlink(missing_ok=True)

    def _write(self, data: bytes | memoryview) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _sync(self) -> None:
        assert self._file is not None
        os.fdatasync(self._file.fileno())
        note = {"what": self._what, "tensors": self._done}
        replace_file(self._note, json.dumps(note).encode())
        self._unsynced = 0

    def _noted(self) -> int:
        """Tensors that an earlier run of the same has noted; 0 when it was another, or the note is not whole."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            note = json.loads(self._note.read_bytes())
            if note.get("what") == self._what and isinstance(note["tensors"], int):
                return max(0, int(note["tensors"]))
        return 0

    def _failed(self, error: OSError) -> ResourceError:
        if is_disk_full(error):
            return ResourceError(f"the disk of {self._path.parent} is full; what is made is kept: free some, and go on")
        return ResourceError(f"cannot write {self._path} ({error.strerror or error})")


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Value) -> bytes:
    """A value with its type. Whole numbers are u32 where they fit, as llama.cpp expects most of them."""
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<IB", _BOOL, value)
    if isinstance(value, int):
        kind, code = (_I32, "i") if value < 0 else (_U32, "I") if value < 1 << 32 else (_U64, "Q")
        return struct.pack(f"<I{code}", kind, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, np.ndarray):
        kind = _ARRAY_TYPES[f"{value.dtype.kind}{value.dtype.itemsize}"]
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + np.ascontiguousarray(value).tobytes()
    return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_text, value))


def rows_of(read: Callable[[int, int], F32 | U8], n_rows: int, row_bytes: int, piece_bytes: int) -> Iterable[Piece]:
    """Pieces of a matrix whose rows [start, end) `read` gives, of about so many bytes each."""
    step = max(1, piece_bytes // max(row_bytes, 1))
    for start in range(0, n_rows, step):
        yield _Rows(read, start, min(start + step, n_rows))


@dataclass(frozen=True)
class _Rows:
    read: Callable[[int, int], F32 | U8]
    start: int
    end: int

    def __call__(self) -> F32 | U8:
        return self.read(self.start, self.end)
