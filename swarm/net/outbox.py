"""What other threads tell the engine, and what it may tell them: bounded in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from swarm import limits
from swarm.errors import PeerBusy, PeerLost
from swarm.net.events import Event, Received
from swarm.wire.codec import Buffer
from swarm.wire.ids import PeerId
from swarm.wire.messages import Lane
from swarm.wire.records import Address, NodeState

MOST = {Lane.FAST: limits.FAST_QUEUE_MESSAGES, Lane.BULK: limits.BULK_QUEUE_MESSAGES}
EVENTS_PER_TURN = 64  # handled before other coroutines get a turn


@dataclass(frozen=True, slots=True)
class Send:
    """One encoded message."""

    peer: PeerId
    lane: Lane
    header: bytes
    frame: Buffer | None


@dataclass(frozen=True, slots=True)
class LearnAddresses:
    """A device may be at these addresses."""

    peer: PeerId
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class LearnByHand:
    """Somebody is at this address, a person says."""

    address: Address


@dataclass(frozen=True, slots=True)
class ShutOut:
    """Never talk to this device again."""

    peer: PeerId


Command = Send | LearnAddresses | LearnByHand | ShutOut


@dataclass(frozen=True)
class Gate:
    """How events leave the engine's thread, and whether the receiver keeps up."""

    deliver: Callable[[Event], None]
    has_room: Callable[[], bool] = lambda: True


class Outbox:
    """Commands for the engine, from any thread; a byte on a socket pair wakes it."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self.state = NodeState()
        self.stopping = False
        self._commands: deque[Command] = deque()
        self._lock = threading.Lock()
        self._awake = False
        self._waiting: dict[PeerId, dict[Lane, int]] = {}

    def send(self, command: Send) -> None:
        """Queue a message; raise PeerLost when the device is not connected, PeerBusy when too much waits for it."""
        with self._lock:
            waiting = self._waiting.get(command.peer)
            if waiting is None:
                raise PeerLost(f"device {command.peer[:8]} is not connected")
            if waiting[command.lane] >= MOST[command.lane]:
                raise PeerBusy(f"device {command.peer[:8]} does not take messages as fast as they come")
            waiting[command.lane] += 1
        self.post(command)

    def post(self, command: Command) -> None:
        """Queue a command and wake the engine."""
        self._commands.append(command)
        self._wake()

    def stop(self) -> None:
        """End the engine."""
        self.stopping = True
        self._wake()

    def close_writer(self) -> None:
        """After the engine has ended."""
        self._writer.close()

    def n_waiting(self, peer: PeerId, lane: Lane) -> int:
        """Return how many messages wait for a device; 0 when it is not connected."""
        waiting = self._waiting.get(peer)
        return waiting[lane] if waiting else 0

    # --- for the engine

    def take(self) -> list[Command]:
        """Return the commands that wait."""
        with contextlib.suppress(BlockingIOError):
            self.reader.recv(4096)
        self._awake = False  # before emptying: a command that comes now wakes again
        commands: list[Command] = []
        while self._commands:
            commands.append(self._commands.popleft())
        return commands

    def open(self, peer: PeerId) -> None:
        """A device is up: messages for it are taken."""
        with self._lock:
            self._waiting[peer] = dict.fromkeys(Lane, 0)

    def close(self, peer: PeerId) -> None:
        """A device is down."""
        with self._lock:
            self._waiting.pop(peer, None)

    def sent(self, peer: PeerId, lane: Lane) -> None:
        """One message left."""
        with self._lock:
            waiting = self._waiting.get(peer)
            if waiting is not None and waiting[lane]:
                waiting[lane] -= 1

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            with contextlib.suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: it has ended
                self._writer.send(b"\0")


class LoopGate:
    """Hands events to a handler on an asyncio loop, in order, and counts what has not been handled yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Callable[[Event], None]) -> None:
        self._loop = loop
        self._handler = handler
        self._events: deque[Event] = deque()
        self._n_bytes = 0
        self._scheduled = False

    def gate(self) -> Gate:
        """Return this as the engine wants it."""
        return Gate(self.deliver, self.has_room)

    def deliver(self, event: Event) -> None:
        """Called on the engine's thread."""
        self._events.append(event)
        self._n_bytes += _n_bytes(event)
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._drain)

    def has_room(self) -> bool:
        """True while the node keeps up; otherwise sockets are not read and TCP slows the senders down."""
        return len(self._events) < limits.MAX_INBOUND_EVENTS and self._n_bytes < limits.MAX_INBOUND_BYTES

    def _drain(self) -> None:
        self._scheduled = False  # before emptying, as in Outbox.take
        for _ in range(EVENTS_PER_TURN):
            if not self._events:
                return
            event = self._events.popleft()
            self._n_bytes -= _n_bytes(event)
            self._handler(event)
        if self._events and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._drain)


def _n_bytes(event: Event) -> int:
    return event.frame.nbytes if isinstance(event, Received) and event.frame is not None else 0
