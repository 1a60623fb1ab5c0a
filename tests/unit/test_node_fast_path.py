"""The short way of an answer's messages."""

from __future__ import annotations

import asyncio

from swarm.net.events import PeerDown, Received
from swarm.node.fast_path import FastPath
from swarm.wire.ids import PeerId, SessionId
from swarm.wire.messages import Goodbye, Token


def test_messages_of_an_answer_never_overtake_what_waits_for_the_loop() -> None:
    token = Received(PeerId("a"), Token(SessionId("b"), 1, 2, 3))
    other = Received(PeerId("a"), Goodbye("x"))
    order: list[str] = []

    def quick(event: Received) -> bool:
        order.append("quick")
        return not busy

    async def play() -> None:
        inbox = FastPath(asyncio.get_running_loop(), lambda event: order.append(type(event).__name__), quick).inbox()
        inbox.deliver(token)  # nothing waits: at once
        inbox.deliver(other)
        inbox.deliver(token)  # behind the other one
        assert order == ["quick"]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["quick", "Received", "Received"]
        inbox.deliver(token)
        inbox.deliver(PeerDown(PeerId("a"), "a", "gone"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order[3:] == ["quick", "PeerDown"]

    busy = False
    asyncio.run(play())
    busy = True  # the core is: then it goes by the loop, too
    order.clear()

    async def play_busy() -> None:
        inbox = FastPath(asyncio.get_running_loop(), lambda event: order.append(type(event).__name__), quick).inbox()
        inbox.deliver(token)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(play_busy())
    assert order == ["quick", "Received"]
