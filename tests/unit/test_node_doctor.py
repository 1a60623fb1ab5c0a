"""What the doctor of a running node sees."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from swarm.net.events import NotLetIn
from swarm.wire.records import Address
from tests.helpers.one_node import one_node


def test_troubles_are_told_once_with_what_to_do(tmp_path: Path) -> None:
    async def story() -> list[Any]:
        async with one_node(tmp_path) as node:
            for _ in range(3):
                node._on_event(NotLetIn(Address("192.0.2.7", 7417), "key", "it is in another swarm"))
            return list(node.doctor())

    findings = asyncio.run(story())
    about = [found for found in findings if "another swarm" in found["text"]]
    assert len(about) == 1 and about[0]["level"] == "bad" and about[0]["advice"]
