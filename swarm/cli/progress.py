"""Progress on standard error, with rate and time left: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from swarm.cli.terminal import note
from swarm.units import part_text, rate_text, size_text, time_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


LOG_EVERY_S = 15.0  # a line in a log
RATE_S = 10.0  # over which a rate is measured


class ProgressBar:
    """Called with (what, bytes done, bytes in all); nothing shows before the first call, so quick work is silent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate = Rate()
        self._told_at = 0.0
        self._what = ""
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if what != self._what:
            self.end()
            self._begin(what, done, total, now)
        self._rate.count(done, now)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total or None)
        elif total and now - self._told_at >= LOG_EVERY_S:
            self._told_at = now
            note(f"swarm: {self._what[0].lower()}{self._what[1:]} {part_text(done, total)}{self._rate.text(total)}")

    def _begin(self, what: str, done: int, total: int, now: float) -> None:
        self._what, self._rate, self._told_at = what, Rate(), now
        if not sys.stderr.isatty():
            note(f"swarm: {what[0].lower()}{what[1:]}" + (f" {size_text(total)} ..." if total else " ..."))
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as SpeedColumn

        sizes = DownloadColumn(binary_units=True)
        columns = (TextColumn("{task.description}"), BarColumn(), sizes, SpeedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(what, total=total or None, completed=done)

    def end(self) -> None:
        """Nothing is done now; what comes next begins anew."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None
        self._what = ""


class Rate:
    """How fast something goes, over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def count(self, done: int, now: float) -> None:
        """So much is done by now."""
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_S:
            self._samples.popleft()

    def text(self, total: int) -> str:
        """`, 11 MB/s, 7 min left`; nothing while it cannot be told."""
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        if last_at <= first_at or last <= first:
            return ""
        bytes_per_s = (last - first) / (last_at - first_at)
        return f", {rate_text(bytes_per_s)}, {time_text((total - last) / bytes_per_s)} left"
