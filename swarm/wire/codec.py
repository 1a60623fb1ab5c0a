"""Bytes from a peer become a typed message here, and nowhere else.

A message on the wire is one header frame, a msgpack array [type, fields...], and at most one raw frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from swarm import limits
from swarm.errors import LocalProtocolError, RemoteProtocolError
from swarm.wire.messages import BY_TYPE, Hello, Message, Refuse, Welcome
from swarm.wire.records import TensorInfo, Version
from swarm.wire.schema import Violation, record_of, unpack_record

Buffer = bytes | bytearray | memoryview
VERSION_PLACES = {Hello.TYPE: 1, Welcome.TYPE: 1, Refuse.TYPE: 3}  # index in the header
_pack = msgpack.Packer(buf_size=1024).pack  # it keeps the GIL; making one for each message takes longer than packing


class UnknownType(Exception):
    """A message of a newer minor version; it is counted and ignored."""

    def __init__(self, number: int) -> None:
        super().__init__(f"message type {number}")
        self.number = number


def encode(message: Message, frame: Buffer | None = None) -> bytes:
    """Return the header frame of a message; raise LocalProtocolError when it breaks the rules."""
    try:
        if frame is not None or message.MAX_FRAME_BYTES:
            _check_frame(message, None if frame is None else memoryview(frame).nbytes)
        header: bytes = _pack(record_of(type(message)).write(message, [message.TYPE]))
    except (Violation, ValueError, TypeError, OverflowError) as error:
        raise LocalProtocolError(f"this device tried to send a bad {type(message).__name__}: {error}") from error
    if len(header) > limits.MAX_HEADER_BYTES:
        raise LocalProtocolError(
            f"this device tried to send a {type(message).__name__} of {len(header)} bytes; "
            f"at most {limits.MAX_HEADER_BYTES} are allowed"
        )
    return header


def decode(frames: Sequence[Buffer], peer: object) -> tuple[Message, Buffer | None]:
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
        header = _header(frames[0])
        return unpack_record(Version, header[VERSION_PLACES[header[0]]])
    except (Violation, LookupError):
        return None


def _decode(frames: Sequence[Buffer]) -> tuple[Message, Buffer | None]:
    if not 1 <= len(frames) <= limits.MAX_FRAMES:
        raise Violation(f"{len(frames)} frames in one message; at most {limits.MAX_FRAMES} are allowed")
    header = _header(frames[0])
    kind = BY_TYPE.get(header[0])
    if kind is None:
        raise UnknownType(header[0])
    message: Message = record_of(kind).read(header, 1)
    if len(frames) > 2:
        raise Violation(f"{kind.__name__} has {len(frames) - 1} raw frames; it has at most one")
    frame = frames[1] if len(frames) == 2 else None
    if frame is not None or kind.MAX_FRAME_BYTES:
        _check_frame(message, None if frame is None else len(frame))
    return message, frame


def _header(data: Buffer) -> list[Any]:
    """Return what a header frame says: the message type, then the fields."""
    if len(data) > limits.MAX_HEADER_BYTES:
        raise Violation(f"a header of {len(data)} bytes; at most {limits.MAX_HEADER_BYTES} are allowed")
    try:
        values = msgpack.unpackb(data, use_list=True, raw=False, strict_map_key=True)
    except Exception as error:  # msgpack raises a dozen kinds, also its own stack and format errors
        raise Violation(f"the header is not msgpack ({type(error).__name__})") from error
    if type(values) is not list or not values or type(values[0]) is not int or values[0] < 0:
        raise Violation("the header is not a list that begins with a message type")
    return values


def _check_frame(message: Message, n_bytes: int | None) -> None:
    limit = message.MAX_FRAME_BYTES
    if not limit:
        raise Violation(f"{_name(message)} has a raw frame; it has none")
    if n_bytes is None:
        raise Violation(f"{_name(message)} has no raw frame; it has one")
    if n_bytes > limit:
        raise Violation(f"{_name(message)} has a raw frame of {n_bytes} bytes; at most {limit} are allowed")
    tensor = getattr(message, "tensor", None)
    if isinstance(tensor, TensorInfo) and tensor.n_bytes != n_bytes:
        raise Violation(f"{_name(message)} has a raw frame of {n_bytes} bytes; its shape says {tensor.n_bytes}")


def _name(message: Message) -> str:
    return type(message).__name__
