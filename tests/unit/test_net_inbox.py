"""Events reach the loop in order and bounded."""

from __future__ import annotations

import asyncio
import threading
from typing import cast

from swarm import limits
from swarm.net.events import Event, PeerDown, Received
from swarm.net.inbox import EVENTS_PER_TURN, LoopInbox
from swarm.wire.ids import PeerId
from swarm.wire.messages import Goodbye

PEER = PeerId("ab" * 16)


def down(number: int) -> PeerDown:
    return PeerDown(PEER, str(number), "")


def test_events_of_another_thread_come_in_order() -> None:
    async def story() -> list[str]:
        names: list[str] = []
        done = asyncio.Event()

        def handle(event: Event) -> None:
            assert isinstance(event, PeerDown)
            names.append(event.name)
            if len(names) == 10 * EVENTS_PER_TURN:
                done.set()

        inbox = LoopInbox(asyncio.get_running_loop(), handle).inbox()

        def deliver() -> None:
            for i in range(10 * EVENTS_PER_TURN):
                inbox.deliver(down(i))

        thread = threading.Thread(target=deliver)
        thread.start()
        await asyncio.wait_for(done.wait(), 10)
        thread.join()
        return names

    assert asyncio.run(story()) == [str(i) for i in range(10 * EVENTS_PER_TURN)]


def test_room_ends_with_too_many_events_and_comes_back() -> None:
    async def story() -> None:
        inbox = LoopInbox(asyncio.get_running_loop(), lambda _: None)
        for i in range(limits.MAX_INBOUND_EVENTS):
            assert inbox.has_room()
            inbox.deliver(down(i))
        assert not inbox.has_room()
        while not inbox.has_room():
            await asyncio.sleep(0)

    asyncio.run(story())


def test_room_ends_with_too_many_bytes() -> None:
    async def story() -> None:
        inbox = LoopInbox(asyncio.get_running_loop(), lambda _: None)
        frame = memoryview(bytes(limits.MAX_FAST_FRAME_BYTES))
        n = 0
        while inbox.has_room():
            inbox.deliver(Received(PEER, Goodbye(""), frame))
            n += 1
        assert n == limits.MAX_INBOUND_BYTES // limits.MAX_FAST_FRAME_BYTES
        while not inbox.has_room():
            await asyncio.sleep(0)

    asyncio.run(story())


def test_bytes_are_counted_right_when_both_threads_do_it_at_once() -> None:
    """Else room ends for ever. A frame of ours lets the loop run in the middle of counting, as the system may."""

    async def story() -> None:
        inbox = LoopInbox(asyncio.get_running_loop(), lambda _: None)

        class Frame:
            lets_run = True

            @property
            def nbytes(self) -> int:
                if self.lets_run:
                    self.lets_run = False
                    inbox._drain()
                return limits.MAX_FAST_FRAME_BYTES

        for _ in range(2 * limits.MAX_INBOUND_BYTES // limits.MAX_FAST_FRAME_BYTES):
            inbox.deliver(Received(PEER, Goodbye(""), cast(memoryview, Frame())))
        while inbox._events:
            await asyncio.sleep(0)
        assert inbox.has_room()

    asyncio.run(story())


def test_an_event_that_cannot_be_handled_does_not_hold_up_those_behind_it() -> None:
    async def story() -> list[str]:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        names: list[str] = []
        done = asyncio.Event()

        def handle(event: Event) -> None:
            assert isinstance(event, PeerDown)
            if event.name == "0":
                raise RuntimeError("a bug")
            names.append(event.name)
            if event.name == "2":
                done.set()

        inbox = LoopInbox(asyncio.get_running_loop(), handle)
        for i in range(3):
            inbox.deliver(down(i))
        await asyncio.wait_for(done.wait(), 10)
        return names

    assert asyncio.run(story()) == ["1", "2"]


def test_events_after_the_end_of_the_loop_are_dropped() -> None:
    loop = asyncio.new_event_loop()
    inbox = LoopInbox(loop, lambda _: None)
    loop.close()
    inbox.deliver(down(1))
