"""A model without weights: says what it is told to, through the same surface as `swarm.Model`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from swarm.answers import Piece, Stats
from swarm.engine.sampling import SamplingParams


@dataclass
class FakeAnswer:
    pieces: Sequence[Piece]
    before_piece: Callable[[int], None] = lambda index: None
    finish_reason: str | None = None
    cancelled: bool = False
    stats: Stats = field(default_factory=lambda: Stats(prompt_tokens=7, first_token_s=0.25))

    def __iter__(self) -> Iterator[Piece]:
        for index, piece in enumerate(self.pieces):
            self.before_piece(index)
            if self.cancelled:
                self.finish_reason = "cancelled"
                return
            self.stats = replace(self.stats, generated_tokens=index + 1, decode_s=0.1 * index)
            yield piece
        self.finish_reason = "stop"

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeModel:
    """Answers with `answers` in turn, then with an echo; remembers what it was asked."""

    answers: list[Sequence[Piece] | Exception] = field(default_factory=list)
    before_piece: Callable[[int], None] = lambda index: None
    asked: list[list[dict[str, str]]] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    thinking: list[bool | None] = field(default_factory=list)
    max_tokens: list[int | None] = field(default_factory=list)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int | None,
        params: SamplingParams,
        thinking: bool | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> FakeAnswer:
        self.asked.append([dict(message) for message in messages])
        self.params.append(params)
        self.thinking.append(thinking)
        self.max_tokens.append(max_tokens)
        answer = self.answers.pop(0) if self.answers else [Piece(f"echo: {messages[-1]['content']}")]
        if isinstance(answer, Exception):
            raise answer
        return FakeAnswer(answer, self.before_piece)
