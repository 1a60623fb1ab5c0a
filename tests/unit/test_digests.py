"""Digests of pieces, and the table of them behind what they are of."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3

from swarm.digests import bytes_before_table, piece_digests, sealed, table_bytes, unsealed
from swarm.limits import DIGEST_PIECE_BYTES

SIZES = [1, 63, DIGEST_PIECE_BYTES - 1, DIGEST_PIECE_BYTES, DIGEST_PIECE_BYTES + 1, 300 * DIGEST_PIECE_BYTES + 5]


def test_each_piece_has_the_digest_of_its_bytes_in_order() -> None:
    data = (np.arange(2 * DIGEST_PIECE_BYTES + 77, dtype=np.uint32) % 251).astype(np.uint8)
    pieces = [data[at : at + DIGEST_PIECE_BYTES].tobytes() for at in range(0, len(data), DIGEST_PIECE_BYTES)]
    assert list(piece_digests(data)) == [blake3(piece).digest() for piece in pieces]


@pytest.mark.parametrize("n_bytes", SIZES)
def test_a_size_says_how_many_bytes_stand_before_the_table(n_bytes: int) -> None:
    assert bytes_before_table(n_bytes + table_bytes(n_bytes)) == n_bytes
    assert bytes_before_table(n_bytes + table_bytes(n_bytes) + 1) != n_bytes


def test_no_file_is_as_short_as_a_table() -> None:
    assert [bytes_before_table(size) for size in (0, 1, 32, 64)] == [None] * 4


def test_a_table_that_is_damaged_or_of_other_bytes_is_none() -> None:
    table = sealed(100, b"d" * 32)
    assert unsealed(100, table) == b"d" * 32
    assert unsealed(101, table) is None
    assert unsealed(100, b"e" + table[1:]) is None
    assert unsealed(100, table[:-1] + b"e") is None
