"""A model that a program asked for: brought by all devices, or by this one; and what is told meanwhile."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm import config
from swarm.config import HubSettings
from swarm.errors import DownloadError
from swarm.node import bringing
from swarm.node.bringing import PullStep, bring
from tests.helpers.api_client import returns

HUB = HubSettings()


async def run_io(function: Any, *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


def brought(start: dict[str, object], *states: dict[str, object]) -> tuple[list[PullStep], Any]:
    """What is told of a pull, by a house that says this; and the files that were offered."""
    left = list(states)
    house: Any = SimpleNamespace(start=returns(start), progress=lambda pull: left.pop(0))
    holdings: Any = SimpleNamespace(add_file=returns(None))

    async def story() -> list[PullStep]:
        steps = bring(
            "u/m",
            HUB,
            10**9,
            house=house,
            holdings=holdings,
            background=SimpleNamespace(run_io=run_io),  # type: ignore[arg-type]
            settings=config.load({}),
        )
        async with aclosing(steps):
            return [step async for step in steps]

    return asyncio.run(asyncio.wait_for(story(), 20)), holdings.add_file.calls


def state(phase: str, done: int = 0, *, waits: str = "", error: str = "") -> dict[str, object]:
    return {"phase": phase, "done": done, "total": 10, "waits": waits, "error": error, "model": ""}


def test_what_the_swarm_has_needs_no_step() -> None:
    assert brought({"model": "ab"}) == ([], [])


def test_what_all_devices_bring_is_told_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bringing, "LOOK_S", 0.0)
    states = state("Downloading", 3), state("Downloading", 4, waits="the hub is busy"), state("done", 10)
    steps, offered = brought({"pull": "ab"}, *states)
    assert steps == [PullStep("Downloading", 3, 10), PullStep("the hub is busy", 4, 10)] and offered == []
    with pytest.raises(DownloadError, match="is away"):
        brought({"pull": "ab"}, state("Downloading", error="the hub is away"))


def test_what_this_device_brings_alone_is_offered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def here(text: str, hub: HubSettings, room: object, folder: Path, progress: Any) -> Path:
        progress("Downloading", 5, 10)
        return tmp_path / text.rpartition("/")[2]

    monkeypatch.setattr(bringing, "_here", here)
    steps, offered = brought({"alone": True})
    assert steps == [PullStep("Downloading", 5, 10)] and offered == [(tmp_path / "m",)]


def test_who_goes_away_stops_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone, stopped = threading.Event(), threading.Event()

    def here(text: str, hub: HubSettings, room: object, folder: Path, progress: Any) -> Path:
        progress("Downloading", 1, 10)
        gone.wait(20)
        try:
            while True:
                progress("Downloading", 2, 10)
        except DownloadError:
            stopped.set()
            raise

    monkeypatch.setattr(bringing, "_here", here)
    house: Any = SimpleNamespace(start=returns({"alone": True}))
    holdings: Any = SimpleNamespace(add_file=returns(None))
    background: Any = SimpleNamespace(run_io=run_io)

    async def story() -> None:
        steps = bring("u/m", HUB, 1, house=house, holdings=holdings, background=background, settings=config.load({}))
        await anext(steps)
        asyncio.get_running_loop().call_later(0.05, gone.set)
        await steps.aclose()

    asyncio.run(asyncio.wait_for(story(), 20))
    assert stopped.is_set() and holdings.add_file.calls == []
