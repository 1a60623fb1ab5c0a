"""Slow work that several want at the same time is done once, and all of them wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class SharedWork(Generic[Key, Result]):
    """Work in progress by what it is about; on the loop."""

    def __init__(self) -> None:
        self._tasks: dict[Key, asyncio.Task[Result]] = {}

    async def get(self, key: Key, begin: Callable[[], Coroutine[None, None, Result]]) -> Result:
        """The result of the work that is under way about `key`; where none is, it begins.

        Its error is raised to all who wait. It goes on when one of them, or all, do not wait any longer.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(begin(), name="swarm-shared")
            task.add_done_callback(lambda done: self._is_done(key, done))
        return await asyncio.shield(task)

    def _is_done(self, key: Key, task: asyncio.Task[Result]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # it may be that nobody waits any longer, and that is not worth a line in the log
