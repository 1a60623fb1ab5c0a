"""Devices that share every layer over a network, each with a slice of all experts and most of it on its own disk.

SWARM_STRIKES=all pytest -s tests/lan/test_experts.py      by hand: how devices are placed depends on how busy they are
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from swarm import load
from swarm.engine.sampling import SamplingParams
from tests.helpers.lan import Lan, why_not
from tests.helpers.mixtures import N_EXPERTS, write_mixture
from tests.helpers.nodes import Heard, NodeProcess, Swarm, cost_of, wait_for
from tests.helpers.tiny_text import VOCAB

WHY_NOT = why_not() if os.environ.get("SWARM_STRIKES") == "all" else "with SWARM_STRIKES=all"
pytestmark = [pytest.mark.lan, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "never")]

CONTEXT, TOKENS, N_DEVICES = 256, 120, 3
PACE = 0.001  # so slow say devices to be that three are worth their exchanges, however busy the machine is
ROOM = 0.7  # of what a third of the model takes
PROMPT, SEED = "The sea is", 5
NO_END = tuple((VOCAB.index(word), -100.0) for word in VOCAB if word.startswith("<|"))  # as long as was asked for
STRIKE_AT = 5  # pieces of text


def body(model: str) -> dict[str, object]:
    bias = {str(token): value for token, value in NO_END}
    sampling = {"temperature": 0.9, "seed": SEED, "logit_bias": bias}
    return {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, **sampling}


def experts_of(node: NodeProcess) -> dict[str, object]:
    found = node.status()["experts"]
    assert isinstance(found, dict), "some are on its disk"
    return found


def share_all_layers(swarm: Swarm) -> None:
    def all_do() -> bool:
        heard = swarm.nodes[0].ask({**body(swarm.model), "max_tokens": 2})
        assert not heard.error, heard.error
        devices = swarm.nodes[0].status()["devices"]
        assert isinstance(devices, list)
        shards = [shard for device in devices for shard in device["shards"]]
        return len(shards) == N_DEVICES and len({(shard["first"], shard["end"]) for shard in shards}) == 1

    wait_for(all_do, "all devices to share the layers")


def test_three_devices_with_experts_on_disk_answer_what_one_does_from_memory_and_one_is_lost(tmp_path: Path) -> None:
    path = write_mixture(tmp_path, "air", "Q8_0")
    cost = cost_of(path)
    memory = cost.embed_bytes + int(ROOM * (cost.weight_bytes - cost.embed_bytes) / N_DEVICES)
    memory += cost.stage_kv_bytes(0, cost.n_layers, CONTEXT)
    with (
        Lan(N_DEVICES, rate="1gbit", delay_ms=0.15) as lan,
        Swarm(
            tmp_path / "swarm",
            [memory] * N_DEVICES,
            model=path,
            context=CONTEXT,
            layout="slices",
            paces=[PACE] * N_DEVICES,
            lan=lan,
        ) as swarm,
    ):
        entry, *others = swarm.nodes
        for node in others:
            node.post("/swarm/models", {"path": str(path)})  # whoever is lost, all of the model is there
        share_all_layers(swarm)
        heard = entry.ask(body(swarm.model))
        experts = [experts_of(node) for node in swarm.nodes]

        def kill(so_far: Heard) -> None:
            if len(so_far.at) == STRIKE_AT:
                others[-1].signal(signal.SIGKILL)

        after = entry.ask(body(swarm.model), on_piece=kill)
    params = SamplingParams(temperature=0.9, seed=SEED, logit_bias=NO_END)
    expected = load(path, threads=1, context=CONTEXT).generate(PROMPT, max_tokens=TOKENS, params=params)
    assert expected.text and (heard.error, after.error) == ("", "")
    assert heard.tokens == expected.tokens == after.tokens
    assert all(one["n_all"] == 2 * N_EXPERTS for one in experts), "each has a slice of all of them"
    assert all(0 < one["n_resident"] < one["n_all"] for one in experts)  # type: ignore[operator]
    assert all(one["use"]["hits"] and one["use"]["misses"] for one in experts)  # type: ignore[index]
    print([one["use"] for one in experts], after.notes)
