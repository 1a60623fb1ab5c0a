"""Who asks whom for a rehearsal, and what becomes of what it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from swarm import limits
from swarm.cluster.cost import Exchange
from swarm.errors import StageLost
from swarm.net.slices import StageListener
from swarm.node import rehearsals
from swarm.node.background import Background
from swarm.node.rehearsals import Rehearsals
from swarm.node.stages import Stages
from swarm.wire.ids import PeerId
from swarm.wire.messages import Rehearsal

LOW, HIGH = PeerId("1" * 32), PeerId("2" * 32)


class FakeCore:
    """What a node knows of its one peer."""

    def __init__(self) -> None:
        self.there: list[PeerId] = []
        self.serving = self.both = False
        self.seen: list[tuple[PeerId, Exchange]] = []
        self.capabilities = self
        self.ledger = self
        self.kv: dict[str, FakeCore] = {}

    @property
    def slices(self) -> bool:
        return self.both

    @property
    def running(self) -> bool:
        return self.serving

    def shares_layers(self, peer: PeerId) -> bool:
        return self.both

    def others(self) -> list[PeerId]:
        return self.there

    def rehearsed(self, peer: PeerId, seen: Exchange, now: float) -> list[object]:
        self.seen.append((peer, seen))
        return []


class FakeDriver:
    def __init__(self) -> None:
        self.core = FakeCore()
        self.core.kv["x"] = self.core

    def read(self, look):  # type: ignore[no-untyped-def]
        return look(self.core)

    def act(self, decide):  # type: ignore[no-untyped-def]
        decide(self.core, 0.0)


class End:
    """One of two nodes; what it sends comes to the other one at once."""

    def __init__(self, me: PeerId, other: PeerId) -> None:
        self.driver = FakeDriver()
        self.core = self.driver.core
        self.core.there = [other]
        self.core.both = True
        self.stages = Stages(StageListener("127.0.0.1", 0), lambda peer: (peer[:4], "127.0.0.1"))
        self.sent: list[Rehearsal] = []
        self.to: End | None = None
        self.me = me
        self.rehearsals = Rehearsals(
            self.driver,  # type: ignore[arg-type]
            Background(lambda error: None),
            self.stages,
            outbox=self,  # type: ignore[arg-type]
            me=me,
        )

    def send(self, peer: PeerId, message: Rehearsal) -> None:
        self.sent.append(message)
        if self.to is not None:
            self.to.rehearsals.asked(self.me, message)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REHEARSE_AFTER_S", 0.0)
    monkeypatch.setattr(limits, "REHEARSAL_S", 1.0)
    monkeypatch.setattr(rehearsals, "SOON_S", 0.0)


@pytest.fixture
def opened() -> Iterator[list[End]]:
    ends: list[End] = []
    yield ends
    for end in ends:
        end.stages.stop()


async def both(opened: list[End]) -> tuple[End, End]:
    low, high = End(LOW, HIGH), End(HIGH, LOW)
    low.to, high.to = high, low
    opened += [low, high]
    return low, high


async def turns(n: int = 100) -> None:
    """Of the loop: whatever is to happen at once has happened."""
    for _ in range(n):
        await asyncio.sleep(0)


async def until(condition, seconds: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)


def test_of_two_the_lower_one_asks_and_both_see_what_it_costs(opened: list[End]) -> None:
    async def run() -> None:
        low, high = await both(opened)
        for end, other in ((low, HIGH), (high, LOW)):
            end.rehearsals.peer_up(other)
        await until(lambda: low.core.seen and high.core.seen)
        assert len(low.sent) == 1 and not high.sent
        ((with_whom, seen),) = low.core.seen
        assert with_whom == HIGH and seen.wait_s > 0 and seen.bytes_per_s > 0
        await end_all(low, high)

    asyncio.run(run())


def test_nobody_is_asked_while_an_answer_passes_or_who_cannot(opened: list[End]) -> None:
    async def run() -> None:
        low, high = await both(opened)
        low.core.both = False
        low.rehearsals.peer_up(HIGH)
        await turns()
        low.core.both, low.core.serving = True, True
        await turns()
        assert not low.sent
        low.core.serving, high.core.serving = False, True
        await until(lambda: low.sent)
        assert not high.core.seen, "the other one is busy, and says nothing"
        high.core.serving = False
        await until(lambda: low.core.seen and high.core.seen)
        await end_all(low, high)

    asyncio.run(run())


def test_who_has_the_lower_id_answers_nobody(opened: list[End]) -> None:
    async def run() -> None:
        low, high = await both(opened)
        low.rehearsals.asked(HIGH, Rehearsal(high.stages.port, bytes(32)))
        await turns()
        assert not low.rehearsals._one.locked() and not low.core.seen
        await end_all(low, high)

    asyncio.run(run())


def test_a_peer_that_never_comes_to_it_costs_only_time(opened: list[End]) -> None:
    async def run() -> None:
        low, high = await both(opened)
        low.to = None
        low.rehearsals.peer_up(HIGH)
        await until(lambda: len(low.sent) > 1)
        assert not low.core.seen
        low.core.there = []
        await until(lambda: HIGH not in low.rehearsals._asking)
        await end_all(low, high)

    asyncio.run(run())


def test_a_secret_that_is_another_meets_nobody(opened: list[End], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REHEARSAL_S", 0.3)

    async def run() -> None:
        low, high = await both(opened)
        ask = asyncio.to_thread(low.stages.rehearse, LOW, bytes(32), 0, HIGH, 0)
        answer = asyncio.to_thread(high.stages.rehearse, LOW, bytes([1]) * 32, 1, LOW, low.stages.port)
        for failed in await asyncio.gather(ask, answer, return_exceptions=True):
            assert isinstance(failed, StageLost)
        await end_all(low, high)

    asyncio.run(run())


async def end_all(*ends: End) -> None:
    for end in ends:
        await end.rehearsals._background.end_tasks()
        end.rehearsals._background.close()
