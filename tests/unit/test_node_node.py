"""A whole node in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from swarm.cluster.memory import KvEntry
from swarm.net import events
from swarm.node import node as nodes
from swarm.node.compute import Done, StepOutput
from swarm.node.node import Node
from swarm.wire.ids import BootId, ModelId, PeerId, SessionId
from swarm.wire.records import Address, Version
from tests.helpers.one_node import one_node

PEER = PeerId("a" * 32)


def test_a_node_whose_connections_ended_by_a_bug_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "RESTART_S", 0.0)

    def tick() -> None:
        raise RuntimeError("oops")

    async def story() -> str:
        async with one_node(tmp_path) as node:
            assert not node.starts_anew
            node.transport._reactor._tick = tick  # type: ignore[method-assign]
            await asyncio.wait_for(node.stopping.wait(), 10)
        return node.starts_anew

    assert asyncio.run(story()) == "a bug ended its connections (RuntimeError: oops)"


def test_a_node_tells_what_happens_and_who_is_there(tmp_path: Path) -> None:
    async def story() -> Node:
        async with one_node(tmp_path) as node:
            node._on_event(events.PeerUp(PEER, "attic", BootId("b" * 32), Version(1, 0), Address("192.0.2.1", 7417)))
            assert node.n_others == 1
            node._on_event(events.Garbage(PEER, "it broke a rule"))
            node._on_event(events.NotLetIn(Address("192.0.2.2", 7417), "key", "another key"))
            node._on_event(events.CloneSeen(PEER, "two of them"))
            node._on_event(events.PeerDown(PEER, "attic", "it said goodbye", certain=True))
            assert node.n_others == 0
        return node

    log = asyncio.run(story()).events
    told = [event for _, event, _ in log.entries]
    assert told[:7] == ["joined", "garbage", "left_out", "not_let_in", "clone", "cloned", "left"]
    assert [type(trouble).__name__ for trouble in log.troubles] == ["NotLetIn", "CloneSeen"]


def test_a_bug_in_a_fast_message_or_a_step_is_noted_and_ends_no_thread(tmp_path: Path) -> None:
    async def story() -> list[str]:
        async with one_node(tmp_path) as node:
            bad: Any = object()
            assert node._on_fast(bad), "taken: nothing else could do better"
            node._on_done(Done(99, (StepOutput(error="no memory"),)))
            return [event for _, event, _ in node.events.entries]

    assert asyncio.run(story()) == ["bug", "step_failed"]


def test_chunks_give_way_to_an_answer_but_not_those_that_one_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float | None] = []

    async def scenario() -> None:
        async with one_node(tmp_path) as node:
            monkeypatch.setattr(node._provider, "set_rate", rates.append)
            entry = KvEntry((node.peer, ModelId("1" * 64)), 0, 1, 1, True, 0.0)
            node._driver.read(lambda core: core.ledger.kv.update({SessionId("2" * 32): entry}))
            for busy, loading in ((0.0, {}), (0.5, {}), (0.5, {1: set()}), (0.5, {})):
                node._meters.busy = busy
                node._driver.read(lambda core, loading=loading: setattr(core.shards, "loading", loading))
                node._give_way_to_answers()
            node._driver.read(lambda core: core.ledger.kv.clear())

    asyncio.run(scenario())
    assert [rate is not None for rate in rates[-4:]] == [False, True, False, True]
