"""How a dataclass becomes a msgpack array and back, with every value checked: the kinds of fields that may travel.

A record or message is a value (value.py); its fields travel in their order. A field's annotation says what is legal:
`Annotated[int, Int(0, 9)]`, `Annotated[str, Text(64)]`, `Annotated[tuple[Address, ...], Many(16)]`, another record,
one of the id types of ids.py, or any of these `| None`. A peer may send more fields than we know (a newer minor
version); those are ignored. A field with a default may be missing (an older one). Everything else is a Violation.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from swarm.wire._records import Field, Record, Violation
from swarm.wire.ids import ID_BYTES

__all__ = [
    "MAX_EXTRA_FIELDS",
    "Hex",
    "Int",
    "Many",
    "OneOf",
    "Raw",
    "Real",
    "Text",
    "Violation",
    "pack_record",
    "record_of",
    "unpack_record",
]

T = TypeVar("T")

MAX_EXTRA_FIELDS = 16  # of a newer minor version


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


def pack_record(value: object) -> list[object]:
    """Return the fields of a record as a list that msgpack can write; raise Violation."""
    return record_of(type(value)).write(value, [])


def unpack_record(kind: type[T], value: object) -> T:
    """Return the record that a list of values stands for; raise Violation."""
    if type(value) is not list:
        raise Violation(f"{kind.__name__} is not a list of fields")
    return cast(T, record_of(kind).read(value))


def _record(kind: type) -> Record:
    assert is_dataclass(kind)
    hints = get_type_hints(kind, include_extras=True)
    members = fields(kind)
    defaults = [f.default for f in members if f.default is not MISSING]
    return Record(kind, [f.name for f in members], [_field(hints[f.name]) for f in members], defaults, MAX_EXTRA_FIELDS)


record_of: Callable[[type], Record] = cache(_record)  # the checks of a record or message, both ways


def _field(hint: object) -> Field:
    origin = get_origin(hint)
    if origin is Annotated:
        base, kind = get_args(hint)
        return Field("many", 0, kind.max_items, _field(get_args(base)[0])) if isinstance(kind, Many) else _leaf(kind)
    if origin in (Union, types.UnionType):
        (inner,) = [arg for arg in get_args(hint) if arg is not type(None)]
        return _field(inner).or_none()
    if hint is bool:
        return Field("bool")
    if hint in ID_BYTES:
        return _leaf(Hex(ID_BYTES[hint]))
    assert isinstance(hint, type), hint
    return Field("record", detail=record_of(hint))


def _leaf(kind: object) -> Field:
    match kind:
        case Int(low, high):
            return Field("int", low, high)
        case Real(low, high):
            return Field("real", low, high)
        case Text(max_bytes):
            return Field("text", 0, max_bytes)
        case Raw(low, high):
            return Field("raw", low, high)
        case Hex(n_bytes):
            return Field("hex", n_bytes)
        case OneOf(choices):
            return Field("one_of", detail=choices)
    raise AssertionError(f"no kind of field: {kind!r}")
