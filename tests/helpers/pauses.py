"""How long other threads of the process had to wait for the interpreter."""

from __future__ import annotations

import gc
import threading
import time
import warnings

BEAT_S = 0.002


class PauseWatch:
    """A thread that does nothing but wake up; `longest_s` is how late it once was, while the context was open."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def __enter__(self) -> PauseWatch:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # clients of others leave loops and sockets open
            gc.collect()
        gc.freeze()  # what other tests left behind is no part of a node, and would be looked through again and again
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        gc.unfreeze()

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(BEAT_S):
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - last - BEAT_S)
            last = now
        self.longest_s = max(self.longest_s, time.monotonic() - last - BEAT_S)
