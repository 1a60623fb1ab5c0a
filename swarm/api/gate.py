"""Requests begin one after the other: however many come at once, the loop looks at its sockets between any two.

What a request costs before its answer begins, some milliseconds of Python, is paid on the loop. Sixteen answers that
end together bring sixteen requests together; without a gate whoever only asks whether the node is there waits for all.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Gate:
    """Await `turn` before work; on one loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_due = False

    async def turn(self) -> None:
        """Those who came before have begun, each in a round of the loop of its own."""
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._let_in, loop)
        await mine

    def _let_in(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():  # one that was cancelled waits no more
                first.set_result(None)
                break
        self._is_due = bool(self._waiting)
        if self._is_due:
            loop.call_soon(self._let_in, loop)
