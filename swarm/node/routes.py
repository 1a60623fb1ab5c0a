"""Which part of the node takes which of the messages that end there (wire/routing.py); the others are the core's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from swarm.net.events import Received
from swarm.node.driver import Driver
from swarm.wire.ids import PeerId
from swarm.wire.messages import Message

Kind = TypeVar("Kind", bound=Message)
Handler = Callable[[PeerId, Message, memoryview], object]
NO_FRAME = memoryview(b"")


class Routes:
    """Parts say what they take, once, when they are made."""

    def __init__(self, driver: Driver) -> None:
        self.handlers: dict[type[Message], Handler] = {}
        self._driver = driver

    def take(self, kind: type[Kind], handler: Callable[[PeerId, Kind], object]) -> None:
        """From now on messages of this kind go to `handler`."""
        self.take_framed(kind, lambda peer, message, _: handler(peer, message))

    def take_framed(self, kind: type[Kind], handler: Callable[[PeerId, Kind, memoryview], object]) -> None:
        """The same for a handler that wants the raw frame, too; empty when there is none."""
        assert kind not in self.handlers, f"two parts take {kind.__name__}"
        self.handlers[kind] = cast(Handler, handler)

    def deliver(self, event: Received) -> None:
        """Hand a message to whoever takes it; on the loop."""
        handler = self.handlers.get(type(event.message))
        if handler is not None:
            handler(event.peer, event.message, event.frame if event.frame is not None else NO_FRAME)
        else:
            self._driver.act(lambda core, now: core.received(event.peer, event.message, event.frame, now))
