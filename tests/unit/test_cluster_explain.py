"""Plans in words, and typical devices."""

from __future__ import annotations

from swarm.cluster.cost import LayerCost, ModelCost
from swarm.cluster.devices import WIFI, WIRED, typical_devices
from swarm.cluster.explain import explain
from swarm.cluster.planner import Demand, plan

GLM4 = ModelCost(
    "GLM-4-9B", (LayerCost(116_000_000, 206_000_000, 1024),) * 40, 350_000_000, 500_000_000, 4096, 620_000_000
)


def lines(*devices: str, context: int = 4096) -> list[str]:
    found = [d for i, text in enumerate(devices) for d in typical_devices(text, 10 * i)]
    return explain(plan(Demand(GLM4, context), found, lambda a, b: WIRED))


def test_a_plan_says_who_holds_what_how_fast_and_what_limits_it() -> None:
    text = "\n".join(lines("pi5:4GiBx2", "pi4:8GiB"))
    for piece in (
        "GLM-4-9B: 40 layers, 5.11 GiB, context 4096",
        "layers 0-11 + embedding: 1.67 GiB, 1.62 GiB to fetch",
        "layers 12-39 + head",
        "predicted: 1.9 tok/s, first token after",
        "with 2 or more chats at once",
        "limited by memory bandwidth",
        "left out: pi4 (added 11): a token would take",
    ):
        assert piece in text


def test_a_plan_that_does_not_fit_says_what_to_add() -> None:
    text = "\n".join(lines("pi4:2GiBx2"))
    assert "needs 1.7 GiB more memory" in text and "add a device with 1.7 GiB of free memory" in text


def test_a_shorter_context_is_offered_where_it_fits() -> None:
    assert any("with a context of" in line for line in lines("pi5:8GiB", context=131072))


def test_wifi_is_slower_than_wire() -> None:
    assert WIFI.hop_s(16384) > 3 * WIRED.hop_s(16384)
