"""Float ops: near the NumPy reference, and the same bits from every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from swarm import kernels
from swarm.kernels import _native, reference

SIZES = (1, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 576)


def values(n: int, scale: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(n).standard_normal(n) * scale).astype(np.float32)


def cases() -> list[tuple[str, tuple[object, ...], np.ndarray]]:
    found: list[tuple[str, tuple[object, ...], np.ndarray]] = []
    for n in SIZES:
        x, w = values(n), values(n + 1000)[:n]
        found.append(("softmax", (x,), reference.softmax(x)))
        found.append(("sigmoid", (x * 20,), reference.sigmoid(x * 20)))
        found.append(("hadamard", (x,), reference.hadamard(x)))
        found.append(("silu_mul", (x, w), reference.silu_mul(x, w)))
        found.append(("swiglu", (x * 4, w * 4, 1.702, 7.0), reference.swiglu(x * 4, w * 4, 1.702, 7.0)))
        found.append(("rmsnorm", (x, w, 1e-5), reference.rmsnorm(x, w, 1e-5)))
        sums = np.random.default_rng(n).integers(-(2**31), 2**31, n, np.int32)
        found.append(("add_sums", (x, sums, 0.75, 2.0**-29), x + 0.75 * (sums.astype(np.float32) * 2.0**-29)))
    for half in (1, 8, 12, 32):
        x = values(2 * half + 16)
        cos, sin = reference.rope_table(reference.rope_frequencies(2 * half, 1e4), np.array([17]))
        for pair, rotate in ((0, reference.rope_half), (1, reference.rope_pair)):
            found.append(("rope", (x, cos[0], sin[0], pair), rotate(x[None, None], cos, sin)[0, 0]))
    return found


@pytest.mark.parametrize("isa", kernels.isas())
def test_ops_are_near_the_reference(isa: str) -> None:
    for name, args, want in cases():
        got = _native.op(name, isa, *args)
        np.testing.assert_allclose(got, want, rtol=3e-6, atol=1e-6, err_msg=f"{name} of {len(want)}")


@pytest.mark.parametrize("isa", kernels.isas()[1:])
def test_ops_give_the_same_bits_as_scalar_code(isa: str) -> None:
    for name, args, _ in cases():
        assert np.array_equal(_native.op(name, isa, *args), _native.op(name, "scalar", *args)), name


def test_softmax_and_sigmoid_survive_extreme_values() -> None:
    for isa in kernels.isas():
        p = _native.op("softmax", isa, np.array([1e30, -1e30, 0.0], np.float32))
        assert p[0] == 1.0
        assert np.all(np.isfinite(p))
        s = _native.op("sigmoid", isa, np.array([200.0, -200.0], np.float32))
        assert s[0] == pytest.approx(1.0)
        assert 0 <= s[1] < 1e-30
