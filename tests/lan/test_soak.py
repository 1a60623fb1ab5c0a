"""The same household as in tests/chaos/test_soak.py, on a network of its own, where cables are pulled, too.

Half an hour, at a low load:
SWARM_SOAK_S=1800 SWARM_SOAK_PAUSE_S=0.5 SWARM_SOAK_CHURN_S=15 pytest -s tests/lan/test_soak.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.lan import Lan, why_not
from tests.helpers.nodes import Swarm
from tests.helpers.soak import MEMORY, SECONDS, bad_member, soak
from tests.helpers.tiny import make_tiny

pytestmark = [pytest.mark.lan, pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
def test_a_household_whose_cables_are_pulled_answers_the_same_and_stays_the_same_size(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", "glm4")
    with (
        Lan(4, rate="1gbit", delay_ms=0.15) as lan,
        Swarm(tmp_path / "swarm", [MEMORY] * 3, model=path, context=256, lan=lan) as nodes,
        bad_member(nodes.nodes[0], lan.address(1), lan.namespace(4)) as bad,
    ):
        soak(nodes, bad)
