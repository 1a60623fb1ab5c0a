"""Blocks of grids and of digits, taken apart."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.kernels import grid_blocks
from swarm.kernels.quants import quant_by_name

LARGEST = {"IQ1": 9, "IQ2": 43, "IQ3_XXS": 62, "IQ3_S": 15, "TQ1": 1, "TQ2": 2}


def parts_of(name: str) -> grid_blocks.Parts:
    blocks = np.random.default_rng(1).integers(0, 256, (50, quant_by_name(name).block_bytes), dtype=np.uint8)
    with np.errstate(invalid="ignore"):  # a scale of random bytes may be no number
        return grid_blocks.read(name, blocks)


@pytest.mark.parametrize("name", grid_blocks.READERS)
def test_scales_are_odd_and_values_small(name: str) -> None:
    parts = parts_of(name)
    assert parts.d.shape == (50,) and parts.values.shape == (50, 256)
    assert parts.scales.shape == (50, 16 if name in ("IQ1_M", "IQ2_XS", "IQ2_S") else 8)
    assert (parts.scales % 2 == 1).all() and parts.scales.max() <= 31
    assert np.abs(parts.values).max() == LARGEST.get(name, LARGEST.get(name[:3]))


def test_eight_signs_of_which_seven_are_stored_are_negative_in_even_numbers() -> None:
    for name in ("IQ2_XXS", "IQ2_XS", "IQ3_XXS"):
        negative = (parts_of(name).values < 0).reshape(-1, 8).sum(axis=1)
        assert (negative % 2 == 0).all() and set(negative) == {0, 2, 4, 6, 8}


def test_a_byte_of_five_digits_counts_in_243rds() -> None:
    block = np.zeros((1, 54), np.uint8)
    digits = (2, 0, 1, 1, 2)
    number = sum(digit * 3 ** (4 - i) for i, digit in enumerate(digits))
    block[0, 5] = -(-number * 256 // 243)
    values = grid_blocks.read("TQ1_0", block).values[0]
    assert [values[32 * i + 5] + 1 for i in range(5)] == list(digits)
