"""Q4_K and Q6_K by search: what comes back is nearer than with plain scales, and nothing breaks at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.convert.k_quants import QUANTIZE
from swarm.kernels import _native
from swarm.kernels.quants import dequantize, quant_by_name
from tests.helpers import quantize as plain

RNG = np.random.default_rng(4)
KINDS = {
    "normal": RNG.standard_normal((200, 256)),
    "heavy": RNG.laplace(size=(200, 256)) ** 3,
    "above zero": RNG.random((200, 256)) + 2,
    "below zero": -RNG.random((200, 256)) - 2,
    "one outlier": np.where(np.arange(256) == 77, 50.0, RNG.standard_normal((200, 256))),
}


def back(name: str, values: np.ndarray) -> np.ndarray:
    return dequantize(quant_by_name(name), QUANTIZE[name](values.astype(np.float32)))


def loss(values: np.ndarray, found: np.ndarray) -> float:
    return float(np.sqrt(np.mean((values - found) ** 2)))


@pytest.mark.parametrize("name", QUANTIZE)
@pytest.mark.parametrize("kind", KINDS)
def test_search_loses_less_than_plain_scales(name: str, kind: str) -> None:
    values = KINDS[kind].astype(np.float32)
    quant = quant_by_name(name)
    # The search weighs large values more: beside one outlier, what is lost of the rest may be a little more.
    room = 1.02 if kind == "one outlier" else 1.0
    assert loss(values, back(name, values)) < room * loss(values, dequantize(quant, plain.quantize(quant, values)))


@pytest.mark.parametrize(("name", "bound"), [("Q4_K", 0.075), ("Q6_K", 0.019)])
def test_the_loss_of_normal_values_is_that_of_the_bits(name: str, bound: float) -> None:
    assert loss(KINDS["normal"], back(name, KINDS["normal"])) < bound


@pytest.mark.parametrize("name", QUANTIZE)
@pytest.mark.parametrize("value", [0.0, 1.0, -0.7, 1e-9, -1e-30, 3e4])
def test_a_block_of_one_value_comes_back(name: str, value: float) -> None:
    found = back(name, np.full((2, 256), value, np.float32))
    np.testing.assert_allclose(found, value, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("name", QUANTIZE)
def test_a_block_is_the_same_alone_and_among_others(name: str) -> None:
    values = KINDS["heavy"].astype(np.float32)
    whole = QUANTIZE[name](values)
    assert np.array_equal(np.concatenate([QUANTIZE[name](values[i : i + 1]) for i in range(len(values))]), whole)


def test_groups_that_the_search_cannot_take_are_refused() -> None:
    for width in (0, 7, 72):
        with pytest.raises(ValueError, match="multiple of 8"):
            _native.fit_signed(np.ones((1, max(width, 1)), np.float32)[:, :width], 32)
