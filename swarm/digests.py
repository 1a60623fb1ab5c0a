"""Digests of large runs of bytes, piece by piece and on all cores: at the speed of the disk, or of memory.

Disks and memory flip bits, and one bit of a weight changes answers unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.cores import default_threads
from swarm.limits import DIGEST_PIECE_BYTES

U8 = npt.NDArray[np.uint8]
DIGEST_BYTES = 32


def piece_digests(data: U8) -> Iterator[bytes]:
    """The BLAKE3 of each piece of `data`, in order; the last piece may be shorter."""
    starts = range(0, len(data), DIGEST_PIECE_BYTES)
    with ThreadPoolExecutor(min(default_threads(), max(len(starts), 1)), "digest") as pool:
        yield from pool.map(lambda start: piece_digest(data, start), starts)


def piece_digest(data: U8, start: int) -> bytes:
    """The BLAKE3 of the piece of `data` that begins at `start`."""
    digest: bytes = blake3(data[start : start + DIGEST_PIECE_BYTES].data).digest()
    return digest


def table_bytes(n_bytes: int) -> int:
    """What the digests of so many bytes take, with one of themselves and of the number."""
    return (-(-n_bytes // DIGEST_PIECE_BYTES) + 1) * DIGEST_BYTES


def bytes_before_table(size: int) -> int | None:
    """The bytes of which a file of `size` bytes holds the digests behind them; None for a size that none has."""
    n_pieces = -(-size // (DIGEST_PIECE_BYTES + DIGEST_BYTES))
    sizes = (size - (n + 1) * DIGEST_BYTES for n in (n_pieces - 1, n_pieces))
    return next((n_bytes for n_bytes in sizes if n_bytes > 0 and n_bytes + table_bytes(n_bytes) == size), None)


def sealed(n_bytes: int, digests: bytes) -> bytes:
    """Digests and one of themselves: what tells damage of the table from damage of the bytes."""
    seal: bytes = blake3(n_bytes.to_bytes(8, "little") + digests).digest()
    return digests + seal


def unsealed(n_bytes: int, table: bytes) -> bytes | None:
    """The digests in a table; None when it is not one of so many bytes, or damaged itself."""
    digests = table[:-DIGEST_BYTES]
    return digests if table == sealed(n_bytes, digests) else None
