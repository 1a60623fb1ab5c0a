"""What a node says of itself, and of the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from swarm.net.events import PeerUp, Received
from swarm.node.node import Node
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Message, StatusReply, StatusRequest
from swarm.wire.records import Address, Version
from tests.helpers.one_node import one_node

PEER = PeerId("a" * 32)


def with_peer(node: Node) -> list[Message]:
    """A peer is there; return what is sent to it from now on."""
    node._on_event(PeerUp(PEER, "attic", BootId("b" * 32), Version(1, 0), Address("192.0.2.1", 7417)))
    sent: list[Message] = []
    node._outbox.send = lambda peer, message, frame=None: sent.append(message) is None  # type: ignore[method-assign]
    return sent


def test_a_peer_that_asks_is_told_of_this_device(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_node(tmp_path) as node:
            sent = with_peer(node)
            node._on_event(Received(PEER, StatusRequest(5)))
            (reply,) = [message for message in sent if isinstance(message, StatusReply)]
            assert (reply.request, reply.name, reply.state) == (5, "one", node.status.state())
            assert reply.capabilities is not None and reply.capabilities.memory_bytes == 1_000_000
            assert [link.peer for link in reply.links] == [PEER]

    asyncio.run(story())


def test_the_whole_swarm_is_shown_also_a_device_that_says_nothing(tmp_path: Path) -> None:
    async def story() -> tuple[Any, Any]:
        async with one_node(tmp_path) as node:
            sent = with_peer(node)
            asked = asyncio.create_task(node.status.collect(10.0))
            while not (requests := [message for message in sent if isinstance(message, StatusRequest)]):
                await asyncio.sleep(0)
            (request,) = requests
            node._on_event(Received(PEER, node.status.reply(request.request)))
            answered = await asked
            return answered, await node.status.collect(0.0)

    answered, silent = asyncio.run(story())
    ours, theirs = answered["devices"]
    assert (ours["health"], ours["name"], theirs["health"], theirs["name"]) == ("here", "one", "alive", "attic")
    assert theirs["capabilities"] == ours["capabilities"] and theirs["models"] == []
    assert {"software", "uptime_s", "chats", "events", "computed", "dropped", "discovery"} <= answered.keys()
    assert [event["event"] for event in answered["events"]] == ["joined"]
    _, lost = silent["devices"]
    assert (lost["name"], lost["capabilities"], lost["shards"]) == ("attic", None, [])
