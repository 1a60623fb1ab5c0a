"""A second copy in the background: made when nothing else is done, and only where there is room."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from swarm.cluster.shards import Shards
from swarm.node import spreading
from swarm.node.spreading import Spreading
from swarm.parts import Part
from tests.helpers.one_node import one_node
from tests.helpers.tiny import make_tiny


def test_what_falls_to_this_device_is_fetched_and_a_full_disk_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", "llama", "Q8_0")
    asked: list[list[int]] = []

    async def fetch(model: str, chunks: list[int]) -> None:
        asked.append(chunks)

    async def scenario() -> None:
        async with one_node(tmp_path) as node:
            model = await node.add_file(path)
            known_model = node.library.known[model]
            chunks = node.store.model(model)
            assert chunks is not None
            chunks.held[:] = False
            node.store.quota_bytes = 10**9  # however full the disk of this machine is
            monkeypatch.setattr(node.library.fetcher, "fetch", fetch)
            monkeypatch.setattr(spreading, "second_copy", lambda me, devices, cost: [Part(1)])
            monkeypatch.setattr(Shards, "neighbours_parts", lambda self, model: frozenset([Part(0)]))
            spreads = Spreading(node._driver, node.holdings, node.store, node.events, node.peer)
            await spreads.copy(known_model)
            assert asked == [known_model.chunks_of([Part(0), Part(1)])], "and what a neighbour has"
            chunks.held[known_model.chunks_of([Part(0), Part(1)])] = True
            await spreads.copy(known_model)
            assert len(asked) == 1, "all of it is here"
            chunks.held[:] = False
            node.store.quota_bytes = 10
            await spreads.copy(known_model)
            events: list[Any] = [event for _, event, _ in node.events.entries]
            assert "copied" in events and "not_copied" in events and len(asked) == 1

    asyncio.run(scenario())
