"""Messages of an answer in progress take a short way: handled on the transport's thread, past the node's loop.

Each change of threads costs a token some 50 us and a place in the scheduler's queue, and a token crosses every device.
Everything else goes by the loop, in order; and while anything waits there, so do these: they never overtake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarm.net.events import Event, Received
from swarm.net.inbox import Inbox, LoopInbox
from swarm.wire.messages import Activation, Heartbeat, StageStep, Token, Tokens

# The last, so that the loop of an idle node sleeps.
FAST_KINDS = frozenset((Activation, StageStep, Token, Tokens, Heartbeat))


class FastPath:
    """`handle` tries to take a message now and says whether it did; `handler` gets all other events on the loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, handler: Callable[[Event], None], handle: Callable[[Received], bool]
    ) -> None:
        self._handle = handle
        self._handler = handler
        self._slow = LoopInbox(loop, self._on_loop)
        self._n_given = 0  # to the loop; counted on the transport's thread
        self._n_done = 0  # there; counted on the loop

    def inbox(self) -> Inbox:
        """Return this as the transport wants it."""
        return Inbox(self._deliver, self._slow.has_room)

    def _deliver(self, event: Event) -> None:
        is_free = self._n_given == self._n_done
        if is_free and isinstance(event, Received) and type(event.message) in FAST_KINDS and self._handle(event):
            return
        self._n_given += 1
        self._slow.deliver(event)

    def _on_loop(self, event: Event) -> None:
        try:
            self._handler(event)
        finally:
            self._n_done += 1
