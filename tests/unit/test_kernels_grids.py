"""The grids of IQ1, IQ2 and IQ3, as the gguf package has them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from swarm.kernels.grids import NAMES, grid_of, values_of
from swarm.kernels.quants import quant_names

ENTRIES = {"IQ1_S": 2048, "IQ1_M": 2048, "IQ2_XXS": 256, "IQ2_XS": 512, "IQ2_S": 1024, "IQ3_XXS": 256, "IQ3_S": 512}


@pytest.mark.parametrize("name", NAMES)
def test_no_two_entries_are_the_same_and_all_values_are_used(name: str) -> None:
    grid = grid_of(name)
    assert grid is not None and grid.flags.c_contiguous
    assert grid.shape == (ENTRIES[name], 4 if name.startswith("IQ3") else 8)
    assert len(np.unique(grid, axis=0)) == len(grid)
    assert set(np.unique(grid)) == set(range(len(values_of(name))))


@pytest.mark.parametrize("name", NAMES)
def test_entries_stand_for_the_packages_values(name: str) -> None:
    grid = grid_of(name)
    assert grid is not None
    expected = getattr(gguf.quants, name).grid[0, 0]
    assert np.array_equal(np.array(values_of(name), np.float32)[grid], expected)


def test_other_types_have_none() -> None:
    assert [name for name in quant_names().split(", ") if grid_of(name) is not None] == sorted(
        NAMES, key=quant_names().split(", ").index
    )
