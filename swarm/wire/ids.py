"""The names that travel: distinct types, lower-case hex in Python, raw bytes on the wire."""

from __future__ import annotations

from typing import ClassVar


class Id(str):
    """Hex digits of a name of N_BYTES."""

    __slots__ = ()
    N_BYTES: ClassVar[int]


class PeerId(Id):
    """A device: hash of its public key, so nobody else can claim it."""

    __slots__ = ()
    N_BYTES = 16


class BootId(Id):
    """One run of a node: random."""

    __slots__ = ()
    N_BYTES = 8


class SessionId(Id):
    """One answer: random, chosen by the entry node."""

    __slots__ = ()
    N_BYTES = 16


class ModelId(Id):
    """Hash of a model's manifest."""

    __slots__ = ()
    N_BYTES = 32


class ChunkId(Id):
    """Hash of a chunk's bytes."""

    __slots__ = ()
    N_BYTES = 32
