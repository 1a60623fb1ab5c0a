"""`swarm bench` of what a swarm runs; tests/swarm/test_models_of_a_swarm.py has real devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swarm import config
from swarm.cli import bench_swarm
from swarm.cli.local import ModelOfSwarm
from swarm.errors import ConfigError

SHARD = {"model": "a" * 64, "first": 0, "end": 4}
RESULT = bench_swarm.SwarmBenchResult("glm", ["pi", "attic"], 512, 64, 3, 100.0, 9.5, 5.12)


def test_the_devices_are_told_in_the_order_of_the_layers() -> None:
    status: dict[str, Any] = {
        "devices": [
            {"name": "attic", "shards": [{**SHARD, "first": 4, "end": 8}]},
            {"name": "pi", "shards": [SHARD, {**SHARD, "model": "b" * 64}]},
            {"name": "other", "shards": [{**SHARD, "model": "b" * 64}]},
            {"name": "idle", "shards": []},
        ]
    }
    assert bench_swarm.holders(status, "a" * 64) == ["pi", "attic"]


def test_a_person_reads_where_and_how_fast() -> None:
    assert bench_swarm.lines(RESULT) == [
        "glm in the swarm, on pi, attic",
        "  prefill     100.0 tok/s   512 tokens in 5.12 s",
        "  decode        9.5 tok/s   64 tokens",
    ]


def test_more_tokens_than_the_context_are_refused_before_anything_is_asked(own_home: Path) -> None:
    nobody: Any = None
    model = ModelOfSwarm("a" * 64, "glm", 512, None)
    with pytest.raises(ConfigError, match=r"512 \+ 64 tokens are more than the model's context of 512 here"):
        bench_swarm.measure(nobody, model, config.load(), (512, 64, 1))
