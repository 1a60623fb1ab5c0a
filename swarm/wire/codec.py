"""Bytes from a peer become a typed message here, and nowhere else.

A message on the wire is one header frame, a msgpack array [type, fields...], and at most one raw frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from swarm import limits
from swarm.errors import LocalProtocolError, RemoteProtocolError
from swarm.wire.messages import BY_TYPE, Hello, Message, Refuse, Welcome
from swarm.wire.records import TensorInfo, Version
from swarm.wire.schema import Violation, pack_record, unpack_record

Buffer = bytes | bytearray | memoryview
VERSION_PLACES = {Hello.TYPE: 0, Welcome.TYPE: 0, Refuse.TYPE: 2}  # index among the fields


class UnknownType(Exception):
    """A message of a newer minor version; it is counted and ignored."""

    def __init__(self, number: int) -> None:
        super().__init__(f"message type {number}")
        self.number = number


def encode(message: Message, frame: Buffer | None = None) -> bytes:
    """Return the header frame of a message; raise LocalProtocolError when it breaks the rules."""
    try:
        _check_frame(message, None if frame is None else memoryview(frame).nbytes)
        header: bytes = msgpack.packb([message.TYPE, *pack_record(message)])
    except (Violation, ValueError, TypeError, OverflowError) as error:
        raise LocalProtocolError(f"this device tried to send a bad {type(message).__name__}: {error}") from error
    if len(header) > limits.MAX_HEADER_BYTES:
        raise LocalProtocolError(
            f"this device tried to send a {type(message).__name__} of {len(header)} bytes; "
            f"at most {limits.MAX_HEADER_BYTES} are allowed"
        )
    return header


def decode(frames: Sequence[Buffer], peer: str) -> tuple[Message, Buffer | None]:
    """Return the message and its raw frame; raise RemoteProtocolError naming `peer` and the rule, or UnknownType."""
    try:
        return _decode(frames)
    except Violation as error:
        raise RemoteProtocolError(f"{peer} broke the protocol: {error}") from error


def first_version(frames: Sequence[Buffer]) -> Version | None:
    """Return the version that a Hello, Welcome or Refuse of any protocol version names, None for anything else.

    These three keep their type number and the place of their version for ever, so that versions can tell each other.
    """
    try:
        number, values = _header(frames[0])
        place = VERSION_PLACES[number]
        return unpack_record(Version, values[place])
    except (Violation, LookupError):
        return None


def _decode(frames: Sequence[Buffer]) -> tuple[Message, Buffer | None]:
    if not 1 <= len(frames) <= limits.MAX_FRAMES:
        raise Violation(f"{len(frames)} frames in one message; at most {limits.MAX_FRAMES} are allowed")
    number, values = _header(frames[0])
    kind = BY_TYPE.get(number)
    if kind is None:
        raise UnknownType(number)
    message = unpack_record(kind, values)
    if len(frames) > 2:
        raise Violation(f"{kind.__name__} has {len(frames) - 1} raw frames; it has at most one")
    frame = frames[1] if len(frames) == 2 else None
    _check_frame(message, None if frame is None else len(frame))
    return message, frame


def _header(data: Buffer) -> tuple[int, list[object]]:
    if len(data) > limits.MAX_HEADER_BYTES:
        raise Violation(f"a header of {len(data)} bytes; at most {limits.MAX_HEADER_BYTES} are allowed")
    try:
        values = msgpack.unpackb(data, use_list=True, raw=False, strict_map_key=True)
    except Exception as error:  # msgpack raises a dozen kinds, also its own stack and format errors
        raise Violation(f"the header is not msgpack ({type(error).__name__})") from error
    if type(values) is not list or not values or type(values[0]) is not int or values[0] < 0:
        raise Violation("the header is not a list that begins with a message type")
    return values[0], values[1:]


def _check_frame(message: Message, n_bytes: int | None) -> None:
    name, limit = type(message).__name__, message.MAX_FRAME_BYTES
    if not limit:
        if n_bytes is not None:
            raise Violation(f"{name} has a raw frame; it has none")
        return
    if n_bytes is None:
        raise Violation(f"{name} has no raw frame; it has one")
    if n_bytes > limit:
        raise Violation(f"{name} has a raw frame of {n_bytes} bytes; at most {limit} are allowed")
    tensor = getattr(message, "tensor", None)
    if isinstance(tensor, TensorInfo) and tensor.n_bytes != n_bytes:
        raise Violation(f"{name} has a raw frame of {n_bytes} bytes; its shape says {tensor.n_bytes}")
