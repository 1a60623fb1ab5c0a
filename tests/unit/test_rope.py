"""Rotary tables: the same rows however they are asked for."""

from __future__ import annotations

import numpy as np

from swarm.engine.rope import BLOCK, Rope
from swarm.kernels import reference
from swarm.models import RopeSpec
from swarm.models.spec import Temper


def test_table_of_any_run_is_the_rows_of_the_whole_table() -> None:
    rope = Rope(RopeSpec("half", dims=32, theta=1e4), None)
    cos, sin = reference.rope_table(reference.rope_frequencies(32, 1e4), np.arange(5 * BLOCK))
    for first, count in ((0, 1), (BLOCK - 1, 2), (3, BLOCK), (BLOCK, BLOCK), (7, 4 * BLOCK)):
        for whole, part in zip((cos, sin), rope.at(first, count), strict=True):
            np.testing.assert_array_equal(part, whole[first : first + count])
            assert part.flags.c_contiguous


def test_queries_sharpen_only_where_the_model_says_so() -> None:
    spec = RopeSpec("half", dims=32, theta=1e4)
    assert Rope(spec, None).temper(0, 4) is None
    np.testing.assert_array_equal(
        Rope(spec, None, Temper(0.1, 64)).temper(63, 2), reference.temper(np.array([63, 64]), 0.1, 64)
    )
