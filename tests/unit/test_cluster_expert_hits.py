"""What to expect of a share of the experts in memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from swarm.cluster.expert_hits import CURVE, MIN_TOKENS, expected_hit_rate, own_curve
from swarm.kernels import _native
from swarm.kernels.reference_experts import FAST_HALF_LIFE, SLOW_HALF_LIFE, fading
from tests.helpers import routing

LAYERS, TOP_K = 15, 8


def test_the_curve_is_met_and_rises() -> None:
    assert [round(100 * expected_hit_rate(share / 100)) for share, _ in CURVE] == [hits for _, hits in CURVE]
    rates = [expected_hit_rate(i / 1000) for i in range(1001)]
    assert all(a < b for a, b in itertools.pairwise(rates))
    assert (expected_hit_rate(-1), expected_hit_rate(2)) == (0.0, 1.0)


@pytest.mark.parametrize("trace", [routing.flat(300, LAYERS), routing.uniform(300, LAYERS)], ids=["flat", "uniform"])
def test_a_model_s_own_curve_is_what_the_policy_finds_at_every_share(trace: routing.I32) -> None:
    def replayed(n_slots: int) -> tuple[float, list[float]]:
        fades = fading(FAST_HALF_LIFE), fading(SLOW_HALF_LIFE)
        residents = _native.Residents(LAYERS, routing.N_EXPERTS, n_slots, *fades)
        did = residents.replay(np.ascontiguousarray(trace))
        return float(np.mean(did[100:] == _native.HIT)), residents.ranks().tolist()

    ranks = replayed(TOP_K)[1]
    curve = own_curve(ranks, LAYERS * TOP_K)
    for share in (0.04, 0.0625, 0.1, 0.2, 0.3, 0.5, 0.7):
        found, same = replayed(round(share * LAYERS * routing.N_EXPERTS))
        assert expected_hit_rate(share, curve) == pytest.approx(found, abs=0.025), share
        assert same == ranks, "what is learnt does not depend on how much was in memory"
    assert (curve[0], curve[-1]) == ((0.0, 0.0), (100.0, 100.0)) and len(curve) < 40


def test_too_little_was_seen_for_a_curve_of_one_s_own() -> None:
    assert own_curve([], 0.0) is CURVE
    assert own_curve([10.0] * 32, 320 / MIN_TOKENS + 1) is CURVE
    assert own_curve([10.0] * 32, 320 / MIN_TOKENS - 1) is not CURVE


@pytest.mark.parametrize("curve", [(), ((0.0, 0.0), (0.0, 50.0))])
def test_a_curve_that_makes_no_sense_divides_by_nothing(curve: tuple[tuple[float, float], ...]) -> None:
    assert expected_hit_rate(0.5, curve) == 1.0
