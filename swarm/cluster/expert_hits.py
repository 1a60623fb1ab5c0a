"""How often an expert is found in memory when only a share of all is there: what to expect before a model has run."""

from __future__ import annotations

from itertools import pairwise

# Per cent of all uses that find their expert, at so many per cent of the experts in memory: replay of the policy over
# routing as flat as GLM's is said to be (docs/experts.md).
CURVE = (
    *((0, 0), (3, 20), (6, 35), (10, 47), (13, 54), (17, 62), (20, 68), (25, 75)),
    *((30, 80), (40, 87), (50, 92), (70, 97), (100, 100)),
)


def expected_hit_rate(share: float) -> float:
    """The share of uses, from 0 to 1, that find their expert when `share` of all experts is in memory."""
    per_cent = min(max(100.0 * share, 0.0), 100.0)
    for (left, low), (right, high) in pairwise(CURVE):
        if per_cent <= right:
            return (low + (high - low) * (per_cent - left) / (right - left)) / 100.0
    return 1.0
