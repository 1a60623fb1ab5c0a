"""Bytes from a peer become a typed message here, and nowhere else.

A message on the wire is one header frame, a msgpack array [type, fields...], and at most one raw frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from swarm import limits
from swarm.errors import LocalProtocolError, RemoteProtocolError
from swarm.wire._records import Envelope
from swarm.wire.messages import BY_TYPE, Hello, Message, Refuse, Welcome
from swarm.wire.records import Version
from swarm.wire.schema import Violation, record_of, unpack_record

Buffer = bytes | bytearray | memoryview
VERSION_PLACES = {Hello.TYPE: 1, Welcome.TYPE: 1, Refuse.TYPE: 3}  # index in the header
_BY_NUMBER = {n: Envelope(kind, record_of(kind), n, kind.MAX_FRAME_BYTES) for n, kind in BY_TYPE.items()}
_BY_KIND = {envelope.kind: envelope for envelope in _BY_NUMBER.values()}
_pack = msgpack.Packer(buf_size=1024).pack  # it keeps the GIL; making one for each message takes longer than packing


class UnknownType(Exception):
    """A message of a newer minor version; it is counted and ignored."""

    def __init__(self, number: int) -> None:
        super().__init__(f"message type {number}")
        self.number = number


def encode(message: Message, frame: Buffer | None = None) -> bytes:
    """Return the header frame of a message; raise LocalProtocolError when it breaks the rules."""
    try:
        header: bytes = _pack(_BY_KIND[type(message)].pack(message, frame))
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
    n_frames = len(frames)
    try:
        if not 1 <= n_frames <= limits.MAX_FRAMES:
            raise Violation(f"{n_frames} frames in one message; at most {limits.MAX_FRAMES} are allowed")
        header = _header(frames[0])
        envelope = _BY_NUMBER.get(header[0])
        if envelope is None:
            raise UnknownType(header[0])
        if n_frames > 2:
            raise Violation(f"{envelope.kind.__name__} has {n_frames - 1} raw frames; it has at most one")
        frame = frames[1] if n_frames == 2 else None
        return envelope.unpack(header, frame), frame
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
