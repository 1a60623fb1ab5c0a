"""One file, from whoever gives ranges of it, into kept pieces: several streams at once, resumed where they were cut."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from swarm.errors import DownloadError
from swarm.limits import DOWNLOAD_PATIENCE_S, DOWNLOAD_STREAMS, MAX_RATE_WAIT_S, RUN_BYTES
from swarm.store.web_file import Interrupted, Later, Unreachable

Progress = Callable[[int, int], None]  # bytes here, bytes in all
Waiting = Callable[[str], None]  # told why nothing comes

_FIRST_PAUSE_S = 1.0  # after a cut; doubles up to the next
_MAX_PAUSE_S = 30.0
_POLL_S = 0.2  # how late Ctrl-C is heard


class ByteSource(Protocol):
    """A file that can be read by ranges."""

    @property
    def has_ranges(self) -> bool:
        """False when every read begins at the first byte, whatever is asked."""

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes [start, end) in order. Raise Interrupted when they stop early, DownloadError when asking is no use."""


class Pieces(Protocol):
    """What is to come of a file: pieces, each a range of it, in the order of the file."""

    @property
    def have(self) -> npt.NDArray[np.bool_]:
        """Which pieces are here."""

    @property
    def n_bytes(self) -> int:
        """Of all pieces."""

    @property
    def kept_bytes(self) -> int:
        """Of those that are here."""

    def piece(self, number: int) -> range:
        """The bytes of the file that a piece has."""

    def put(self, number: int, data: bytes) -> None:
        """Keep a piece."""

    def runs(self, most_bytes: int) -> Iterator[range]:
        """Missing pieces that lie one after the other."""


@dataclass(frozen=True)
class _Piece:
    """A piece came."""

    number: int
    data: bytes


@dataclass(frozen=True)
class _Over:
    """A run ended: whole when `error` is None."""

    run: range
    error: Exception | None


def download(
    source: ByteSource, pieces: Pieces, progress: Progress, waiting: Waiting, *, streams: int = DOWNLOAD_STREAMS
) -> None:
    """Have all pieces. Raise DownloadError when the source refuses or stays silent; what has come stays in any case.

    `progress` or `waiting` is called several times a second, whatever happens; what it raises ends the download.
    """
    _Download(source, pieces, progress, waiting, streams).run()


class _Download:
    """Threads read, one each run of pieces; this thread writes and decides, and hears Ctrl-C."""

    def __init__(self, source: ByteSource, pieces: Pieces, progress: Progress, waiting: Waiting, streams: int) -> None:
        self._source = source
        self._pieces = pieces
        self._progress = progress
        self._waiting = waiting
        self._streams = streams
        self._events: queue.Queue[_Piece | _Over] = queue.Queue(maxsize=4 * streams)
        self._stop = threading.Event()
        self._n_running = 0
        self._has_heard = False
        self._silent_s = 0.0  # for how long nothing came
        self._pause_s = _FIRST_PAUSE_S

    def run(self) -> None:
        """Until all is here."""
        try:
            while not self._pieces.have.all():
                self._start_streams()
                self._take()
            self._progress(self._pieces.n_bytes, self._pieces.n_bytes)
        finally:
            self._stop.set()
            self._drain()

    def _start_streams(self) -> None:
        """Give idle streams runs that nobody reads yet: only between rounds, so that none is asked for twice."""
        if self._n_running:
            return
        one = not self._source.has_ranges
        most = self._pieces.n_bytes if one else max(RUN_BYTES // 4, min(RUN_BYTES, self._share()))
        runs = list(self._pieces.runs(most))
        lanes = [runs[:1]] if one else [runs[lane :: self._streams] for lane in range(self._streams)]
        for lane in filter(None, lanes):
            self._n_running += 1
            threading.Thread(target=self._read_all, args=(lane,), name="download", daemon=True).start()

    def _share(self) -> int:
        return -(-(self._pieces.n_bytes - self._pieces.kept_bytes) // self._streams)

    def _read_all(self, runs: list[range]) -> None:
        """A stream: its runs, one after the other, until one fails."""
        done = runs[0]
        error: Exception | None = None
        for done in runs:
            try:
                self._read(done)
            except Exception as caught:  # told to the thread that waits for it
                error = caught
                break
        self._tell(_Over(done, error))

    def _read(self, run: range) -> None:
        first, last = self._pieces.piece(run.start), self._pieces.piece(run.stop - 1)
        number, buffer = run.start, bytearray()
        for data in self._source.read(first.start, last.stop):
            buffer += data
            while number < run.stop and len(buffer) >= len(self._pieces.piece(number)):
                size = len(self._pieces.piece(number))
                self._tell(_Piece(number, bytes(buffer[:size])))
                del buffer[:size]
                number += 1
            if self._stop.is_set():
                return
        if number < run.stop:
            raise Interrupted("the connection was closed early")

    def _tell(self, event: _Piece | _Over) -> None:
        while not self._stop.is_set():
            try:
                self._events.put(event, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def _take(self) -> None:
        """The next thing that happens."""
        while True:
            try:
                event = self._events.get(timeout=_POLL_S)
            except queue.Empty:
                self._progress(self._pieces.kept_bytes, self._pieces.n_bytes)  # who watches may want to end it
                continue
            break
        if isinstance(event, _Piece):
            self._pieces.put(event.number, event.data)
            self._progress(self._pieces.kept_bytes, self._pieces.n_bytes)
            self._has_heard, self._silent_s, self._pause_s = True, 0.0, _FIRST_PAUSE_S
            return
        self._n_running -= 1
        if event.error is not None:
            self._bear(event.error)

    def _bear(self, error: Exception) -> None:
        """Wait and go on after what time may mend; raise what it does not."""
        passing = isinstance(error, Interrupted | Later) or (self._has_heard and isinstance(error, Unreachable))
        pause_s = error.wait_s if isinstance(error, Later) else self._pause_s
        if not passing:
            raise error
        if self._silent_s + pause_s > DOWNLOAD_PATIENCE_S or pause_s > MAX_RATE_WAIT_S:
            raise DownloadError(f"{error}; what has come is kept: the same command goes on there") from error
        if self._n_running:
            return  # others still read; this stream is started again with them
        self._silent_s += pause_s
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
        ends_at = time.monotonic() + pause_s
        while True:
            self._waiting(f"{error}; trying again in {pause_s:.0f} s")
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                return
            self._stop.wait(min(left_s, _POLL_S))

    def _drain(self) -> None:
        """Keep what has come meanwhile."""
        with suppress(queue.Empty, OSError):  # a full disk was told already
            while True:
                event = self._events.get_nowait()
                if isinstance(event, _Piece) and not self._pieces.have[event.number]:
                    self._pieces.put(event.number, event.data)
