"""A streamed answer that is silent for a while, and one whose reader goes away; with an answer that the test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace

import pytest

from swarm.answers import Piece
from swarm.api import app
from swarm.api.openai import Reply
from swarm.errors import ModelNotFound
from swarm.node.answer import Pulse
from swarm.node.library import Entry
from swarm.wire.ids import ModelId
from tests.helpers.api_client import api_of

REPLY = Reply(False, "cmpl-1", 0, "tiny")
SILENCE = b": still at it\n\n"


class Written:
    """An answer whose events are put in by hand; None ends it."""

    finish_reason = "stop"

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Piece | Pulse | None] = asyncio.Queue()
        self.deliver = self.inbox.put_nowait
        self.is_cancelled = self.is_closed = False

    def cancel(self) -> None:
        self.is_cancelled = True

    async def events(self) -> AsyncGenerator[Piece | Pulse, None]:
        try:
            while (event := await self.inbox.get()) is not None:
                yield event
        finally:
            self.is_closed = True

    def stream(self) -> AsyncGenerator[bytes, None]:
        events = self.events()
        first = asyncio.ensure_future(anext(events, None))
        return app._stream(events, first, self, REPLY, usage=False, for_us=False)  # type: ignore[arg-type,return-value]


def run(scenario: object) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))  # type: ignore[arg-type]


def test_a_silent_stream_says_now_and_then_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "KEEP_ALIVE_S", 0.02)

    async def scenario() -> None:
        answer = Written()
        stream = answer.stream()
        assert [await anext(stream) for _ in range(3)] == [SILENCE] * 3  # before the first word
        answer.deliver(Piece("one"))
        while (piece := await anext(stream)) == SILENCE:
            pass
        assert b"one" in piece
        assert await anext(stream) == SILENCE  # and between two
        answer.deliver(None)
        rest = [event async for event in stream if event != SILENCE]
        assert rest[-1] == b"data: [DONE]\n\n"

    run(scenario())


def test_a_stream_that_speaks_needs_no_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    watch = SimpleNamespace(heard=lambda: calls.append("heard"), stop=lambda: calls.append("stopped"))
    monkeypatch.setattr(app, "_SilenceWatch", lambda remind: watch)

    async def scenario() -> None:
        answer = Written()
        for i in range(50):
            answer.deliver(Piece(f"word {i}"))
        answer.deliver(None)
        events = [event async for event in answer.stream()]
        assert len(events) == 52
        assert SILENCE not in events
        await asyncio.sleep(0)
        assert answer.inbox.empty()
        assert calls == ["heard"] * 50 + ["stopped"]

    run(scenario())


def test_the_watch_waits_from_the_last_word_on_and_ends_when_told() -> None:
    class Loop:
        now = 0.0

        def time(self) -> float:
            return self.now

        def call_later(self, delay: float, function: object) -> object:
            self.due, self.function = self.now + delay, function
            return SimpleNamespace(cancel=lambda: setattr(self, "due", float("inf")))

    loop, reminded = Loop(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        watch = app._SilenceWatch(lambda: reminded.append(loop.now))
    loop.now = 7.0
    watch.heard()
    for loop.now in (10.0, 17.0, 27.0):
        assert loop.due == loop.now
        loop.function()  # type: ignore[operator]
    assert reminded == [17.0, 27.0]
    watch.stop()
    assert loop.due == float("inf")


@pytest.mark.parametrize("n_read", [0, 1])
def test_a_reader_who_goes_away_cancels_the_answer(n_read: int) -> None:
    async def scenario() -> None:
        answer = Written()
        stream = answer.stream()
        for _ in range(n_read):
            answer.deliver(Piece("word"))
            await anext(stream)
        reader = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert answer.is_cancelled
        assert answer.is_closed

    run(scenario())


def test_health_and_models_are_told() -> None:
    entries = [Entry(ModelId("ab" * 32), "smollm2-135m", 100, 1)]
    library = SimpleNamespace(
        entries=lambda: entries,
        find=lambda name: entries[0].id if name == "smollm2" else None,
        not_found=lambda name: ModelNotFound(f"no device here has a model called {name!r}"),
    )
    api = api_of(peer="ab", name="attic", n_others=2, library=library)
    assert api.get("/health").json() == {"status": "ok", "peer": "ab", "name": "attic", "devices": 3}
    assert [row["id"] for row in api.get("/v1/models").json()["data"]] == ["smollm2-135m"]
    assert api.get("/v1/models/smollm2").json()["id"] == "smollm2-135m"
    assert api.get("/v1/models/gpt-4").status_code == 404
    assert api.get("/v1/nothing").json()["error"]["message"] == "GET /v1/nothing: not found"
    assert api.get("/health", headers={"host": "evil.example"}).status_code == 403
