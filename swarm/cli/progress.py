"""A progress bar on standard error: drawn on a terminal, a single line in a log."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from swarm.cli.terminal import note
from swarm.units import size_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBar:
    """Called with (what, bytes done, bytes in all); nothing shows before the first call, so quick work is silent."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._end()
            self._begin(what, total)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total or None)

    def _begin(self, what: str, total: int) -> None:
        self._what = what
        if not sys.stderr.isatty():
            note(f"swarm: {what[0].lower()}{what[1:]}" + (f" {size_text(total)} ..." if total else " ..."))
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(what, total=total or None)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None
