"""The names that travel: distinct types, lower-case hex in Python, raw bytes on the wire."""

from __future__ import annotations

from typing import NewType

PeerId = NewType("PeerId", str)  # a device: hash of its public key, so nobody else can claim it
BootId = NewType("BootId", str)  # one run of a node: random
SessionId = NewType("SessionId", str)  # one generation: random, chosen by the entry node
ModelId = NewType("ModelId", str)  # hash of a model's manifest
ChunkId = NewType("ChunkId", str)  # hash of a chunk's bytes

ID_BYTES: dict[object, int] = {PeerId: 16, BootId: 8, SessionId: 16, ModelId: 32, ChunkId: 32}
