"""How a dataclass becomes a msgpack array and back, with every value checked: the kinds of fields that may travel.

A record or message is a frozen dataclass; its fields travel in their order. A field's annotation says what is legal:
`Annotated[int, Int(0, 9)]`, `Annotated[str, Text(64)]`, `Annotated[tuple[Address, ...], Many(16)]`, another record,
one of the id types of ids.py, or any of these `| None`. A peer may send more fields than we know (a newer minor
version); those are ignored. A field with a default may be missing (an older one). Everything else is a Violation.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, TypeVar, Union, get_args, get_origin, get_type_hints

from swarm.wire.ids import ID_BYTES

T = TypeVar("T")

MAX_EXTRA_FIELDS = 16  # of a newer minor version


class Violation(ValueError):
    """A value that may not travel; the text names the field and the rule."""


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number in [low, high]."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number in [low, high]."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 of at most max_bytes, without control characters."""

    max_bytes: int


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes of a length in [min_bytes, max_bytes]."""

    min_bytes: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Hex:
    """An id: `n_bytes` on the wire, lower-case hex in Python."""

    n_bytes: int


@dataclass(frozen=True, slots=True)
class Many:
    """A tuple of at most max_items."""

    max_items: int


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these texts."""

    choices: tuple[str, ...]


Convert = Callable[[object, str], object]  # (value, name of the field) -> value, or raise Violation


@dataclass(frozen=True, slots=True)
class Codec:
    """Both directions of one kind of field."""

    to_wire: Convert
    from_wire: Convert


def pack_record(value: object) -> list[object]:
    """Return the fields of a record as a list that msgpack can write; raise Violation."""
    out = _record(type(value)).to_wire(value, type(value).__name__)
    assert isinstance(out, list)
    return out


def unpack_record(kind: type[T], value: object) -> T:
    """Return the record that a list of values stands for; raise Violation."""
    out = _record(kind).from_wire(value, kind.__name__)
    assert isinstance(out, kind)
    return out


def _record(kind: type) -> Codec:
    return _compiled(kind)


@cache
def _compiled(kind: type) -> Codec:
    assert is_dataclass(kind)
    hints = get_type_hints(kind, include_extras=True)
    columns = [(f.name, _codec(hints[f.name]), f.default is MISSING) for f in fields(kind)]
    n_needed = sum(needed for _, _, needed in columns)
    names = [name for name, _, _ in columns]
    writers = [(name, codec.to_wire, f"{kind.__name__}.{name}") for name, codec, _ in columns]
    readers = [(codec.from_wire, f"{kind.__name__}.{name}") for name, codec, _ in columns]
    n_known = len(names)
    optional = [(f.name, f.default) for f in reversed(fields(kind)) if f.default is not MISSING]  # the last one first

    def to_wire(value: object, where: str) -> object:
        if type(value) is not kind:
            raise Violation(f"{where} is not a {kind.__name__}")
        n_sent = n_known
        for name, default in optional:
            if getattr(value, name) != default:
                break
            n_sent -= 1
        return [write(getattr(value, name), path) for name, write, path in writers[:n_sent]]

    def from_wire(value: object, where: str) -> object:
        if type(value) is not list:
            raise Violation(f"{where} is not a list of fields")
        if not n_needed <= len(value) <= n_known + MAX_EXTRA_FIELDS:
            raise Violation(f"{where} has {len(value)} fields; it needs {n_needed} to {n_known}")
        return kind(*[read(item, path) for item, (read, path) in zip(value, readers, strict=False)])

    return Codec(to_wire, from_wire)


def _codec(hint: object) -> Codec:
    origin = get_origin(hint)
    if origin is Annotated:
        base, kind = get_args(hint)
        return _many(base, kind) if isinstance(kind, Many) else _leaf(kind)
    if origin in (Union, types.UnionType):
        return _optional(hint)
    if hint is bool:
        return Codec(_bool, _bool)
    if hint in ID_BYTES:
        return _leaf(Hex(ID_BYTES[hint]))
    assert isinstance(hint, type) and is_dataclass(hint), hint
    return _record(hint)


