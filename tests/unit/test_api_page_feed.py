"""The state of the swarm for those who look: collected once for all of them, and never for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from swarm import limits
from swarm.api.page import feed as feed_module
from swarm.api.page.feed import StateFeed, as_shown

PATIENCE_S = 10.0


class Played:
    """A node that the test plays; the state says how often it was looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.news = 0
        self.is_ending = False
        self.bugs: list[BaseException] = []
        self.fails = False
        self.changes = True
        self.feed = StateFeed(self.look, lambda: self.news, is_ending=lambda: self.is_ending, on_bug=self.bugs.append)

    async def look(self) -> dict[str, object]:
        self.looks += 1
        if self.fails:
            raise ValueError("a bug")
        return {"name": f"look {self.looks if self.changes else 0}", "devices": []}


def played(act: Callable[[Played], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(act(Played()), PATIENCE_S)

    asyncio.run(main())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "NEWS_S", 0.001)
    monkeypatch.setattr(feed_module, "LOOK_S", 0.005)


def state_of(event: bytes) -> dict[str, Any]:
    head, data = event.decode().split("\n", 1)
    assert head == "event: state" and data.endswith("\n\n")
    state = json.loads(data.removeprefix("data: "))
    assert isinstance(state, dict)
    return state


async def states(reader: AsyncIterator[bytes], n: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async for event in reader:
        if event.startswith(b"event: state"):
            found.append(state_of(event))
        if len(found) == n:
            break
    return found


def test_nobody_looks_while_nobody_reads() -> None:
    async def act(node: Played) -> None:
        assert node.looks == 0
        async with contextlib.aclosing(node.feed.read()) as reader:  # type: ignore[type-var]
            assert len(await states(reader, 2)) == 2
        looks = node.looks
        for _ in range(100):
            await asyncio.sleep(0)
        assert node.looks == looks
        async with contextlib.aclosing(node.feed.read()) as reader:  # type: ignore[type-var]
            assert (await states(reader, 1))[0]["name"] == f"look {looks + 1}"

    played(act)


def test_all_readers_share_one_look() -> None:
    async def act(node: Played) -> None:
        readers = [node.feed.read() for _ in range(5)]
        first = await asyncio.gather(*(states(reader, 1) for reader in readers))
        assert first == [first[0]] * 5 and node.looks == 1
        for reader in readers:
            await reader.aclose()  # type: ignore[attr-defined]

    played(act)


def test_what_has_not_changed_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "KEEP_ALIVE_S", 0.05)

    async def act(node: Played) -> None:
        node.changes = False
        async with contextlib.aclosing(node.feed.read()) as reader:  # type: ignore[type-var]
            events = [await anext(reader) for _ in range(3)]
        assert state_of(events[0])["name"] == "look 0"
        assert events[1:] == [b": still here\n\n"] * 2 and node.looks > 2

    played(act)


def test_news_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "LOOK_S", 1000.0)

    async def act(node: Played) -> None:
        async with contextlib.aclosing(node.feed.read()) as reader:  # type: ignore[type-var]
            await states(reader, 1)
            node.news += 1
            assert (await states(reader, 1))[0]["name"] == "look 2"

    played(act)


def test_a_bug_in_one_look_is_told_and_does_not_end_the_looking() -> None:
    async def act(node: Played) -> None:
        node.fails = True
        async with contextlib.aclosing(node.feed.read()) as reader:  # type: ignore[type-var]
            first = asyncio.ensure_future(states(reader, 1))
            while not node.bugs:
                await asyncio.sleep(0)
            node.fails = False
            assert len(await first) == 1

    played(act)


def test_readers_are_sent_away_when_the_node_ends() -> None:
    async def act(node: Played) -> None:
        reader = node.feed.read()
        await states(reader, 1)
        node.is_ending = True
        assert len([event async for event in reader]) <= 1  # what it had not read yet

    played(act)


def test_readers_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PAGE_READERS", 1)

    async def act(node: Played) -> None:
        reader = node.feed.read()
        assert not node.feed.is_full
        await states(reader, 1)
        assert node.feed.is_full
        await reader.aclose()  # type: ignore[attr-defined]
        assert not node.feed.is_full

    played(act)


def test_a_device_that_answers_late_keeps_what_it_said() -> None:
    told = {"peer": "a", "health": "alive", "capabilities": {"threads": 4}, "shards": [{"first": 0}], "uptime_s": 5}
    late = {"peer": "a", "health": "suspect", "capabilities": None, "shards": []}
    before = as_shown({"devices": [told]}, {})
    assert "uptime_s" not in before["devices"][0]  # type: ignore[index]
    after = as_shown({"devices": [late]}, before)["devices"]
    assert after == [{"peer": "a", "health": "suspect", "capabilities": {"threads": 4}, "shards": [{"first": 0}]}]


def test_a_device_that_is_lost_holds_nothing_any_more() -> None:
    told = {"peer": "a", "health": "alive", "capabilities": {"threads": 4}, "shards": [{"first": 0}]}
    lost = {"peer": "a", "health": "lost", "capabilities": None, "shards": []}
    assert as_shown({"devices": [lost]}, {"devices": [told]})["devices"] == [lost]
