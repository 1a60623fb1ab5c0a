"""What to expect of a share of the experts in memory."""

from __future__ import annotations

import itertools

from swarm.cluster.expert_hits import CURVE, expected_hit_rate


def test_the_curve_is_met_and_rises() -> None:
    assert [round(100 * expected_hit_rate(share / 100)) for share, _ in CURVE] == [hits for _, hits in CURVE]
    rates = [expected_hit_rate(i / 1000) for i in range(1001)]
    assert all(a < b for a, b in itertools.pairwise(rates))
    assert (expected_hit_rate(-1), expected_hit_rate(2)) == (0.0, 1.0)
