"""Files in the directory of models are offered by themselves."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from swarm.node import offering
from swarm.node.event_log import EventLog
from swarm.node.offering import Offering
from tests.helpers.one_node import one_node
from tests.helpers.tiny import make_tiny


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_lies_there_is_offered_once_and_what_is_no_model_is_noted(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    model = make_tiny(folder / "tiny.gguf", "llama", "Q8_0")
    (folder / "page.gguf").write_bytes(b"<html>")
    for path in folder.iterdir():
        age(path, 60)

    async def scenario() -> None:
        async with one_node(tmp_path, models_dir=str(folder)) as node:
            while not node.files()["files"]:
                await asyncio.sleep(0)
            assert list(node.files()["files"].values()) == [str(model)]  # type: ignore[attr-defined]
            while not any(event == "not_offered" for _, event, _ in node.events.entries):
                await asyncio.sleep(0)

    asyncio.run(scenario())


class FakeHoldings:
    def __init__(self) -> None:
        self.offered: list[str] = []

    async def add_file(self, path: Path, threads: int) -> str:
        self.offered.append(path.name)
        return "id"


def test_a_file_that_is_still_coming_waits_and_one_that_changed_is_offered_again(tmp_path: Path) -> None:
    holdings = FakeHoldings()
    looks = Offering(holdings, EventLog(), tmp_path)  # type: ignore[arg-type]
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    asyncio.run(looks.look())
    assert holdings.offered == []
    age(tmp_path / "x.gguf", offering.OFFER_QUIET_S + 1)
    asyncio.run(looks.look())
    asyncio.run(looks.look())
    assert holdings.offered == ["x.gguf"]
    (tmp_path / "x.gguf").write_bytes(b"GGUF and more")
    age(tmp_path / "x.gguf", 60)
    asyncio.run(looks.look())
    assert holdings.offered == ["x.gguf", "x.gguf"]
