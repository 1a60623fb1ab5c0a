"""A legal value for any field, record or message that travels, from a seeded random generator."""

from __future__ import annotations

import dataclasses
import random
import types
from typing import Annotated, TypeVar, Union, get_args, get_origin, get_type_hints

from swarm.wire.ids import ID_BYTES
from swarm.wire.messages import Message
from swarm.wire.records import TensorInfo
from swarm.wire.schema import Int, Many, OneOf, Raw, Real, Text

T = TypeVar("T")
LETTERS = "abcxyzäß漢 0-9"
MAX_ITEMS = 3


def record(kind: type[T], rng: random.Random) -> T:
    """Return a record whose every field is legal, often at the edge of what is."""
    if kind is TensorInfo:
        return TensorInfo("f16", (rng.randint(0, 3), 8))  # type: ignore[return-value]  # small, so that a frame fits
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{field.name: value(hints[field.name], rng) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def frame_of(message: Message, rng: random.Random) -> bytes | None:
    """Return the raw frame that a message needs, None when it has none."""
    tensor = getattr(message, "tensor", None)
    if isinstance(tensor, TensorInfo):
        return rng.randbytes(tensor.n_bytes)
    return rng.randbytes(rng.randint(0, 40)) if message.MAX_FRAME_BYTES else None


def value(hint: object, rng: random.Random) -> object:
    """Return a legal value of one annotation."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        return None if rng.random() < 0.3 else value(inner, rng)
    if hint in ID_BYTES:
        return rng.randbytes(ID_BYTES[hint]).hex()
    if hint is bool:
        return rng.random() < 0.5
    if get_origin(hint) is Annotated:
        base, kind = get_args(hint)
        if isinstance(kind, Many):
            n = rng.randint(0, min(kind.max_items, MAX_ITEMS))
            return tuple(value(get_args(base)[0], rng) for _ in range(n))
        return leaf(kind, rng)
    assert isinstance(hint, type), hint
    return record(hint, rng)


def leaf(kind: object, rng: random.Random) -> object:
    """Return a legal value of one kind of field."""
    match kind:
        case Int(low, high):
            return rng.choice((low, high, rng.randint(low, high)))
        case Real(low, high):
            return rng.choice((low, high, float(rng.randint(int(max(low, -1e6)), int(min(high, 1e6))))))
        case Text(max_bytes):
            text = "".join(rng.choice(LETTERS) for _ in range(rng.randint(0, 8)))
            return text if len(text.encode()) <= max_bytes else ""
        case Raw(low, high):
            return rng.randbytes(rng.choice((low, min(high, low + 5))))
        case OneOf(choices):
            return rng.choice(choices)
    raise AssertionError(kind)
