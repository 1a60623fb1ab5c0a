"""The quantisers of the test helpers give valid blocks that stand for nearly the same floats."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.kernels.quants import QUANTS, dequantize
from tests.helpers.quantize import quantize

# Largest root-mean-square error on normal values, as a share of their own.
ERROR = {"F32": 0, "F16": 3e-4, "BF16": 2e-3, "Q8_0": 0.006, "Q6_K": 0.02, "Q5_0": 0.05, "Q5_1": 0.05, "Q5_K": 0.05}
ERROR |= {"Q4_0": 0.1, "Q4_1": 0.09, "Q4_K": 0.09, "IQ4_NL": 0.09, "IQ4_XS": 0.09, "Q3_K": 0.2, "Q2_K": 0.4}
ERROR |= {"MXFP4": 0.15, "IQ3_S": 0.15, "IQ3_XXS": 0.2, "IQ2_S": 0.3, "IQ2_XS": 0.35, "IQ2_XXS": 0.4}
ERROR |= {"IQ1_M": 0.55, "IQ1_S": 0.65, "TQ1_0": 0.85, "TQ2_0": 0.85}


@pytest.mark.parametrize("quant", QUANTS.values(), ids=[quant.name for quant in QUANTS.values()])
def test_values_come_back_within_the_error_of_their_type(quant) -> None:
    values = np.random.default_rng(1).normal(size=(4, 3, 512)).astype(np.float32)
    back = dequantize(quant, quantize(quant, values))
    assert back.shape == values.shape
    error = np.sqrt(np.mean((back - values) ** 2))
    assert error <= ERROR[quant.name], error


@pytest.mark.parametrize("quant", QUANTS.values(), ids=[quant.name for quant in QUANTS.values()])
def test_zeros_stay_zeros(quant) -> None:
    back = dequantize(quant, quantize(quant, np.zeros((2, 256), np.float32)))
    np.testing.assert_array_equal(back, 0)
