"""The NumPy reference of float operations, against formulas worked out by hand or in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from swarm.kernels import reference as ops

RNG = np.random.default_rng(11)


def noise(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def test_rmsnorm_scales_to_a_mean_square_of_one_then_by_weight() -> None:
    x, weight = noise(3, 64), noise(64)
    expected = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(ops.rmsnorm(x, weight, 1e-5), expected, rtol=1e-5)
    assert not ops.rmsnorm(np.zeros((1, 64), np.float32), weight, 1e-5).any()


def test_softmax_and_sigmoid_bear_extremes() -> None:
    x = np.array([[-np.inf, 0.0, 1000.0, 1000.0]], np.float32)
    assert ops.softmax(x).tolist() == [[0.0, 0.0, 0.5, 0.5]]
    assert ops.sigmoid(np.array([-1e4, 0.0, 1e4], np.float32)).tolist() == [0.0, 0.5, 1.0]


def test_silu_mul_is_gate_times_its_sigmoid_times_up() -> None:
    gate, up = noise(2, 32), noise(2, 32)
    np.testing.assert_allclose(ops.silu_mul(gate, up), gate / (1 + np.exp(-gate)) * up, rtol=1e-5)


def test_half_rotation_is_pair_rotation_of_reordered_columns() -> None:
    x = noise(5, 2, 24)
    cos, sin = ops.rope_table(ops.rope_frequencies(16, 1e4), np.arange(5))
    order = [*np.arange(16).reshape(2, 8).T.ravel(), *range(16, 24)]
    np.testing.assert_array_equal(ops.rope_half(x, cos, sin)[..., order], ops.rope_pair(x[..., order], cos, sin))


def test_rotation_turns_the_first_pair_by_its_position_and_leaves_the_rest() -> None:
    x = np.zeros((3, 1, 8), np.float32)
    x[..., 0] = x[..., 6] = 1
    cos, sin = ops.rope_table(ops.rope_frequencies(4, 1e4), np.array([0, 1, 2]))
    turned = ops.rope_pair(x, cos, sin)[:, 0]
    np.testing.assert_allclose(turned[:, 0], np.cos([0, 1, 2]), rtol=1e-6)
    np.testing.assert_allclose(turned[:, 1], np.sin([0, 1, 2]), rtol=1e-6)
    assert (turned[:, 6] == 1).all()


def test_cos_and_sin_are_right_to_the_last_bits_at_every_position() -> None:
    angles = np.concatenate([RNG.uniform(-10, 10, 20_000), RNG.uniform(0, 2**20, 20_000), np.arange(64) * math.pi / 4])
    cos, sin = ops.cos_sin(angles)
    np.testing.assert_allclose(cos, np.cos(angles), rtol=0, atol=2.5e-16)
    np.testing.assert_allclose(sin, np.sin(angles), rtol=0, atol=2.5e-16)


def test_llama3_divisors_leave_fast_pairs_and_stretch_slow_ones() -> None:
    kwargs = {"factor": 8.0, "low_factor": 1.0, "high_factor": 4.0, "original_context": 8192}
    divisors = ops.llama3_divisors(128, 5e5, **kwargs)
    assert divisors[0] == 1
    assert divisors[-1] == pytest.approx(8)
    assert (np.diff(divisors) >= 0).all()
    # A pair between the bounds, by the formula of the Llama 3 release.
    i = int(np.flatnonzero((divisors > 1.5) & (divisors < 7.5))[0])
    frequency = 5e5 ** (-2 * i / 128)
    smooth = (8192 * frequency / (2 * math.pi) - 1) / 3
    assert 1 / divisors[i] == pytest.approx((1 - smooth) / 8 + smooth, rel=1e-5)


def test_yarn_divisors_leave_fast_pairs_and_stretch_slow_ones() -> None:
    divisors = ops.yarn_divisors(128, 1e6, factor=4.0, original_context=32768)
    assert divisors[0] == 1
    assert divisors[-1] == 4
    assert (np.diff(divisors) >= 0).all()


def test_attention_sees_no_later_position_and_shares_key_heads() -> None:
    q, k, v = noise(3, 4, 8), noise(5, 2, 8), noise(5, 2, 8)
    found = ops.attention(q, k, v, 0.5).reshape(3, 4, 8)
    for token in range(3):
        for head in range(4):
            seen = slice(0, 5 - 3 + token + 1)
            scores = (k[seen, head // 2].astype(np.float64) @ q[token, head]) * 0.5
            weights = np.exp(scores - scores.max())
            expected = weights @ v[seen, head // 2] / weights.sum()
            np.testing.assert_allclose(found[token, head], expected, rtol=1e-4, atol=1e-6)


def test_router_prefers_the_lower_index_among_equals() -> None:
    chosen, weights = ops.router(np.zeros((1, 6), np.float32), 3, gating="softmax", normalise=True)
    assert chosen.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-6)


def test_router_bias_decides_who_is_chosen_and_not_how_much_it_counts() -> None:
    logits = np.array([[2.0, 1.0, 0.0, -1.0]], np.float32)
    bias = np.array([0, 0, 0, 5], np.float32)
    chosen, weights = ops.router(logits, 2, gating="sigmoid", normalise=False, scale=2.5, bias=bias)
    assert chosen.tolist() == [[3, 0]]
    np.testing.assert_allclose(weights, [[2.5 / (1 + math.exp(1)), 2.5 / (1 + math.exp(-2))]], rtol=1e-6)


def test_router_chooses_only_in_the_groups_with_the_best_two() -> None:
    # The best single expert, 4, is in a group whose second is poor.
    logits = np.array([[1.0, 1.0, 0.9, 0.9, 1.2, -9.0, 0.0, 0.0]], np.float32)
    chosen, _ = ops.router(logits, 3, gating="sigmoid", normalise=True, n_group=4, top_group=2)
    assert chosen.tolist() == [[0, 1, 2]]


def test_experts_add_up_by_weight() -> None:
    x, gate, up, down = noise(2, 8), noise(4, 6, 8), noise(4, 6, 8), noise(4, 8, 6)
    chosen, weights = np.array([[0, 3], [3, 1]]), np.array([[0.5, 2.0], [1.0, 0.25]], np.float32)
    found = ops.experts(x, chosen, weights, gate=gate, up=up, down=down)
    for token in range(2):
        one = x[token : token + 1]
        parts = [ops.ffn(one, gate[e], up[e], down[e])[0] for e in chosen[token]]
        np.testing.assert_allclose(found[token], weights[token] @ np.stack(parts), rtol=1e-5, atol=1e-5)


def test_natural_log_is_the_logarithm() -> None:
    for x in (1, 2, 3, 7, 64, 1000, 2**40, 0.1, 1e-9):
        assert ops.natural_log(x) == pytest.approx(math.log(x), rel=1e-15, abs=1e-16)


def test_temper_grows_with_each_stretch() -> None:
    found = ops.temper(np.array([0, 63, 64, 191, 192]), 0.1, 64)
    np.testing.assert_allclose(found, [1, 1, 1 + 0.1 * math.log(2), 1 + 0.1 * math.log(3), 1 + 0.1 * math.log(4)])


def test_swiglu_holds_gate_from_above_and_up_on_both_sides() -> None:
    gate, up = np.array([9.0, -9.0, 1.0], np.float32), np.array([-9.0, 9.0, 1.0], np.float32)
    g, u = np.array([7.0, -9.0, 1.0]), np.array([-7.0, 7.0, 1.0])
    np.testing.assert_allclose(ops.swiglu(gate, up, 1.702, 7.0), (u + 1) * g / (1 + np.exp(-1.702 * g)), rtol=1e-6)


def test_a_window_hides_what_lies_before_it_and_a_sink_takes_a_share() -> None:
    q, k, v = noise(5, 2, 16), noise(5, 1, 16), noise(5, 1, 16)
    alone = ops.attention(q[-1:], k[-2:], v[-2:], 0.25)
    np.testing.assert_allclose(ops.attention(q[-1:], k, v, 0.25, window=2), alone, rtol=1e-6)
    sinks = np.array([-np.inf, 0.0], np.float32)
    without, found = ops.attention(q, k, v, 0.25), ops.attention(q, k, v, 0.25, sinks=sinks)
    np.testing.assert_allclose(found[:, :16], without[:, :16], rtol=1e-6)
    assert np.all(np.abs(found[:, 16:]) < np.abs(without[:, 16:]))
