"""Frames in and out of ZeroMQ sockets: one message at a time, never waiting, nothing copied that is large."""

from __future__ import annotations

import zmq

from swarm import limits
from swarm.net.links import Link, Outgoing
from swarm.net.sockets import Socket
from swarm.wire.codec import Buffer
from swarm.wire.records import Address

NOBLOCK, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)  # as enums they are combined in Python, each time
COPY_BYTES = 64 * 1024  # below this, copying a frame costs less than sharing it
IPV4_IN_IPV6 = "::ffff:"


def receive(socket: Socket) -> list[zmq.Frame] | None:
    """Return the frames of the next message without copying them, None when there is none.

    Frames past the limit are read and thrown away, so that the codec refuses the message.
    """
    try:
        frames = [socket.recv(NOBLOCK, copy=False)]
    except zmq.Again:
        return None
    while frames[-1].more:
        frame = socket.recv(NOBLOCK, copy=False)
        if len(frames) > limits.MAX_FRAMES + 1:
            frames.pop()
        frames.append(frame)
    return frames


def buffers(frames: list[zmq.Frame]) -> list[Buffer]:
    """Return the bytes of frames, not copied; they live as long as these views."""
    return [frame.buffer for frame in frames]


def reply(router: Socket, routing: bytes, header: bytes) -> bool:
    """Answer a caller that has no link yet; False when that is not possible."""
    try:
        router.send_multipart([routing, header], NOBLOCK)
    except zmq.ZMQError:  # full or gone: whoever called calls again
        return False
    return True


def address_of(frames: list[zmq.Frame]) -> Address:
    """Return where a message came from; the port is not the one that listens."""
    host = str(frames[0].get("Peer-Address")).removeprefix(IPV4_IN_IPV6)
    return Address(host, 1)


def transmit(link: Link, outgoing: Outgoing) -> bool:
    """Hand one message to libzmq; False when it is full. A closed link swallows it."""
    header, frame = outgoing
    socket = link.socket
    try:
        if link.routing:
            socket.send(link.routing, MORE)
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
