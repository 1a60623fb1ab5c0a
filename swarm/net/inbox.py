"""How events leave the reactor, and whether the receiver keeps up."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from swarm import limits
from swarm.net.events import Event, Received

EVENTS_PER_TURN = 64  # handled before other coroutines get a turn


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Inbox:
    """`deliver` is called on the reactor's thread, in order; it hands over and returns at once. It may send.

    While `has_room` says no, sockets are not read, and TCP slows the senders down.
    """

    deliver: Callable[[Event], None]
    has_room: Callable[[], bool] = _always


class LoopInbox:
    """Hands events to a handler on an asyncio loop, in order, and counts what has not been handled yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Callable[[Event], None]) -> None:
        self._loop = loop
        self._handler = handler
        self._events: deque[Event] = deque()
        self._n_bytes_in = 0  # counted on the reactor's thread: one counter of both threads would lose some
        self._n_bytes_out = 0  # on the loop
        self._scheduled = False

    def inbox(self) -> Inbox:
        """Return this as the reactor wants it."""
        return Inbox(self.deliver, self.has_room)

    def deliver(self, event: Event) -> None:
        """Called on the reactor's thread."""
        self._events.append(event)
        self._n_bytes_in += _n_bytes(event)
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._drain)

    def has_room(self) -> bool:
        """True while the node keeps up."""
        n_bytes = self._n_bytes_in - self._n_bytes_out
        return len(self._events) < limits.MAX_INBOUND_EVENTS and n_bytes < limits.MAX_INBOUND_BYTES

    def _drain(self) -> None:
        self._scheduled = False  # before emptying: an event that comes now schedules again
        try:
            for _ in range(EVENTS_PER_TURN):
                if not self._events:
                    return
                event = self._events.popleft()
                self._n_bytes_out += _n_bytes(event)
                self._handler(event)
        finally:  # also when an event could not be handled: those behind it still are
            if self._events and not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._drain)


def _n_bytes(event: Event) -> int:
    return event.frame.nbytes if isinstance(event, Received) and event.frame is not None else 0
