"""Transports on the loopback whose events a test takes from a queue."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from swarm.net.events import Event, PeerUp, Received
from swarm.net.inbox import Inbox
from swarm.net.transport import Transport
from swarm.wire.ids import ChunkId, SessionId
from swarm.wire.messages import Activation, ChunkReply, Heartbeat, Message
from swarm.wire.proof import Credentials
from swarm.wire.records import Address, TensorInfo

HOST = "127.0.0.1"
PIECE = bytes(1024 * 1024)  # of a chunk
WAIT_S = 15.0
E = TypeVar("E")
M = TypeVar("M", bound=Message)


def activation(position: int, n_bytes: int = 64) -> Activation:
    """A message of the fast lane; its frame has so many bytes."""
    return Activation(SessionId("ab" * 16), 1, position, 1, TensorInfo("f16", (n_bytes // 2,)), False, ())


def reply(number: int) -> ChunkReply:
    """A message of the bulk lane; its frame may be anything."""
    return ChunkReply(number, ChunkId("cd" * 32), 0, True)


class Box:
    """A transport and its events."""

    def __init__(self, credentials: Credentials, name: str, has_room: Callable[[], bool], port: int = 0) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.credentials = credentials
        self.transport = Transport.start(
            credentials, name=name, inbox=Inbox(self.events.put, has_room), host=HOST, port=port
        )
        self.peer = self.transport.me.peer
        self.address = Address(HOST, self.transport.me.port)

    def wait(self, kind: type[E], timeout_s: float = WAIT_S) -> E:
        """Return the next event of a kind; others are dropped."""
        deadline = time.monotonic() + timeout_s
        while True:
            event = self.events.get(timeout=max(0.001, deadline - time.monotonic()))
            if isinstance(event, kind):
                return event

    def receive(self, kind: type[M]) -> tuple[M, memoryview | None]:
        """Return the next message of a kind and its frame."""
        while True:
            event = self.wait(Received)
            if isinstance(event.message, kind):
                return event.message, event.frame

    def drain(self) -> list[Event]:
        """Return what has come but heartbeats."""
        events: list[Event] = []
        while not self.events.empty():
            event = self.events.get()
            if not (isinstance(event, Received) and isinstance(event.message, Heartbeat)):
                events.append(event)
        return events

    def knows(self, other: Box) -> None:
        """Tell where another one is."""
        self.transport.learn(other.peer, [other.address])


class Boxes:
    """Makes transports of one swarm and stops them."""

    def __init__(self, stack: ExitStack) -> None:
        self.swarm_key = os.urandom(32)
        self._stack = stack

    def make(
        self,
        name: str,
        *,
        swarm_key: bytes | None = None,
        device: bytes | None = None,
        has_room: Callable[[], bool] = lambda: True,
        port: int = 0,
    ) -> Box:
        """Return a running transport."""
        credentials = Credentials(swarm_key or self.swarm_key, device or os.urandom(32))
        box = Box(credentials, name, has_room, port)
        self._stack.callback(box.transport.stop)
        return box

    def pair(self) -> tuple[Box, Box]:
        """Return two that are connected."""
        one, other = self.make("one"), self.make("other")
        one.knows(other)
        other.knows(one)
        one.wait(PeerUp)
        other.wait(PeerUp)
        return one, other


@contextmanager
def boxes() -> Iterator[Boxes]:
    """A maker of transports; all are stopped at the end."""
    with ExitStack() as stack:
        yield Boxes(stack)
