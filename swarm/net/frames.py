"""Frames in and out of ZeroMQ sockets: one message at a time, never waiting, nothing copied that is large.

Every token passes here, so libzmq is called without pyzmq in between (csrc/_frames.pyx) where its functions can be
found; elsewhere pyzmq does the same.
"""

from __future__ import annotations

import ctypes
from typing import Protocol

import zmq

from swarm import limits
from swarm.net import _frames
from swarm.net.links import Outgoing
from swarm.net.sockets import Socket
from swarm.wire.codec import Buffer
from swarm.wire.records import Address

NOBLOCK, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)  # as enums they are combined in Python, each time
COPY_BYTES = 64 * 1024  # below this, copying a frame costs less than sharing it
MOST_PARTS = 1 + limits.MAX_FRAMES + 1  # a routing id, the frames, and one by which the codec sees that there are more
IPV4_IN_IPV6 = "::ffff:"


class Arrival(Protocol):
    """A message that came. `parts` are its frames, on a router after the routing id; views of large ones.

    `said` tells what its connection says of itself under a name, `fd` the connection's file descriptor.
    """

    @property
    def parts(self) -> list[bytes | memoryview]: ...
    def said(self, name: bytes) -> str: ...
    def fd(self) -> int: ...


def _bind() -> bool:
    """Find libzmq's functions in the library that pyzmq has loaded."""
    try:
        from zmq.backend.cython import _zmq

        library = ctypes.CDLL(_zmq.__file__)
        functions = [getattr(library, f"zmq_{name}") for name in _frames.FUNCTIONS]
        _frames.bind([ctypes.cast(f, ctypes.c_void_p).value for f in functions], COPY_BYTES, MOST_PARTS)
    except (ImportError, OSError, AttributeError, ValueError):  # pyzmq was built in another way
        return False
    return zmq.zmq_version_info() >= (4, 2)


DIRECT = _bind()


def receive(socket: Socket) -> Arrival | None:
    """Return the next message, None when there is none.

    Frames past the limit are read and thrown away, so that the codec refuses the message.
    """
    return _frames.receive(socket.underlying) if DIRECT else _receive(socket)


def readable(socket: Socket) -> bool:
    """True when a message waits."""
    return _frames.readable(socket.underlying) if DIRECT else bool(int(socket.get(zmq.EVENTS)) & zmq.POLLIN)


def reply(router: Socket, routing: bytes, header: bytes) -> bool:
    """Answer a caller that has no link yet; False when that is not possible."""
    try:
        router.send_multipart([routing, header], NOBLOCK)
    except zmq.ZMQError:  # full or gone: whoever called calls again
        return False
    return True


def address_of(arrival: Arrival) -> Address:
    """Return where a message came from; the port is not the one that listens."""
    return Address(arrival.said(b"Peer-Address").removeprefix(IPV4_IN_IPV6), 1)


def transmit(socket: Socket, routing: bytes, outgoing: Outgoing) -> bool:
    """Hand one message to libzmq, on a router to `routing`; False when it is full. A closed link swallows it."""
    header, frame = outgoing
    if DIRECT and (frame is None or len(frame) < COPY_BYTES):
        return _frames.send(socket.underlying, routing, header, frame)
    return _transmit(socket, routing, header, frame)


# --- with pyzmq


class _Arrival:
    def __init__(self, frames: list[zmq.Frame]) -> None:
        self.parts: list[bytes | memoryview] = [frame.buffer for frame in frames]
        self._last = frames[-1]

    def said(self, name: bytes) -> str:
        return str(self._last.get(name.decode()))

    def fd(self) -> int:
        return int(self._last.get(zmq.SRCFD))


def _receive(socket: Socket) -> _Arrival | None:
    try:
        frames = [socket.recv(NOBLOCK, copy=False)]
    except zmq.Again:
        return None
    while frames[-1].more:
        frame = socket.recv(NOBLOCK, copy=False)
        if len(frames) == MOST_PARTS:
            frames.pop()
        frames.append(frame)
    return _Arrival(frames)


def _transmit(socket: Socket, routing: bytes, header: bytes, frame: Buffer | None) -> bool:
    try:
        if routing:
            socket.send(routing, MORE)
        if frame is None:
            socket.send(header, NOBLOCK)
        else:
            socket.send(header, MORE)
            socket.send(frame, NOBLOCK, copy=len(frame) < COPY_BYTES)
    except zmq.Again:
        return False
    except zmq.ZMQError as error:
        if error.errno != zmq.EHOSTUNREACH:
            raise
    return True
