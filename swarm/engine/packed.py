"""Packed weights kept in a file: packed once, mapped the next time, and shared by all processes that run the model.

Packing costs about a second for each GiB and core, and writing to fresh memory costs as much again; a mapped file costs
neither. Its pages count as cache: a device short of memory drops and reads them again instead of killing a process. The
price is the model's size on the disk, so only large models on disks with room, and not on SD cards, are kept.

Behind the weights lie their digests. They are looked at before the weights count, and slowly again while they are in
use: what was dropped from memory is read from the disk again.
"""

from __future__ import annotations

import itertools
import logging
import mmap
import os
import shutil
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarm.digests import DIGEST_BYTES, bytes_before_table, piece_digest, piece_digests, sealed, table_bytes, unsealed
from swarm.errors import BadModelFile
from swarm.files import PRIVATE, existing, make_private, partial_of, publish, try_lock
from swarm.limits import DIGEST_PIECE_BYTES, MAX_PACKED_FILES, MIN_PACKED_BYTES, MIN_PACKED_FREE_BYTES, SCRUB_PAUSE_S

U8 = npt.NDArray[np.uint8]
log = logging.getLogger(__name__)


class PackedFile:
    """An arena (see weights.py) in a file named for what lies there. `is_filled`: the weights are already there."""

    def __init__(self, path: Path, n_bytes: int, file: int, *, is_filled: bool) -> None:
        self._path, self._file, self.is_filled, self._n_bytes = path, file, is_filled, n_bytes
        access = mmap.ACCESS_READ if is_filled else mmap.ACCESS_WRITE
        self._map = mmap.mmap(file, _file_bytes(n_bytes), access=access)
        self._inode = os.fstat(file).st_ino
        if is_filled:
            os.close(file)  # of one to be filled it holds the lock
        self._all: U8 = np.frombuffer(self._map, np.uint8)
        self._free = self._all[:n_bytes]
        self._damage = ""

    @classmethod
    def open(cls, folder: Path, key: str, n_bytes: int, contents: str, *, always: bool = False) -> PackedFile | None:
        """The file of these weights, or a new one to fill; None when it is not worth it or cannot be had now.

        `key` names the model and the layout, `contents` the rectangles of it. A damaged file is packed anew.
        """
        path = folder / f"{key}-{contents}.packed"
        with suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            if os.fstat(file).st_size == _file_bytes(n_bytes):
                os.utime(path)
                kept = cls(path, n_bytes, file, is_filled=True)
                if kept.is_right:
                    kept._watch()
                    return kept
                log.warning("%s was damaged on the disk: it is packed anew from the model", path)
            else:
                os.close(file)
        return cls._create(path, n_bytes) if always or is_worth_it(folder, n_bytes) else None

    @classmethod
    def _create(cls, path: Path, n_bytes: int) -> PackedFile | None:
        """A new file, to be renamed when it is complete and on the disk; None when another process is at it."""
        file = -1
        try:
            make_private(path.parent)
            file = os.open(partial_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
            if not try_lock(file):
                os.close(file)
                return None
            os.ftruncate(file, 0)  # what a run that was cut off left may be anything
            # A full disk must say so now, not kill us at a write to the map.
            os.posix_fallocate(file, 0, _file_bytes(n_bytes))
            return cls(path, n_bytes, file, is_filled=False)
        except OSError:
            if file >= 0:
                os.close(file)
            return None

    def take(self, n_bytes: int) -> U8:
        """The next n bytes; each piece starts on a cache line."""
        taken, self._free = self._free[:n_bytes], self._free[(n_bytes + 63) // 64 * 64 :]
        return taken

    def finish(self) -> None:
        """Everything is packed: make it durable in the background, then give it its name."""
        if not self.is_filled:
            threading.Thread(target=self._keep, name="packed-file", daemon=True).start()

    def check(self) -> None:
        """Raise BadModelFile when weights that are in use were found to be damaged."""
        if self._damage:
            raise BadModelFile(self._damage)

    def scrub(self, piece: int) -> None:
        """Look at a piece again, one after the other as `piece` counts on; damage ends what is computed with it."""
        n_pieces = -(-self._n_bytes // DIGEST_PIECE_BYTES)
        at = piece % n_pieces
        right = self._table()[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]
        if piece_digest(self._all[: self._n_bytes], at * DIGEST_PIECE_BYTES) != right:
            self._damage = f"{self._path} was damaged on the disk while it was used; start again: it is packed anew"
            log.warning("%s", self._damage)
            if self._path.stat().st_ino == self._inode:  # else somebody has packed it anew already
                self._path.unlink()

    @property
    def is_damaged(self) -> bool:
        """True when `check` would raise."""
        return bool(self._damage)

    @property
    def is_right(self) -> bool:
        """Whether all of it is what was packed: read once, at the speed of the disk."""
        digests = unsealed(self._n_bytes, self._table())
        return digests is not None and digests == b"".join(piece_digests(self._all[: self._n_bytes]))

    def _table(self) -> bytes:
        return self._all[self._n_bytes :].tobytes()

    def _keep(self) -> None:
        with suppress(OSError):  # not kept: the next run packs again
            digests = b"".join(piece_digests(self._all[: self._n_bytes]))
            self._all[self._n_bytes :] = np.frombuffer(sealed(self._n_bytes, digests), np.uint8)
            publish(partial_of(self._path), self._path)
            prune(self._path.parent)
            self._watch()

    def _watch(self) -> None:
        threading.Thread(target=_scrub, args=(weakref.ref(self),), name="packed-scrub", daemon=True).start()


def _scrub(kept: weakref.ref[PackedFile]) -> None:
    """Look at what is mapped for as long as it is used, a piece at a time."""
    for piece in itertools.count():
        time.sleep(SCRUB_PAUSE_S)
        file = kept()
        if file is None or file.is_damaged:
            return
        with suppress(OSError):
            file.scrub(piece)
        del file


def is_right(path: Path) -> bool | None:
    """Whether a kept file is what it was when it was packed; None for one that no longer is one. Raise OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        n_bytes = bytes_before_table(size)
        return None if n_bytes is None else PackedFile(path, n_bytes, os.dup(file.fileno()), is_filled=True).is_right


def _file_bytes(n_bytes: int) -> int:
    """Of a file with so many bytes of weights: these and the digests behind them."""
    return n_bytes + table_bytes(n_bytes)


def is_worth_it(folder: Path, n_bytes: int) -> bool:
    """True for weights that take long to pack, on a disk that is fast and has room."""
    if n_bytes < MIN_PACKED_BYTES:
        return False
    folder = existing(folder)
    usage = shutil.disk_usage(folder)
    room = usage.free - n_bytes
    return room > max(MIN_PACKED_FREE_BYTES, usage.total // 10) and not is_slow_disk(folder)


def is_slow_disk(path: Path) -> bool:
    """True for SD cards, USB sticks of that kind, and disks that turn: writing gigabytes there takes minutes."""
    device = os.stat(path).st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    with suppress(OSError):
        real = block.resolve(strict=True)
        if "mmcblk" in real.name:
            return True
        for disk in (real, real.parent):
            flag = disk / "queue" / "rotational"
            if flag.exists():
                return flag.read_text().strip() == "1"
    return False


def prune(folder: Path) -> None:
    """Delete the files that were used longest ago, beyond MAX_PACKED_FILES or when the disk fills up."""
    files = sorted(folder.glob("*.packed"), key=lambda p: p.stat().st_mtime)
    usage = shutil.disk_usage(folder)
    while len(files) > 1:
        if len(files) <= MAX_PACKED_FILES and shutil.disk_usage(folder).free > usage.total // 20:
            return
        files.pop(0).unlink(missing_ok=True)
