"""How busy a device was."""

from __future__ import annotations

import pytest

from swarm.node.meters import Meters


def test_meters_tell_the_last_seconds() -> None:
    meters = Meters()
    for tenth in range(100):
        meters.tick(tenth * 0.05, tenth * 3, tenth * 0.1)
    assert meters.busy == pytest.approx(0.5, abs=0.01) and meters.tokens_per_s == pytest.approx(30, abs=0.5)
