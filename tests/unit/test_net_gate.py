"""Events reach the loop in order and bounded."""

from __future__ import annotations

import asyncio
import threading

from swarm import limits
from swarm.net.events import Event, PeerDown, Received
from swarm.net.gate import EVENTS_PER_TURN, LoopGate
from swarm.net.probe import FRAME, GIVE_UP_S, N_FRAMES, BandwidthProbe
from swarm.wire.ids import PeerId
from swarm.wire.messages import Goodbye, LinkProbed

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

        gate = LoopGate(asyncio.get_running_loop(), handle).gate()

        def deliver() -> None:
            for i in range(10 * EVENTS_PER_TURN):
                gate.deliver(down(i))

        thread = threading.Thread(target=deliver)
        thread.start()
        await asyncio.wait_for(done.wait(), 10)
        thread.join()
        return names

    assert asyncio.run(story()) == [str(i) for i in range(10 * EVENTS_PER_TURN)]


def test_room_ends_with_too_many_events_and_comes_back() -> None:
    async def story() -> None:
        gate = LoopGate(asyncio.get_running_loop(), lambda _: None)
        for i in range(limits.MAX_INBOUND_EVENTS):
            assert gate.has_room()
            gate.deliver(down(i))
        assert not gate.has_room()
        while not gate.has_room():
            await asyncio.sleep(0)

    asyncio.run(story())


def test_room_ends_with_too_many_bytes() -> None:
    async def story() -> None:
        gate = LoopGate(asyncio.get_running_loop(), lambda _: None)
        frame = memoryview(bytes(limits.MAX_FAST_FRAME_BYTES))
        n = 0
        while gate.has_room():
            gate.deliver(Received(PEER, Goodbye(""), frame))
            n += 1
        assert n == limits.MAX_INBOUND_BYTES // limits.MAX_FAST_FRAME_BYTES
        while not gate.has_room():
            await asyncio.sleep(0)

    asyncio.run(story())


def test_events_after_the_end_of_the_loop_are_dropped() -> None:
    loop = asyncio.new_event_loop()
    gate = LoopGate(loop, lambda _: None)
    loop.close()
    gate.deliver(down(1))


def test_bandwidth_is_what_came_between_the_first_answer_and_the_last() -> None:
    probe = BandwidthProbe(PEER, 0.0, first_sequence=40)
    assert [message.sequence for message, _ in probe.frames()] == list(range(40, 40 + N_FRAMES))
    others = [LinkProbed(39, len(FRAME)), LinkProbed(40 + N_FRAMES, len(FRAME)), LinkProbed(40, 1), Goodbye("")]
    assert all(probe.take(Received(PEER, message), 1.0) is None for message in others)
    assert probe.take(Received(PeerId("cd" * 16), LinkProbed(40, len(FRAME))), 1.0) is None
    rates = [probe.take(Received(PEER, LinkProbed(40 + i, len(FRAME))), 5.0 + 0.01 * i) for i in range(N_FRAMES)]
    assert rates[:-1] == [None] * (N_FRAMES - 1)
    assert rates[-1] is not None and abs(rates[-1] - len(FRAME) / 0.01) < 1e-3 * len(FRAME) / 0.01
    assert not probe.is_over(GIVE_UP_S) and probe.is_over(GIVE_UP_S + 1)
