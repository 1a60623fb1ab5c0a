"""Rectangles of tensors of the mapped file: the bytes that the whole tensor has there, mostly without a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swarm.kernels.quants import quant_by_name
from swarm.store.gguf import GGUF, open_gguf
from swarm.store.rectangles import Rectangle, cut, overlaps
from tests.helpers.chunked import OUT, RECTANGLES, Q, expected


@pytest.fixture
def file(chunked_model: Path) -> Iterator[GGUF]:
    with open_gguf(chunked_model) as model:
        yield model


@pytest.mark.parametrize("rectangle", RECTANGLES)
def test_a_rectangle_of_the_mapped_file_is_what_the_whole_tensor_has_there(file: GGUF, rectangle: Rectangle) -> None:
    want = expected(file, rectangle)
    got = file.raw(*rectangle[:3])
    assert got.shape == want.shape and np.array_equal(got, want)
    if want.ndim > 1:
        assert np.array_equal(np.stack(list(file.slabs(*rectangle))).reshape(want.shape), want)


def test_one_range_of_rows_is_a_view_of_the_file(file: GGUF) -> None:
    assert np.shares_memory(file.raw(Q, [range(40, 97)], range(16, 64)), file.raw(Q))


def test_columns_must_be_whole_blocks(file: GGUF) -> None:
    with pytest.raises(AssertionError):
        file.raw(OUT, None, range(0, 32))


def test_several_ranges_are_put_one_after_the_other() -> None:
    raw = np.arange(20, dtype=np.uint8).reshape(5, 4)
    got = cut(raw, quant_by_name("F32"), [range(4, 5), range(0, 2), range(0, 1)], None)
    assert np.array_equal(got, raw[[4, 0, 1, 0]])


def test_overlaps_are_counted_from_the_first_row_and_among_the_ranges() -> None:
    found = list(overlaps([range(0, 10), range(30, 40), range(8, 12)], 8, 32))
    assert found == [(slice(0, 2), slice(8, 10)), (slice(22, 24), slice(10, 12)), (slice(0, 4), slice(20, 24))]
