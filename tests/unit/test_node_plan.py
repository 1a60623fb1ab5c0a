"""Where a model would run, for people and for scripts; in a running node and without one."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from swarm import config
from swarm.errors import ConfigError
from swarm.node.home import Home, write_json
from swarm.node.local_plan import plan_here
from swarm.node.plan import default_plan_context
from swarm.store.gguf import open_gguf
from tests.helpers.nodes import SPEED
from tests.helpers.one_node import one_node
from tests.helpers.tiny import TINY, make_weights, write_tiny


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.gguf", TINY["llama"], make_weights(TINY["llama"]), "Q8_0")


def in_node(folder: Path, path: Path, *add: str, context: int = 0, **settings: object) -> Any:
    async def story() -> Any:
        async with one_node(folder, **settings) as node:
            model = await node.add_file(path)
            return await node.plan(model, add, context, 1)

    return asyncio.run(story())


def without_node(folder: Path, path: Path, *add: str, context: int = 0, **settings: object) -> Any:
    home = Home(folder / "alone")
    home.make()
    write_json(home.measured_file, asdict(SPEED))
    values: Any = {"home": str(home.root), "memory": "1MB", "threads": 1, **settings}
    with open_gguf(path) as file:
        return asyncio.run(plan_here(file, config.load(values), add, context))


@pytest.mark.parametrize("planned", [in_node, without_node])
def test_a_plan_counts_every_device_that_is_added(tmp_path: Path, model_file: Path, planned: Any) -> None:
    result = planned(tmp_path, model_file, *["pi4"] * 17)
    assert result["fits"] and result["lines"] and result["stages"] and result["tokens_per_s"] > 0
    assert len(result["stages"]) + len(result["left_out"]) == 18


@pytest.mark.parametrize("planned", [in_node, without_node])
def test_too_many_devices_are_refused_not_dropped(tmp_path: Path, model_file: Path, planned: Any) -> None:
    with pytest.raises(ConfigError, match="at most 64 devices"):
        planned(tmp_path, model_file, *["pi4x16"] * 17)


@pytest.mark.parametrize("planned", [in_node, without_node])
def test_a_model_that_does_not_fit_says_what_is_missing(tmp_path: Path, model_file: Path, planned: Any) -> None:
    result = planned(tmp_path, model_file, memory="50KB")
    assert not result["fits"] and result["missing_bytes"] > 0 and result["lines"]


@pytest.mark.parametrize("planned", [in_node, without_node])
def test_a_plan_counts_keys_and_values_as_they_are_kept(tmp_path: Path, model_file: Path, planned: Any) -> None:
    memory = {
        kv: sum(stage["memory_bytes"] for stage in planned(tmp_path / kv, model_file, context=512, kv=kv)["stages"])
        for kv in ("f16", "q8_0")
    }
    assert memory["q8_0"] < memory["f16"]


def test_the_planned_context_is_a_long_chat() -> None:
    assert default_plan_context(100_000, 0) == 2048
    assert default_plan_context(1024, 0) == 1024
    assert default_plan_context(100_000, 4096) == 4096
