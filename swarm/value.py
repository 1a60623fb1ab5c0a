"""Value classes that are cheap to make.

A frozen dataclass sets each field through object.__setattr__: with cold caches, as between two steps of an answer,
making one of nine fields takes 22 us, and one that is not frozen 9. An answer makes several per token and device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(kind: type[T]) -> type[T]:
    """A dataclass with slots, to compare and to hash but never to change: the type checker sees to that."""
    return dataclass(slots=True, unsafe_hash=True)(kind)
