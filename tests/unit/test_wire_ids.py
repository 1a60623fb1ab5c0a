"""Ids: hex in Python, raw bytes on the wire."""

from __future__ import annotations

import pytest

from swarm.wire.ids import BootId, ChunkId, Id, ModelId, PeerId, SessionId


@pytest.mark.parametrize("kind", [PeerId, BootId, SessionId, ModelId, ChunkId])
def test_an_id_is_the_text_of_its_digits(kind: type[Id]) -> None:
    digits = "0a" * kind.N_BYTES
    assert kind(digits) == digits and f"{kind(digits):.4}" == "0a0a"
    assert {kind(digits): 1}[kind(digits)] == 1


def test_ids_are_as_long_as_the_hashes_that_they_are_of() -> None:
    assert [kind.N_BYTES for kind in (PeerId, BootId, SessionId, ModelId, ChunkId)] == [16, 8, 16, 32, 32]
