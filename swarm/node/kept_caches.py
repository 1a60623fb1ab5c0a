"""Caches of the compute worker that are filled from files, or copied into them, a piece between two steps.

Files are read and written on other threads; these ask for each piece, and what they ask for is done on the worker's. A
session that is opened anew meanwhile takes no more of it, and gives none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from swarm.cluster.effects import KeptBeginning, KeptKv
from swarm.engine.kv_file import piece_of, put
from swarm.kernels import _native
from swarm.limits import KEPT_READ_S
from swarm.node.kept_kv import KeptFiles
from swarm.wire.ids import SessionId

log = logging.getLogger(__name__)
U8 = npt.NDArray[np.uint8]
Result = TypeVar("Result")


class KeptCaches:
    """On the worker's thread, but for what waits for it."""

    def __init__(
        self,
        files: KeptFiles,
        *,
        call: Callable[[Callable[[], None]], object],
        cache_of: Callable[[SessionId], _native.KvCache | None],
        have_read: Callable[[SessionId, int, int], object],
    ) -> None:
        """`call` has a function called on the worker's thread, after all that was put before; from any thread.

        `have_read`: the session begins, at that epoch, with so many positions of its file.
        """
        self._files = files
        self._call = call
        self._cache_of = cache_of
        self._have_read = have_read
        self._under_way: dict[SessionId, object] = {}  # what is read for a session, or kept of it

    def opened(self, session: SessionId, beginning: KeptBeginning | None) -> None:
        """A session was opened: what was under way for it ends; its cache is filled with a beginning, if it has one."""
        self._under_way.pop(session, None)
        cache = self._cache_of(session)
        if beginning is None or cache is None:
            return
        self._under_way[session] = beginning

        def take(first: int, end: int, piece: U8) -> bool:
            return bool(self._between_steps(lambda: self._put(session, beginning, cache, (first, end, piece))))

        self._files.read(beginning, cache, take, lambda: self._call(lambda: self._was_read(session, beginning, cache)))

    def keep(self, session: SessionId, kept: KeptKv) -> None:
        """Write what its cache begins with into a file, and let it stay."""
        cache = self._cache_of(session)
        if cache is None:
            self._files.write(kept, None)  # says so
            return
        self._under_way[session] = kept

        def give(first: int, end: int) -> U8 | None:
            if self._cache_of(session) is not cache:
                return None  # it is not waited for a thread that may have ended
            return self._between_steps(lambda: self._copy(session, kept, cache, (first, end)))

        self._files.copy(kept, give, lambda: self._call(lambda: self._was_kept(session, kept)))

    # --- within

    def _between_steps(self, do: Callable[[], Result]) -> Result | None:
        """What comes of it on the worker's thread; None: a long step is in the way, or the thread has ended."""
        result: Future[Result] = Future()

        def run() -> None:
            try:
                result.set_result(do())
            except Exception as error:  # for whoever waits
                result.set_exception(error)

        self._call(run)
        try:
            return result.result(KEPT_READ_S)
        except TimeoutError:
            return None

    def _is_under_way(self, session: SessionId, work: object, cache: _native.KvCache) -> bool:
        return self._under_way.get(session) is work and self._cache_of(session) is cache

    def _put(
        self, session: SessionId, beginning: KeptBeginning, cache: _native.KvCache, piece: tuple[int, int, U8]
    ) -> bool:
        if not self._is_under_way(session, beginning, cache):
            return False
        try:
            put(cache, *piece)
        except ValueError:
            log.exception("a bug")
            return False
        return True

    def _was_read(self, session: SessionId, beginning: KeptBeginning, cache: _native.KvCache) -> None:
        if self._under_way.get(session) is beginning:
            del self._under_way[session]
            self._have_read(session, beginning.epoch, cache.length)

    def _copy(self, session: SessionId, kept: KeptKv, cache: _native.KvCache, positions: tuple[int, int]) -> U8 | None:
        if not self._is_under_way(session, kept, cache):
            return None
        return piece_of(cache, *positions)

    def _was_kept(self, session: SessionId, kept: KeptKv) -> None:
        if self._under_way.get(session) is kept:
            del self._under_way[session]
