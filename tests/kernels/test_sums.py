"""Exact sums of every type with every instruction set: the integers of the reference, however the columns are cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from swarm.kernels import reference_matmul as reference
from tests.kernels import cases
from tests.kernels.build import library
from tests.kernels.test_matmul import rng_of


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
@pytest.mark.parametrize("name", cases.NAMES)
def test_exact_sums_have_the_integers_of_the_reference(name: str, shape: cases.Shape, isa: str) -> None:
    lib, kernels = library(), library().kernels(isa)
    assert kernels is not None
    cols = shape.cols(name)
    for unit, own, exponents in (
        (64, False, (4, 11)),
        (96, True, (-3, 4)),
        (128, False, (0, 26)),
        (64, True, (10, 25)),
    ):
        rng = rng_of(name, shape, unit, own)
        blocks, x = cases.random_blocks(name, shape.rows, cols, rng), cases.random_activations(shape.tokens, cols, rng)
        packed = lib.pack(cases.TYPES[name], blocks, shape.rows, cols, shape.tile_cols(name))
        columns = lib.lib.sw_group_cols(cases.TYPES[name], unit)
        assert columns == reference.group_cols(name, unit)
        factor = np.exp2(rng.integers(*exponents, (shape.tokens, 1))).astype(np.float32)
        factor[::2] *= np.float32(0.3)  # as of an expert
        try:
            want = reference.sums(name, blocks, x, columns=columns, factor=factor, own=own)
        except OverflowError:
            with pytest.raises(OverflowError):
                lib.sums(kernels, packed, lib.activations(kernels, x), columns=columns, factor=factor, own=own)
            continue
        got = lib.sums(kernels, packed, lib.activations(kernels, x), columns=columns, factor=factor, own=own, start=5)
        assert np.array_equal(got, want + 5)


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("name", cases.NAMES)
def test_any_split_of_groups_adds_up_to_the_same_sums(name: str, isa: str) -> None:
    lib, kernels, rng = library(), library().kernels(isa), rng_of(name)
    assert kernels is not None
    rows, tokens, columns = 37, 5, lib.lib.sw_group_cols(cases.TYPES[name], 64)
    n_groups, block = 11, cases.BLOCK[name]
    blocks = cases.random_blocks(name, rows, n_groups * columns, rng)
    x = cases.random_activations(tokens, n_groups * columns, rng)
    factor = np.exp2(rng.integers(4, 14, (tokens, 1))).astype(np.float32)

    def of_columns(first: int, end: int, own: bool) -> np.ndarray:
        part = blocks[:, first // block * cases.BYTES[name] : end // block * cases.BYTES[name]]
        packed = lib.pack(cases.TYPES[name], part, rows, end - first)
        acts = lib.activations(kernels, np.ascontiguousarray(x[:, first:end]))
        return lib.sums(kernels, packed, acts, columns=columns, factor=factor, own=own)

    for own in (False, True):
        whole = of_columns(0, n_groups * columns, own)
        for n_slices in range(1, 9):
            cuts = np.sort(rng.choice(np.arange(1, n_groups), n_slices - 1, replace=False)) * columns
            edges = [0, *cuts.tolist(), n_groups * columns]
            parts = [of_columns(a, b, own) for a, b in pairwise(edges)]
            rng.shuffle(parts)
            assert np.array_equal(sum(parts), whole)


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("name", cases.NAMES)
def test_sums_alone_and_in_a_batch_are_the_same_and_go_to_the_rows_that_are_named(name: str, isa: str) -> None:
    lib, kernels, rng = library(), library().kernels(isa), rng_of(name)
    assert kernels is not None
    rows, tokens, columns = 16 * 9 + 3, 11, lib.lib.sw_group_cols(cases.TYPES[name], 64)
    cols = 9 * max(cases.BLOCK[name], 32)
    packed = lib.pack(cases.TYPES[name], cases.random_blocks(name, rows, cols, rng), rows, cols)
    acts = lib.activations(kernels, cases.random_activations(tokens, cols, rng))
    factor = np.exp2(rng.integers(4, 14, tokens)).astype(np.float32)
    for own in (False, True):
        whole = lib.sums(kernels, packed, acts, columns=columns, factor=factor, own=own)
        for t in range(tokens):
            alone = lib.sums(kernels, packed, acts, columns=columns, factor=factor, own=own, tokens=(t, t + 1))
            assert np.array_equal(alone[t], whole[t])
            alone[t] = 0
            assert not alone.any()
        some = lib.sums(kernels, packed, acts, columns=columns, factor=factor, own=own, tokens=(2, 9), panels=(1, 9))
        assert np.array_equal(some[2:9, 16:144], whole[2:9, 16:144])
        some[2:9, 16:144] = 0
        assert not some.any()
        order = rng.permutation(tokens).astype(np.int32)
        moved = lib.sums(kernels, packed, acts, columns=columns, factor=factor, own=own, rows=order)
        assert np.array_equal(moved[order], whole)


@pytest.mark.parametrize("isa", library().names())
@pytest.mark.parametrize("name", cases.NAMES)
def test_what_is_no_number_or_too_large_is_told_and_never_cut(name: str, isa: str) -> None:
    lib, kernels, rng = library(), library().kernels(isa), rng_of(name)
    assert kernels is not None
    rows, tokens, columns = 20, 3, lib.lib.sw_group_cols(cases.TYPES[name], 64)
    cols = 3 * columns
    blocks, x = cases.random_blocks(name, rows, cols, rng), cases.random_activations(tokens, cols, rng)
    packed = lib.pack(cases.TYPES[name], blocks, rows, cols)
    largest = np.abs(reference.matmul(name, blocks, x)).max()
    for own, integer in ((False, 2.0**36), (True, 2.0**22)):  # the largest one, and what it is with the grid of its own
        ones = np.full(tokens, np.exp2(np.floor(np.log2(integer / largest))), np.float32)
        large = lib.sums(kernels, packed, lib.activations(kernels, x), columns=columns, factor=ones, own=own)
        assert np.abs(large).max() > 2**33
        assert np.array_equal(large, reference.sums(name, blocks, x, columns=columns, factor=ones[:, None], own=own))
        for value in (np.nan, np.inf, -np.inf, 3e38):
            bad = x.copy()
            bad[1, columns + 3] = value
            for span in ((0, tokens), (1, 2)):
                with pytest.raises(OverflowError):
                    acts = lib.activations(kernels, bad)
                    lib.sums(kernels, packed, acts, columns=columns, factor=ones, own=own, tokens=span)


def test_more_groups_than_are_added_up_at_once() -> None:
    lib, rng = library(), rng_of("many groups")
    rows, cols = 21, 64 * 600
    for name in ("Q4_0", "F16"):
        blocks = cases.random_blocks(name, rows, cols, rng)
        x = cases.random_activations(2, cols, rng)
        packed = lib.pack(cases.TYPES[name], blocks, rows, cols)
        for own in (False, True):
            factor = np.full((2, 1), 2.0**9, np.float32)
            want = reference.sums(name, blocks, x, columns=64, factor=factor, own=own)
            for isa in lib.names():
                kernels = lib.kernels(isa)
                assert kernels is not None
                acts = lib.activations(kernels, x)
                for span in ((0, 1), (0, 2)):
                    got = lib.sums(kernels, packed, acts, columns=64, factor=factor, own=own, tokens=span)
                    assert np.array_equal(got[: span[1]], want[: span[1]])
