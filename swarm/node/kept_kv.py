"""Files of keys and values: written and read on threads of their own, beside the steps of others.

Memory is given up when its file is whole. What stays in memory is written slowly, by a thread that gives way to all
others, and only up to a part of what a day allows. What is read is checked piece by piece, and taken by the compute
worker between two steps; a question waits for it for KEPT_READ_S at most, and computes the rest. No more is written in
a day than the files may take together: an SD card of a chat that comes and goes for years must live.

What another build of Swarm has computed may differ in bits, so it is not used, and is deleted at the start.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Event, Lock

import msgspec
import numpy as np
import numpy.typing as npt

from swarm import limits
from swarm.cluster.effects import ForgetKept, KeptBeginning, KeptKv, KeptPlace
from swarm.engine.kv_file import piece_of, read_header, read_kv, write_kv
from swarm.errors import DiskFull
from swarm.files import check_space, is_disk_full, make_private, replace_file
from swarm.kernels import _native
from swarm.node.background import give_way_to_others
from swarm.wire.ids import ModelId, PeerId

log = logging.getLogger(__name__)
U8 = npt.NDArray[np.uint8]
Take = Callable[[int, int, U8], bool]
Give = Callable[[int, int], U8 | None]
SUFFIX = ".kv"
DAY_S = 86400.0


class _FileHeader(msgspec.Struct, frozen=True, array_like=True):
    """What a file says of itself."""

    build: str
    entry: str
    owner: bytes
    model: str
    kv: str
    first: int
    end: int
    slice: tuple[int, ...]
    ids: bytes


class KeptFiles:
    """The files of one node; `written` and `lost` are called on its threads."""

    def __init__(
        self,
        root: Path,
        quota_bytes: int,
        *,
        spare_bytes: Callable[[], int],
        written: Callable[[str], object],
        lost: Callable[[str, str], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`spare_bytes`: what of the node's part of the disk nothing else takes. `lost` hears why."""
        self.quota_bytes = quota_bytes
        self._root = root
        self._spare_bytes = spare_bytes
        self._written = written
        self._lost = lost
        self._clock = clock
        self._stopping = Event()
        self._end_by = float("inf")  # of time.monotonic
        self._lock = Lock()
        self._waiting_bytes = 0
        # A question does not wait for what is written, and one that is answered from the disk not for another.
        self._writer = ThreadPoolExecutor(1, "swarm-kv-write")
        self._reader = ThreadPoolExecutor(2, "swarm-kv-read")
        self._copier = ThreadPoolExecutor(1, "swarm-kv-copy", initializer=give_way_to_others)

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self.quota_bytes > 0

    def scan(self) -> list[KeptKv]:
        """What earlier runs have left, the one that was used longest ago first; what is of no use is deleted."""
        with suppress(OSError):
            if not self.is_on:
                self._delete_all()
                return []
            _secret(self._root)
            used = [(path.stat().st_mtime_ns, path) for path in self._root.iterdir() if path.name != OWNER_KEY]
            kept = [self._look_at(path) for _, path in sorted(used)]
            return [each for each in kept if each is not None]
        return []

    def owner_of(self, asker: str) -> bytes:
        """What stands for an asker in what devices keep: nobody finds out who that is. Empty: nothing is kept."""
        if not self.is_on:
            return b""
        return hashlib.blake2b(asker.encode(), key=_secret(self._root), digest_size=limits.OWNER_BYTES).digest()

    def disown(self) -> None:
        """From now on nothing that was kept for this node's users before is found again, on any device."""
        _secret.cache_clear()
        with suppress(OSError):
            (self._root / OWNER_KEY).unlink()

    def write(self, kept: KeptKv, kv: _native.KvCache | None) -> None:
        """Write a cache, which is nobody else's any more, into a file; None: it was lost before."""
        if kv is None:
            self._lost(kept.name, "a step had taken it away")
            return
        with self._lock:
            is_too_much = self._waiting_bytes + kept.n_bytes > limits.MAX_KEPT_WAITING_BYTES
            if is_too_much and self._waiting_bytes and not self._stopping.is_set():
                self._lost(kept.name, "the disk is too slow for what memory has no room for")
                return
            self._waiting_bytes += kept.n_bytes
        self._writer.submit(self._write, kept, [kv])

    def copy(self, kept: KeptKv, give: Give, done: Callable[[], object]) -> None:
        """Write what stays in memory: `give` is asked for piece after piece, None ends it; in the end, `done`."""
        self._copier.submit(self._copy, kept, give, done)

    def read(self, beginning: KeptBeginning, kv: _native.KvCache, take: Take, done: Callable[[], object]) -> None:
        """Read what a cache of that kind begins with: `take` gets each piece that is whole; in the end, `done`."""
        self._reader.submit(self._read, beginning, kv, take, done)

    def forget(self, effect: ForgetKept) -> None:
        """Delete files."""
        if self._stopping.is_set():
            self._delete(effect.names)
        else:
            self._writer.submit(self._delete, effect.names)

    def stop(self) -> None:
        """End what is read; what waits to be written is, for KEPT_END_S."""
        self._end_by = time.monotonic() + limits.KEPT_END_S
        self._stopping.set()
        self._reader.shutdown(cancel_futures=True)
        self._copier.shutdown(cancel_futures=True)
        self._writer.shutdown()

    # --- the threads

    def _write(self, kept: KeptKv, caches: list[_native.KvCache]) -> None:
        """`caches` holds the only one, so that its memory goes as soon as it is written."""
        kv = caches.pop()

        def give(first: int, end: int) -> U8 | None:
            return piece_of(kv, first, end) if time.monotonic() < self._end_by else None

        why = self._write_file(kept, give, self.quota_bytes)
        if why is not None:
            self._lost(kept.name, why or "the node ended before it was written")
        with self._lock:
            self._waiting_bytes -= kept.n_bytes

    def _copy(self, kept: KeptKv, give: Give, done: Callable[[], object]) -> None:
        """The same at a pace that others do not feel."""
        wait_s = 0.0

        def give_slowly(first: int, end: int) -> U8 | None:
            nonlocal wait_s
            piece = None if self._stopping.wait(wait_s) else give(first, end)
            wait_s = len(piece) / limits.KEPT_REST_BYTES_PER_S if piece is not None else 0.0
            return piece

        why = self._write_file(kept, give_slowly, int(limits.KEPT_REST_DAY_SHARE * self.quota_bytes))
        if why is not None:
            self._lost(kept.name, why or "it is gone on with")
        done()

    def _write_file(self, kept: KeptKv, give: Give, day_bytes: int) -> str | None:
        """Write a file; return why there is none: nothing is said where `give` ended it. None: it is there."""
        given = 0

        def counted(first: int, end: int) -> U8 | None:
            nonlocal given
            piece = give(first, end)
            given += len(piece) if piece is not None else 0
            return piece

        try:
            self._check_room(kept.n_bytes, day_bytes)
            make_private(self._root)
            n_bytes = 0
            try:
                n_bytes = write_kv(self._path(kept.name), _header(kept), kept.n, counted)
            finally:
                self._count(n_bytes or given)  # a card wears by what was not finished, too
            if n_bytes:
                self._written(kept.name)
            return None if n_bytes else ""
        except (OSError, DiskFull, ValueError) as error:
            return "the disk is full" if is_disk_full(error) else str(error)
        except Exception as error:
            log.exception("a bug")
            return f"{type(error).__name__}: {error}"

    def _read(self, beginning: KeptBeginning, kv: _native.KvCache, take: Take, done: Callable[[], object]) -> None:
        kept, deadline = beginning.kept, time.monotonic() + limits.KEPT_READ_S
        path = self._path(kept.name)
        try:
            for _ in read_kv(path, _header(kept), kv, beginning.n, take):
                if self._stopping.is_set() or time.monotonic() > deadline:
                    break
            os.utime(path)  # it was of use
        except (OSError, ValueError) as error:
            self._delete([kept.name])
            self._lost(kept.name, f"it cannot be read: {error}")
        except Exception as error:
            log.exception("a bug")
            self._lost(kept.name, f"{type(error).__name__}: {error}")
        finally:
            done()

    def _delete(self, names: tuple[str, ...] | list[str]) -> None:
        for name in names:
            with suppress(OSError):
                self._path(name).unlink()

    # --- within

    def _path(self, name: str) -> Path:
        return self._root / f"{name}{SUFFIX}"

    def _look_at(self, path: Path) -> KeptKv | None:
        """What a file says that it holds; anything that it should not be is deleted."""
        with suppress(OSError, ValueError, msgspec.MsgspecError):
            told = msgspec.msgpack.decode(read_header(path) or b"", type=_FileHeader)
            kept = KeptKv(
                name=path.stem,
                place=KeptPlace(
                    PeerId(told.entry), told.owner, ModelId(told.model), told.kv, told.first, told.end, told.slice
                ),
                ids=told.ids,
                n_bytes=path.stat().st_size,
            )
            if told.build == build() and path.suffix == SUFFIX and 0 < len(told.owner) <= limits.OWNER_BYTES:
                return kept
        if path.name != DAY_FILE:
            with suppress(OSError):
                path.unlink()
        return None

    def _delete_all(self) -> None:
        for path in self._root.iterdir() if self._root.exists() else ():
            if path.suffix == SUFFIX or path.name.endswith(".partial"):
                path.unlink()

    def _check_room(self, n_bytes: int, day_bytes: int) -> None:
        """Raise DiskFull when so much may not be written now, or not on top of all that was today."""
        if self._on_disk() + n_bytes > self._spare_bytes():
            raise DiskFull("the node's part of the disk is full")
        if self._today()[1] + n_bytes > day_bytes:
            raise DiskFull("as much as a day allows was written already")
        check_space(self._root, n_bytes, "it is computed again")

    def _on_disk(self) -> int:
        return sum(path.stat().st_size for path in self._root.iterdir()) if self._root.exists() else 0

    def _today(self) -> tuple[float, int]:
        """Since when, and how many bytes, were written; a clock that goes back does not make a new day."""
        since, n_bytes = self._clock(), 0
        with suppress(OSError, ValueError, TypeError, KeyError):
            told = json.loads((self._root / DAY_FILE).read_bytes())
            if float(told["since"]) > since - DAY_S:
                return min(float(told["since"]), since), max(int(told["bytes"]), 0)
        return since, n_bytes

    def _count(self, n_bytes: int) -> None:
        with self._lock:
            since, before = self._today()
            told = json.dumps({"since": since, "bytes": before + n_bytes})
            replace_file(self._root / DAY_FILE, told.encode(), durable=False)


OWNER_KEY = "owner.key"
DAY_FILE = "written.json"


@cache
def _secret(root: Path) -> bytes:
    """The secret of this node under which askers are told apart; for this run only where none can be kept."""
    path = root / OWNER_KEY
    secret = secrets.token_bytes(limits.OWNER_BYTES)
    with suppress(OSError):
        make_private(root)
        if path.exists() and len(told := path.read_bytes()) == len(secret):
            return told
        replace_file(path, secret)
    return secret


@cache
def build() -> str:
    """What computes here: another build of the kernels may give other bits."""
    native = Path(str(_native.__file__))
    return hashlib.blake2b(native.read_bytes(), digest_size=16).hexdigest()


def _header(kept: KeptKv) -> bytes:
    at = kept.place
    return msgspec.msgpack.encode(
        _FileHeader(build(), str(at.entry), at.owner, str(at.model), at.kv, at.first, at.end, at.slice, kept.ids)
    )
