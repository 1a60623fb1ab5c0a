"""Values: classes to compare and to hash, never to change, and cheap to make.

An answer makes several per token and device. With cold caches, as between two steps, a frozen dataclass of nine fields
takes 22 us to make, for it sets each through object.__setattr__; one of these takes 3.
"""

from __future__ import annotations

from typing import dataclass_transform

from msgspec import Struct


@dataclass_transform(frozen_default=True)
class Value(Struct, frozen=True):
    """Base of all values; subclasses list their fields like dataclasses (msgspec's manual has the details)."""
