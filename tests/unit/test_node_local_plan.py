"""`swarm plan` where no node runs; test_node_plan.py asks the same of both ways."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

import pytest

from swarm import config
from swarm.errors import ConfigError
from swarm.node.home import Home, write_json
from swarm.node.local_plan import plan_here
from swarm.store.gguf import open_gguf
from tests.helpers.nodes import SPEED
from tests.helpers.tiny import TINY, make_weights, write_tiny


def test_a_context_that_the_model_was_not_made_for_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", TINY["llama"], make_weights(TINY["llama"]), "Q8_0")
    home = Home(tmp_path / "home")
    home.make()
    write_json(home.measured_file, asdict(SPEED))
    settings = config.load({"home": str(home.root), "memory": "1MB", "threads": 1})
    with open_gguf(path) as file:
        assert asyncio.run(plan_here(file, settings, [], 512))["fits"]
        with pytest.raises(ConfigError, match="context is 513; this model was made for at most 512 tokens"):
            asyncio.run(plan_here(file, settings, [], 513))
