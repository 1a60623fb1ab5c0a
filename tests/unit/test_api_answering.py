"""A streamed answer that is silent for a while, and one whose reader goes away; with an answer that the test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from swarm.answers import Piece
from swarm.api import answering
from swarm.api.openai_completions import CompletionReply
from swarm.errors import SwarmNetworkError
from swarm.node.answer import Question, Reading
from tests.helpers.played_answer import PlayedAnswer, events_in

SILENCE = b": still at it\n\n"


def stream_of(answer: PlayedAnswer, *others: PlayedAnswer) -> AsyncGenerator[bytes, None]:
    left = list(others)

    async def ask(question: Question) -> Any:
        return left.pop(0)

    begun = answering.Begun(answer)  # type: ignore[arg-type]
    questions = [Question("")] * len(others)
    return answering.stream(begun, questions, ask, CompletionReply("cmpl-", "tiny"))  # type: ignore[return-value]


def run(scenario: object) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))  # type: ignore[arg-type]


def test_a_silent_stream_says_now_and_then_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "KEEP_ALIVE_S", 0.02)

    async def scenario() -> None:
        answer = PlayedAnswer()
        stream = stream_of(answer)
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


def test_what_a_reader_does_not_hear_of_does_not_break_the_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a long prompt is read there is news all the time, of which most clients get nothing."""
    said: list[str] = []
    watch = SimpleNamespace(heard=lambda: said.append("heard"), stop=lambda: None)
    monkeypatch.setattr(answering, "SilenceWatch", lambda remind: watch)

    async def scenario() -> None:
        answer = PlayedAnswer(*[Reading(i, 50) for i in range(50)], Piece("one"))
        assert len([event async for event in stream_of(answer)]) == 3
        assert said == ["heard"]

    run(scenario())


def test_a_stream_that_speaks_needs_no_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    watch = SimpleNamespace(heard=lambda: said.append("heard"), stop=lambda: said.append("stopped"))
    monkeypatch.setattr(answering, "SilenceWatch", lambda remind: watch)

    async def scenario() -> None:
        answer = PlayedAnswer(*[Piece(f"word {i}") for i in range(50)])
        events = [event async for event in stream_of(answer)]
        assert len(events) == 52
        assert SILENCE not in events
        assert said == ["heard"] * 50 + ["stopped"]

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
        watch = answering.SilenceWatch(lambda: reminded.append(loop.now))
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
        answer = PlayedAnswer()
        stream = stream_of(answer)
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


def test_several_answers_come_one_after_the_other() -> None:
    async def scenario() -> None:
        first, second = PlayedAnswer(Piece("a")), PlayedAnswer(Piece("b"))
        data = b"".join([event async for event in stream_of(first, second)])
        chunks = [value for _, value in events_in(data)]
        assert [chunk["choices"][0]["index"] for chunk in chunks[:-1]] == [0, 0, 1, 1]
        assert chunks[-1] == "[DONE]"
        assert first.is_closed and second.is_closed

    run(scenario())


def test_what_goes_wrong_later_is_said_within_the_stream() -> None:
    class Broken(PlayedAnswer):
        async def events(self) -> AsyncGenerator[Any, None]:
            yield Piece("a")
            raise SwarmNetworkError("the answer was lost")

    async def scenario() -> None:
        data = b"".join([event async for event in stream_of(Broken())])
        assert events_in(data)[-1][1]["error"]["message"] == "the answer was lost"

    run(scenario())
