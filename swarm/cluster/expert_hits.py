"""How often an expert is found in memory when only a share of all is there: a model's own curve, or what others do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

# Per cent of the experts in memory, and of all uses those that find theirs: ascending, from (0, 0) to (100, 100).
Curve = tuple[tuple[float, float], ...]

# Before a model has run: replay of the policy over routing as flat as GLM's is said to be (docs/experts.md).
CURVE: Curve = (
    *((0, 0), (3, 20), (6, 35), (10, 47), (13, 54), (17, 62), (20, 68), (25, 75)),
    *((30, 80), (40, 87), (50, 92), (70, 97), (100, 100)),
)
FINE = 16  # experts of a layer, up to which each is a point of a curve of one's own; then every so many
MIN_TOKENS = 64  # that make a curve: in the first ones every expert is new


def expected_hit_rate(share: float, curve: Curve = CURVE) -> float:
    """The share of uses, from 0 to 1, that find their expert when `share` of all experts is in memory."""
    per_cent = min(max(100.0 * share, 0.0), 100.0)
    for (left, low), (right, high) in pairwise(curve):
        if per_cent <= right and left < right:
            return (low + (high - low) * (per_cent - left) / (right - left)) / 100.0
    return 1.0


def own_curve(ranks: Sequence[float], uses_per_token: float) -> Curve:
    """The curve of a model, from its uses by how many experts of their layer were used more until then.

    With `n` of a layer's experts in memory a use is found there when fewer than `n` were used more: the policy keeps
    those that are used most. CURVE where too little was seen.
    """
    if sum(ranks) < MIN_TOKENS * max(uses_per_token, 1.0):
        return CURVE
    found = [*accumulate(ranks, initial=0.0)]
    points = [n for n in range(len(ranks)) if n <= FINE or n % FINE == 0]
    return (*((100.0 * n / len(ranks), 100.0 * found[n] / found[-1]) for n in points), (100.0, 100.0))
