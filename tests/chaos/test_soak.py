"""A household for a while: devices that die and come back, a bad member, floods of calls. Answers stay, memory too.

SWARM_SOAK_S=1800 pytest -s tests/chaos/test_soak.py      half an hour; in CI half a minute
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.nodes import Swarm
from tests.helpers.soak import MEMORY, SECONDS, bad_member, soak
from tests.helpers.tiny import make_tiny


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
def test_a_household_answers_the_same_and_stays_the_same_size(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", "glm4")
    with Swarm(tmp_path / "swarm", [MEMORY] * 3, model=path, context=256) as nodes, bad_member(nodes.nodes[0]) as bad:
        soak(nodes, bad)
