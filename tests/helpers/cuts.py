"""Slices by shares alone, where no memory counts."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.cluster.cuts import AXES, Bounds, Cuts


def cut(cuts: Cuts, shares: Sequence[float], group: int = 1) -> list[Bounds]:
    """As near to these shares of every axis as the steps allow; heads in steps of `group` steps."""
    edges = [cuts.ranges(axis, shares, group) for axis in AXES]
    return [tuple(edge for axis in AXES for edge in edges[axis][i]) for i in range(len(shares))]
