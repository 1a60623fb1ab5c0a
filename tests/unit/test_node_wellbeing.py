"""What a device can give just now reaches the others."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from swarm.node import wellbeing
from swarm.node.condition import LOOK_S, Condition, SensorReading
from swarm.wire.records import Capabilities
from tests.helpers.one_node import one_node

MEASURED = Capabilities("aarch64", "dotprod", 4, 10**9, 10**9, 10e9, 48e9, 9e7, 20e-6, 300e-6)


def test_heat_slows_what_depends_on_the_clock_and_lends_the_same_memory() -> None:
    slow = wellbeing.with_condition(MEASURED, Condition(0.5, "", "slowed down by heat to 50%"))
    assert (slow.read_bytes_per_s, slow.prefill_ops_per_s) == (5e9, 24e9)
    assert (slow.layer_s, slow.step_s) == (40e-6, 600e-6)
    assert (slow.memory_bytes, slow.disk_bytes_per_s) == (10**9, 9e7)
    assert (slow.rests, slow.condition) == ("", "slowed down by heat to 50%")
    assert wellbeing.with_condition(MEASURED, Condition()) == MEASURED


def test_the_core_and_the_status_hear_of_heat_and_of_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wellbeing.Wellbeing, "start", lambda self: None)  # this machine's own sensors

    async def story() -> None:
        async with one_node(tmp_path) as node:
            looks_after = node._wellbeing
            before = node._driver.read(lambda core: core.capabilities)
            now = node._driver.now + 1000
            for i in range(12):
                looks_after.take(SensorReading(temperature_c=95.0, clock_share=0.3), now + i * LOOK_S)
            hot = node._driver.read(lambda core: core.capabilities)
            assert hot.rests == "it is too hot (95 °C)" and hot.read_bytes_per_s < 0.5 * before.read_bytes_per_s
            view = await node.status.collect()
            assert "too hot" in str(view["devices"])
            assert view["devices"][0]["temperature_c"] == 95.0
            looks_after.measured(before)
            assert node._driver.read(lambda core: core.capabilities.rests), "measured anew, it is as hot as before"
            for i in range(12, 30):
                looks_after.take(SensorReading(temperature_c=50.0, clock_share=1.0), now + i * LOOK_S)
            assert node._driver.read(lambda core: core.capabilities) == before
            told = [fields["why"] for _, event, fields in node.events.entries if event == "condition"]
            assert told[-1] == "all is well again"

    asyncio.run(story())


@pytest.mark.parametrize(("says", "in_use"), [("IdleHint=no\n", True), ("IdleHint=yes\n", False), ("", False)])
def test_the_login_manager_says_whether_somebody_sits_there(
    monkeypatch: pytest.MonkeyPatch, says: str, in_use: bool
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, says, ""))
    assert wellbeing.is_in_use() is in_use


def test_without_a_login_manager_nobody_sits_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert wellbeing.is_in_use() is False