def _optional(hint: object) -> Codec:
    (inner,) = [arg for arg in get_args(hint) if arg is not type(None)]
    codec = _codec(inner)
    return Codec(
        lambda value, where: None if value is None else codec.to_wire(value, where),
        lambda value, where: None if value is None else codec.from_wire(value, where),
    )


def _many(base: object, kind: Many) -> Codec:
    item = _codec(get_args(base)[0])

    def length(value: list[object] | tuple[object, ...], where: str) -> None:
        if len(value) > kind.max_items:
            raise Violation(f"{where} has {len(value)} items; at most {kind.max_items} are allowed")

    def to_wire(value: object, where: str) -> object:
        if type(value) is not tuple:
            raise Violation(f"{where} is not a tuple")
        length(value, where)
        return [item.to_wire(each, where) for each in value]

    def from_wire(value: object, where: str) -> object:
        if type(value) is not list:
            raise Violation(f"{where} is not a list")
        length(value, where)
        return tuple(item.from_wire(each, where) for each in value)

    return Codec(to_wire, from_wire)


def _leaf(kind: object) -> Codec:
    match kind:
        case Int(low, high):
            return _int(low, high)
        case Real(low, high):
            return _real(low, high)
        case Text(max_bytes):
            return _text(max_bytes)
        case Raw(low, high):
            return _raw(low, high)
        case Hex(n_bytes):
            return Codec(_hex_to_wire(n_bytes), _hex_from_wire(n_bytes))
        case OneOf(choices):
            return _one_of(choices)
    raise AssertionError(f"no kind of field: {kind!r}")


def _bool(value: object, where: str) -> object:
    if type(value) is not bool:
        raise Violation(f"{where} is not true or false")
    return value


def _int(low: int, high: int) -> Codec:
    def check(value: object, where: str) -> object:
        if type(value) is not int:
            raise Violation(f"{where} is not a whole number")
        if not low <= value <= high:
            raise Violation(f"{where} is {value}; it must be from {low} to {high}")
        return value

    return Codec(check, check)


def _real(low: float, high: float) -> Codec:
    def check(value: object, where: str) -> object:
        if type(value) not in (float, int):
            raise Violation(f"{where} is not a number")
        assert isinstance(value, (float, int))
        # Range first: an int of any size compares, but does not always become a float.
        if not low <= value <= high or not math.isfinite(value):
            raise Violation(f"{where} must be a number from {low:g} to {high:g}")
        return float(value)

    return Codec(check, check)


def _text(max_bytes: int) -> Codec:
    def check(value: object, where: str) -> object:
        if type(value) is not str:
            raise Violation(f"{where} is not text")
        if len(value) > max_bytes or len(value.encode("utf-8", "surrogatepass")) > max_bytes:
            raise Violation(f"{where} is longer than {max_bytes} bytes")
        # Names and reasons reach terminals and logs: no escape sequences from a peer.
        if not value.isprintable():
            raise Violation(f"{where} has characters that cannot be printed")
        return value

    return Codec(check, check)


def _raw(low: int, high: int) -> Codec:
    def check(value: object, where: str) -> object:
        if type(value) is not bytes:
            raise Violation(f"{where} is not bytes")
        if not low <= len(value) <= high:
            raise Violation(f"{where} has {len(value)} bytes; it must have from {low} to {high}")
        return value

    return Codec(check, check)


def _hex_to_wire(n_bytes: int) -> Convert:
    def convert(value: object, where: str) -> object:
        if type(value) is not str or len(value) != 2 * n_bytes or value != value.lower():
            raise Violation(f"{where} is not {2 * n_bytes} hex digits")
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise Violation(f"{where} is not {2 * n_bytes} hex digits") from None

    return convert


def _hex_from_wire(n_bytes: int) -> Convert:
    def convert(value: object, where: str) -> object:
        if type(value) is not bytes or len(value) != n_bytes:
            raise Violation(f"{where} is not {n_bytes} bytes")
        return value.hex()

    return convert


def _one_of(choices: tuple[str, ...]) -> Codec:
    def check(value: object, where: str) -> object:
        if type(value) is not str or value not in choices:
            raise Violation(f"{where} is not one of {', '.join(choices)}")
        return value

    return Codec(check, check)
