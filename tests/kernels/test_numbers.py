"""Small work on numbers between steps (csrc/numbers.h), beside NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.kernels import _native

SIZES = (1, 3, 7, 31, 33, 64, 100, 577)


@pytest.mark.parametrize("offset", [0, 1])  # in a message a frame may lie anywhere
def test_a_value_that_is_no_number_is_found_wherever_it_is(offset: int) -> None:
    for n in SIZES:
        x = np.array([3.4e38, -1e-45, 0.0, -0.0] * n, np.float32)[:n]
        frame = memoryview(bytes(offset) + x.tobytes())[offset:]
        assert _native.all_finite(frame)
        for value in (np.nan, -np.nan, np.inf, -np.inf):
            for i in range(n):
                hostile = bytearray(frame)
                hostile[4 * i : 4 * i + 4] = np.float32(value).tobytes()
                assert not _native.all_finite(memoryview(bytes(offset) + hostile)[offset:])
    assert _native.all_finite(b"")


@pytest.mark.parametrize("digits", [9, 0])  # hardly any equals, and many
def test_the_largest_come_in_order_and_among_equals_the_lowest_first(digits: int) -> None:
    rng = np.random.default_rng(digits)
    for n in (*SIZES, 5000):
        x = np.round(3 * rng.standard_normal(n), digits).astype(np.float32)
        x[rng.integers(n)] = -np.inf
        order = np.lexsort((np.arange(n), -x))
        for k in (1, 2, 5, 40, n - 1, n, n + 7):
            for floor in (-np.inf, -1.0, 2.0, 99.0):
                wanted = order[: max(k, 0)]
                wanted = wanted[x[wanted] >= floor]
                assert _native.largest(x, k, floor).tolist() == wanted.tolist(), (n, k, floor)
    assert len(_native.largest(np.zeros(0, np.float32), 3, 0.0)) == 0


def test_random_numbers_are_those_of_numpy() -> None:
    for key in (0, 1, 2**63 - 1, 0x123456789ABCDEF):
        for place in (0, 1, 99, 2**20, 2**64 - 1):
            assert _native.philox(key, place) == int(np.random.Philox(key=key, counter=place).random_raw())


def test_places_and_powers_that_are_not_there_are_refused() -> None:
    x, powers = np.zeros(4, np.float32), np.ones(4480)
    for place in (-1, 4):
        with pytest.raises(ValueError, match=f"place {place} of 4"):
            _native.weights(x, np.array([0, place]), 0.0, 1.0, powers)
    with pytest.raises(ValueError, match="4480 are needed"):
        _native.exponential(np.zeros(1), powers[:-1])
