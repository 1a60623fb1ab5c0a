"""Streams whose readers go away and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from swarm.answers import Piece
from swarm.api import resuming
from swarm.api.errors import BadRequest
from swarm.api.resuming import KeptStream, KeptStreams
from tests.helpers.api_client import api_of, returns
from tests.helpers.played_answer import PlayedAnswer

ASKED = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


def never(error: Exception) -> None:
    raise AssertionError(error)


class Source:
    """Chunks that the test gives; None ends them."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.give = self.inbox.put_nowait
        self.is_closed = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            while (chunk := await self.inbox.get()) is not None:
                yield chunk
        finally:
            self.is_closed = True


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


async def all_of(events: AsyncIterator[bytes]) -> list[bytes]:
    return [event async for event in events]


def test_a_reader_that_comes_back_misses_nothing_and_hears_nothing_twice() -> None:
    async def scenario() -> None:
        source = Source()
        stream = KeptStream(source.chunks(), lambda: None, never)
        source.give(b"data: a\n\n")
        first = stream.read(0)
        assert await anext(first) == b"id: 0\ndata: a\n\n"
        await first.aclose()  # type: ignore[attr-defined]
        source.give(b"data: b\n\nevent: x\ndata: c\n\n")
        source.give(None)
        assert await all_of(stream.read(1)) == [b"id: 1\ndata: b\n\n", b"id: 2\nevent: x\ndata: c\n\n"]
        assert len(await all_of(stream.read(0))) == 3
        with pytest.raises(BadRequest, match="is not kept"):
            await all_of(stream.read(9))
        stream.end()

    run(scenario())


def test_a_stream_that_nobody_comes_back_to_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "RESUME_S", 0.0)

    async def scenario() -> None:
        source, streams = Source(), KeptStreams(never)
        name, stream = streams.keep(source.chunks())
        source.give(b"data: a\n\n")
        reader = stream.read(0)
        await anext(reader)
        await reader.aclose()  # type: ignore[attr-defined]
        while not source.is_closed:
            await asyncio.sleep(0)
        with pytest.raises(BadRequest, match="no such stream"):
            streams.find(name)

    run(scenario())


def test_the_oldest_events_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "MAX_KEPT_STREAM_BYTES", 100)

    async def scenario() -> None:
        source = Source()
        stream = KeptStream(source.chunks(), lambda: None, never)
        for i in range(20):
            source.give(b"data: %d\n\n" % i)
        source.give(None)
        while stream.next_number < 20:
            await asyncio.sleep(0)
        with pytest.raises(BadRequest) as caught:
            await all_of(stream.read(0))
        assert caught.value.status == 410
        assert b"data: 19" in (await all_of(stream.read(19)))[0]
        stream.end()

    run(scenario())


def test_a_fault_of_ours_is_told_and_ends_the_stream() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"data: a\n\n"
        raise ZeroDivisionError

    async def scenario() -> None:
        bugs: list[Exception] = []
        stream = KeptStream(broken(), lambda: None, bugs.append)
        assert b"a bug in Swarm: ZeroDivisionError" in (await all_of(stream.read(0)))[-1]
        assert [type(bug) for bug in bugs] == [ZeroDivisionError]
        stream.end()

    run(scenario())


def test_only_so_many_streams_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "MAX_KEPT_STREAMS", 1)

    async def scenario() -> None:
        streams = KeptStreams(never)
        _, stream = streams.keep(Source().chunks())
        with pytest.raises(BadRequest, match="too many streams"):
            streams.keep(Source().chunks())
        stream.end()
        streams.keep(Source().chunks())[1].end()

    run(scenario())


def test_a_client_asks_for_it_and_goes_on_from_any_event() -> None:
    app = api_of(ask=returns(PlayedAnswer(Piece("one"), Piece("two"))), events=SimpleNamespace(bug=never)).app
    path, asks = "/v1/chat/completions", {"x-swarm-resume": "1"}

    async def scenario() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as api:
            assert "x-stream-id" not in (await api.post(path, json=ASKED)).headers
            whole = await api.post(path, json=ASKED, headers=asks)
            stream = f"/v1/streams/{whole.headers['x-stream-id']}"
            assert (await api.get(stream)).text == whole.text
            rest = (await api.get(stream, headers={"last-event-id": "1"})).text
            assert "one" not in rest and "two" in rest and whole.text.endswith(rest)
            assert (await api.get(stream, headers={"last-event-id": "x"})).status_code == 400
            assert (await api.delete(stream)).json() == {"ended": True}
            assert (await api.get(stream)).status_code == 404

    run(scenario())
