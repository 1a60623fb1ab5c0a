"""A device that gets hot loses its share of the work within a minute and gets it back; the answer goes on."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from tests.helpers import nodes as helpers
from tests.helpers.fake_machine import FakeMachine
from tests.helpers.nodes import NodeProcess, Swarm, wait_for

QUESTION = [{"role": "user", "content": "Tell me a very long story about a robot and the sea."}]
CONTEXT = 8192
MAX_TOKENS = 4000  # longer than the heat takes to be noticed, on a fast machine too
WITHIN_S = 60.0
ENDS = (0, 2)  # tokens that would end the story too soon
BIAS: dict[str, object] = {"logit_bias": {str(token): -100 for token in ENDS}}


def body(model: str, max_tokens: int) -> dict[str, object]:
    return {"model": model, "messages": QUESTION, "max_tokens": max_tokens, "temperature": 0.9, "seed": 5} | BIAS


def holders(node: NodeProcess) -> set[str]:
    """The devices that hold layers for answers."""
    devices = node.status()["devices"]
    assert isinstance(devices, list)
    return {device["name"] for device in devices if device["shards"]}


def seconds_until(node: NodeProcess, name: str, *, ask: str = "") -> float:
    """How long it takes until the work is on that device; with `ask` short questions are asked meanwhile."""
    began = time.monotonic()

    def is_there() -> bool:
        if ask:
            node.ask(body(ask, 4))
        return holders(node) == {name}

    wait_for(is_there, f"{name} to have the work", WITHIN_S)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_heat_takes_the_share_away_and_gives_it_back(
    tmp_path: Path, real_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = [FakeMachine(tmp_path / f"machine{i}") for i in range(3)]
    usual = helpers.SPEED
    with Swarm(tmp_path / "swarm", [2_000_000], model=real_model, context=CONTEXT) as house:
        for machine, rate in zip(machines[1:], (8e9, 4e9), strict=True):
            machine.heat(55.0)
            monkeypatch.setenv("SWARM_MACHINE_ROOT", str(machine.root))
            monkeypatch.setattr(helpers, "SPEED", replace(usual, read_bytes_per_s=rate))
            house.add(400_000_000)
        house.wait_mesh()
        entry = house.nodes[0]
        entry.ask(body(house.model, 4))
        assert holders(entry) == {"node1"}, "the faster one"
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(entry.ask, body(house.model, MAX_TOKENS))
            machines[1].heat(96.0, 0.3)
            lost = seconds_until(entry, "node2")
            assert not answer.done(), "the answer was over before the heat was noticed"
            heard = answer.result()
        assert (heard.error, len(heard.tokens)) == ("", MAX_TOKENS)
        rests = next(d["capabilities"]["rests"] for d in entry.status()["devices"] if d["name"] == "node1")  # type: ignore[attr-defined]
        assert rests == "it is too hot (96 °C)"
        machines[1].heat(55.0)
        back = seconds_until(entry, "node1", ask=house.model)
    print(f"lost its share after {lost:.0f} s, had it back after {back:.0f} s; longest gap {heard.longest_gap_s:.2f} s")
    model = swarm.load(real_model, threads=1, context=CONTEXT)
    params = SamplingParams(temperature=0.9, seed=5, logit_bias=tuple((token, -100.0) for token in ENDS))
    cool = model.chat(QUESTION, max_tokens=MAX_TOKENS, params=params)
    assert cool.text and cool.tokens == heard.tokens, "the same answer as of one device that stayed cool"
