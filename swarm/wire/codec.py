"""Bytes from a peer become a typed message here, and nowhere else.

A message on the wire is one header frame, a msgpack array [type, fields...], and at most one raw frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Union

from msgspec import Meta, ValidationError

from swarm import limits
from swarm.errors import LocalProtocolError, RemoteProtocolError
from swarm.wire import schema
from swarm.wire.messages import BY_NUMBER, MESSAGES, Hello, Message, Refuse, Welcome, number_of
from swarm.wire.records import TensorInfo, Version
from swarm.wire.schema import Record, Violation, decoder_of, pack, unpack

Buffer = bytes | bytearray | memoryview
_decode = decoder_of(Union[MESSAGES]).decode  # noqa: UP007  # made of a tuple


class _Header(Record):
    """What every header begins with."""

    number: Annotated[int, Meta(ge=0)]


class _Greeting(Record):
    """What Hello and Welcome of every protocol version begin with."""

    number: int
    version: Version


class _Refusal(Record):
    """What Refuse of every protocol version begins with."""

    number: int
    reason: Any
    text: Any
    version: Version


_OF_ANY_VERSION: dict[int, type[_Greeting] | type[_Refusal]] = {
    number_of(Hello): _Greeting,
    number_of(Welcome): _Greeting,
    number_of(Refuse): _Refusal,
}


class UnknownType(Exception):
    """A message of a newer minor version; it is counted and ignored."""

    def __init__(self, number: int) -> None:
        super().__init__(f"message type {number}")
        self.number = number


def encode(message: Message, frame: Buffer | None = None) -> bytes:
    """Return the header frame of a message; raise LocalProtocolError when it breaks the rules."""
    try:
        header = schema.encode(message)
        # msgspec checks what it reads, not what it writes: so we send nothing that we would not take.
        if _decode(header) != message:
            raise Violation("it would not be read as it is")
        if len(header) > limits.MAX_HEADER_BYTES:
            raise _too_long(header)
        _check_frame(message, frame)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        fault = _fault(message, error)
        raise LocalProtocolError(f"this device tried to send a bad {type(message).__name__}: {fault}") from error
    return header


def decode(frames: Sequence[Buffer], peer: object) -> tuple[Message, Buffer | None]:
    """Return the message and its raw frame; raise RemoteProtocolError naming `peer` and the rule, or UnknownType."""
    n_frames = len(frames)
    try:
        if not 1 <= n_frames <= limits.MAX_FRAMES:
            raise Violation(f"{n_frames} frames in one message; at most {limits.MAX_FRAMES} are allowed")
        if len(frames[0]) > limits.MAX_HEADER_BYTES:
            raise _too_long(frames[0])
        try:
            message: Message = _decode(frames[0])
        except Exception:  # which, the search for the fault will say
            message = _decode_by_number(frames[0])
        if n_frames > 2:
            raise Violation(f"{type(message).__name__} has {n_frames - 1} raw frames; it has at most one")
        frame = frames[1] if n_frames == 2 else None
        _check_frame(message, frame)
        return message, frame
    except Violation as error:
        raise RemoteProtocolError(f"{peer} broke the protocol: {error}") from error


def first_version(frames: Sequence[Buffer]) -> Version | None:
    """Return the version that a Hello, Welcome or Refuse of any protocol version names, None for anything else.

    These three keep their type number and the place of their version for ever, so that versions can tell each other.
    """
    try:
        return unpack(_OF_ANY_VERSION[_number(frames[0])], frames[0]).version
    except (Violation, LookupError):
        return None


def _too_long(header: Buffer) -> Violation:
    return Violation(f"a header of {len(header)} bytes; at most {limits.MAX_HEADER_BYTES} are allowed")


def _fault(message: Message, error: Exception) -> str:
    """Say what is wrong with a message of ours: msgspec's error does not name the field."""
    try:
        pack(message)
    except Violation as fault:
        return str(fault)
    return str(error)


def _decode_by_number(header: Buffer) -> Message:
    """Say what is wrong with a header: raise Violation, or UnknownType."""
    number = _number(header)
    if number not in BY_NUMBER:
        raise UnknownType(number)
    return unpack(BY_NUMBER[number], header)


def _number(header: Buffer) -> int:
    try:
        return unpack(_Header, header).number
    except Violation as error:
        if isinstance(error.__cause__, ValidationError):
            raise Violation("the header is not a list that begins with a message type") from error
        raise Violation(f"the header is {error}") from error


def _check_frame(message: Message, frame: Buffer | None) -> None:
    """Raise Violation when a raw frame is missing, not wanted, too long or not what the header says."""
    limit = message.MAX_FRAME_BYTES
    if frame is None:
        if limit:
            raise Violation(f"{type(message).__name__} has no raw frame; it has one")
        return
    if not limit:
        raise Violation(f"{type(message).__name__} has a raw frame; it has none")
    n_bytes = memoryview(frame).nbytes
    if n_bytes > limit:
        raise Violation(f"{type(message).__name__} has a raw frame of {n_bytes} bytes; at most {limit} are allowed")
    tensor = getattr(message, "tensor", None)
    if isinstance(tensor, TensorInfo) and tensor.n_bytes != n_bytes:
        raise Violation(f"{type(message).__name__} has a raw frame of {n_bytes} bytes; its shape says {tensor.n_bytes}")
