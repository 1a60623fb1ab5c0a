"""An answer that the test writes, where the node's would be: for the dialects and for what drives them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from types import SimpleNamespace
from typing import Any

from swarm.answers import Channel, EndReason, Piece, Stats
from swarm.api.dialect import Dialect, Gathered, Json
from swarm.node.answer import Note, Pulse, Question, Reading
from swarm.wire.records import TokenChance

Event = Piece | Note | Reading | Pulse
STATS = Stats(prompt_tokens=7, cached_tokens=2, generated_tokens=3, first_token_s=0.5, prefill_s=0.5, decode_s=0.25)


def calls(*pairs: tuple[str, str]) -> list[Piece]:
    """Calls, each with its arguments in two pieces."""
    pieces = []
    for i, (name, arguments) in enumerate(pairs):
        half = len(arguments) // 2
        pieces += [Piece("", Channel.CALL, i, name)]
        pieces += [Piece(part, Channel.CALL, i) for part in (arguments[:half], arguments[half:]) if part]
    return pieces


class PlayedAnswer:
    """Events are given, or put in by hand, where None ends them."""

    def __init__(self, *events: Event, reason: EndReason = EndReason.STOP, question: Question | None = None) -> None:
        self.inbox: asyncio.Queue[Event | None] = asyncio.Queue()
        self.deliver = self.inbox.put_nowait
        self.given = list(events)
        self.finish_reason = reason
        self.question = question or Question("")
        self.prompt = [1, 2, 3]
        self.tokens = [4, 5, 6]
        self.stats = STATS
        self.told: list[tuple[TokenChance, ...]] = []
        self.stop_string: str | None = None
        self.context = 100
        self.model: Any = SimpleNamespace(name="tiny", tokenizer=SimpleNamespace(decode=lambda ids: f"<{len(ids)}>"))
        self.called = any(isinstance(event, Piece) and event.channel is Channel.CALL for event in events)
        self.is_cancelled = self.is_closed = False

    def cancel(self) -> None:
        self.is_cancelled = True

    async def events(self) -> AsyncGenerator[Event, None]:
        try:
            for event in self.given:
                yield event
            if not self.given:
                while (event := await self.inbox.get()) is not None:
                    yield event
        finally:
            self.is_closed = True


def whole(dialect: Dialect, *answers: PlayedAnswer) -> Json:
    """What a dialect makes of answers when nothing is streamed."""
    return dialect.whole([gathered(answer) for answer in answers])


def gathered(answer: PlayedAnswer) -> Gathered:
    """All pieces of an answer."""
    together = Gathered(answer)  # type: ignore[arg-type]
    together.add([event for event in answer.given if isinstance(event, Piece)])
    return together


def streamed(dialect: Dialect, *answers: PlayedAnswer) -> bytes:
    """All that a dialect streams."""
    out = b""
    for index, answer in enumerate(answers):
        played: Any = answer
        out += dialect.begin(index, played)
        for event in answer.given:
            if isinstance(event, Piece):
                out += dialect.piece(index, played, event)
            elif not isinstance(event, Pulse):
                out += dialect.quiet(event)
        out += dialect.end(index, played)
    listed: Sequence[Any] = answers
    return out + dialect.close(listed)


def events_in(data: bytes) -> list[tuple[str, Any]]:
    """Server-sent events: the name and the value of each; `[DONE]` is a text."""
    found = []
    for block in data.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        name = next((line[7:] for line in lines if line.startswith("event: ")), "")
        value = next(line[6:] for line in lines if line.startswith("data: "))
        found.append((name, value if value == "[DONE]" else json.loads(value)))
    return found
