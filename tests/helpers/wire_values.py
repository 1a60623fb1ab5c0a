"""A legal value for any field, record or message that travels, from a seeded random generator."""

from __future__ import annotations

import math
import random
import types
from functools import cache
from typing import Annotated, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from swarm.wire.ids import Id
from swarm.wire.messages import Message
from swarm.wire.records import TensorInfo
from swarm.wire.schema import Text

T = TypeVar("T", bound=msgspec.Struct)
LETTERS = "abcxyzäß漢 0-9"
MAX_ITEMS = 3


def record(kind: type[T], rng: random.Random) -> T:
    """Return a record whose every field is legal, often at the edge of what is."""
    if kind is TensorInfo:
        return TensorInfo("f16", (rng.randint(0, 3), 8))  # type: ignore[return-value]  # small, so that a frame fits
    hints = _hints(kind)
    return kind(**{name: value(hints[name], rng) for name in kind.__struct_fields__})


@cache
def _hints(kind: type) -> dict[str, object]:
    return get_type_hints(kind, include_extras=True)


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
    if get_origin(hint) is Literal:
        return rng.choice(get_args(hint))
    if get_origin(hint) is Annotated:
        return bounded(*get_args(hint), rng)
    assert isinstance(hint, type), hint
    return rng.random() < 0.5 if hint is bool else named(hint, rng)


def named(hint: type, rng: random.Random) -> object:
    """Return an id, a text or a record."""
    if issubclass(hint, Id):
        return hint(rng.randbytes(hint.N_BYTES).hex())
    if issubclass(hint, Text):
        text = "".join(rng.choice(LETTERS) for _ in range(rng.randint(0, 8)))
        return text if len(text.encode()) <= hint.MAX_BYTES else ""
    return record(hint, rng)


def bounded(kind: object, meta: Meta, rng: random.Random) -> object:
    """Return a number, bytes or a tuple within bounds."""
    if get_origin(kind) is tuple:
        n = rng.randint(meta.min_length or 0, min(meta.max_length or 0, MAX_ITEMS))
        return tuple(value(get_args(kind)[0], rng) for _ in range(n))
    if kind is bytes:
        low, high = meta.min_length or 0, meta.max_length or 0
        return rng.randbytes(rng.choice((low, min(high, low + 5))))
    if kind is int:
        least, most = int(meta.ge or 0), int(2**64 - 1 if meta.le is None else meta.le)
        return rng.choice((least, most, rng.randint(least, most)))
    assert kind is float and meta.ge is not None and meta.le is not None
    return rng.choice((meta.ge, meta.le, float(rng.randint(math.ceil(max(meta.ge, -1e6)), int(min(meta.le, 1e6))))))
