"""Keys and values of a conversation in a file: what was computed once is read again, bit for bit.

    magic, length and header     who wrote it knows what it says
    digest                       of all that
    pieces                       PIECE_TOKENS positions of all layers, each with its digest, which covers the header's

Positions come in their order, so a reader takes as many as it wants, or has time for. A piece that is damaged, or that
is of another file, ends the reading; what came before it is right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.files import PRIVATE, partial_of
from swarm.kernels import _native
from swarm.limits import MAX_KEPT_HEADER_BYTES, SYNC_BYTES

U8 = npt.NDArray[np.uint8]
MAGIC = b"swarm kv 1\n"
PIECE_TOKENS = 256  # read, checked and taken at once: 10 MiB of GLM-4-9B
PANEL_TOKENS = 16  # positions that lie together (csrc/ops.h)
DIGEST_BYTES = 32


def write_kv(path: Path, header: bytes, n: int, next_piece: Callable[[int, int], U8 | None]) -> int:
    """Write the first n positions, whole panels of 16, into a file; return its bytes, or 0 when told to stop.

    `next_piece(first, end)` gives positions as `piece_of` does, one range after the other, or None, which is to stop.
    The file has its name once it is whole; whether it survives a power cut, its digests tell. Raise OSError; nothing is
    left then.
    """
    partial = partial_of(path)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            n_bytes = _write(file, header, n, next_piece)
        if n_bytes:
            partial.replace(path)
            return n_bytes
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    partial.unlink()
    return 0


def read_header(path: Path) -> bytes | None:
    """What was written as a file's header; None for anything else, and where it is damaged. Raise OSError."""
    with path.open("rb") as file:
        return _read_header(file)


def read_kv(
    path: Path, header: bytes, cache: _native.KvCache, n: int, take: Callable[[int, int, U8], bool]
) -> Iterator[int]:
    """Read the first n positions: `take(first, end, bytes)` gets each piece that is whole; yield its end.

    Ends early where `take` returns False; raise ValueError where the file is damaged or another one, and OSError.
    """
    with path.open("rb") as file:
        if _read_header(file) != header:
            raise ValueError("it is of another conversation, or its header is damaged")
        seal = _digest(header)
        for first in range(0, n, PIECE_TOKENS):
            end = _stored_end(file, cache, first)
            piece = np.frombuffer(file.read((end - first) * _position_bytes(cache)), np.uint8)
            digest = file.read(DIGEST_BYTES)
            if len(piece) != (end - first) * _position_bytes(cache) or digest != _piece_digest(seal, first, piece):
                raise ValueError(f"positions from {first} on are damaged")
            if not take(first, min(end, n), piece):
                return
            yield min(end, n)


def piece_of(cache: _native.KvCache, first: int, end: int) -> U8:
    """Positions [first, end) of all layers, whole panels of 16, as they are written; raise ValueError beyond them."""
    if end > cache.length:
        raise ValueError(f"{cache.length} positions in memory, {end} were to be kept")
    panels = slice(first // PANEL_TOKENS, end // PANEL_TOKENS)
    parts = [rows[:, panels].reshape(-1) for layer in range(cache.n_layers) for rows in cache.rows(layer)]
    return np.concatenate(parts)


def put(cache: _native.KvCache, first: int, end: int, piece: U8) -> None:
    """Positions [first, end) of a piece become the next ones of a cache; it must hold `first` and have room."""
    if cache.length != first or end > cache.capacity:
        raise ValueError(f"positions {first} to {end} into {cache.length} of {cache.capacity}")
    panels = slice(first // PANEL_TOKENS, end // PANEL_TOKENS)
    at, n_panels = 0, len(piece) // (_position_bytes(cache) * PANEL_TOKENS)
    for layer in range(cache.n_layers):
        for rows in cache.rows(layer):
            heads, _, width = rows.shape
            size = heads * n_panels * width
            stored = piece[at : at + size].reshape(heads, n_panels, width)
            rows[:, panels] = stored[:, : panels.stop - panels.start]
            at += size
    cache.fill(end)


# --- within


def _write(file: BinaryIO, header: bytes, n: int, next_piece: Callable[[int, int], U8 | None]) -> int:
    file.write(_sealed(header))
    seal = _digest(header)
    synced = 0
    for first in range(0, n, PIECE_TOKENS):
        piece = next_piece(first, min(first + PIECE_TOKENS, n))
        if piece is None:
            return 0
        file.write(piece.data)
        file.write(_piece_digest(seal, first, piece))
        if file.tell() - synced >= SYNC_BYTES:  # memory is short where this is done: it is not to fill with what waits
            synced = file.tell()
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, synced, os.POSIX_FADV_DONTNEED)
    return file.tell()


def _position_bytes(cache: _native.KvCache) -> int:
    """What a position takes in all layers."""
    rows = (each for layer in range(cache.n_layers) for each in cache.rows(layer))
    return sum(int(each.shape[0] * each.shape[2]) for each in rows) // PANEL_TOKENS


def _stored_end(file: BinaryIO, cache: _native.KvCache, first: int) -> int:
    """Where the piece that begins at `first` ends: the last one of a file is shorter."""
    left = os.fstat(file.fileno()).st_size - file.tell() - DIGEST_BYTES
    n = min(left // _position_bytes(cache), PIECE_TOKENS)
    if n <= 0 or n % PANEL_TOKENS:
        raise ValueError(f"it ends before position {first}")
    return first + n


def _sealed(header: bytes) -> bytes:
    start = MAGIC + len(header).to_bytes(4, "little") + header
    return start + _digest(start)


def _read_header(file: BinaryIO) -> bytes | None:
    start = file.read(len(MAGIC) + 4)
    size = int.from_bytes(start[len(MAGIC) :], "little")
    if not start.startswith(MAGIC) or size > MAX_KEPT_HEADER_BYTES:
        return None
    header = file.read(size)
    return header if _sealed(header) == start + header + file.read(DIGEST_BYTES) else None


def _piece_digest(seal: bytes, first: int, piece: U8) -> bytes:
    hasher = blake3(seal + first.to_bytes(8, "little"))
    hasher.update(piece.data)
    digest: bytes = hasher.digest()
    return digest


def _digest(data: bytes) -> bytes:
    digest: bytes = blake3(data).digest()
    return digest
