"""What runs beside the node's events: tasks on its loop, and slow work on threads of the store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Args = TypeVarTuple("Args")
AFTER_BUG_S = 1.0  # a bug that comes again at once must not fill the log
IO_THREADS = 3  # hash, write and read chunks; import files; build tokenizers
# A tenth of a busy core; at a hundredth, Python's lock would wait for such a thread, and everybody for the lock.
NICE = 10


class Post(Protocol):
    """Calls a function on the node's loop, from any thread."""

    def __call__(self, function: Callable[[*Args], object], *args: *Args) -> object: ...


class Background:
    """Made on the loop; `on_bug` hears of a task that failed."""

    def __init__(self, on_bug: Callable[[BaseException], None]) -> None:
        self.stopping = asyncio.Event()  # set by whoever wants the node to end
        self.starts_anew = ""  # after it has ended, and why
        self._loop = asyncio.get_running_loop()
        self.on_bug = on_bug
        self._tasks: set[asyncio.Task[None]] = set()
        self._io = ThreadPoolExecutor(IO_THREADS, "swarm-io")

    def post(self, function: Callable[[*Args], object], *args: *Args) -> None:
        """Call a function on the loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the node has ended
            self._loop.call_soon_threadsafe(function, *args)

    def run_io(self, function: Callable[[*Args], Result], *args: *Args) -> Awaitable[Result]:
        """Run something slow on one of the store's threads."""
        return self._loop.run_in_executor(self._io, function, *args)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something on the loop until the node stops."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def call_at(self, at: float, function: Callable[[], object]) -> asyncio.TimerHandle:
        """Call a function on the loop at a time of `time.monotonic`; on the loop."""
        return self._loop.call_at(at, function)

    def every(self, seconds: Callable[[], float], work: Callable[[], object]) -> None:
        """Do something again and again, until the node stops; `seconds` says how long to wait each time."""
        self.spawn(self._again_and_again(seconds, work))

    def start_anew(self, delay_s: float, why: str) -> None:
        """End the node in a moment, to be started again with what is on the disk by then."""
        self.starts_anew = why
        self._loop.call_later(delay_s, self.stopping.set)

    async def end_tasks(self) -> None:
        """Cancel all tasks, and wait for them."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """End the threads."""
        self._io.shutdown()

    async def _again_and_again(self, seconds: Callable[[], float], work: Callable[[], object]) -> None:
        while True:
            try:
                work()
            except Exception as error:  # a bug in one turn must not end all later ones
                self.on_bug(error)
                await asyncio.sleep(AFTER_BUG_S)
            await asyncio.sleep(seconds())

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.on_bug(error)


def give_way_to_others() -> None:
    """From now on this thread has less of a processor, and of a disk, that others want."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
