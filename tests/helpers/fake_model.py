"""A model without weights: says what it is told to, through the same surface as `swarm.Model`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from swarm.engine.sampling import SamplingParams


@dataclass(frozen=True)
class Piece:
    text: str
    token: int = 0
    thinking: bool = False


@dataclass
class Stats:
    prompt_tokens: int = 7
    cached_tokens: int = 0
    generated_tokens: int = 0
    first_token_s: float = 0.25
    decode_s: float = 0.0


@dataclass
class Generation:
    pieces: Sequence[Piece]
    before_piece: Callable[[int], None] = lambda index: None
    finish_reason: str | None = None
    cancelled: bool = False
    stats: Stats = field(default_factory=Stats)

    def __iter__(self) -> Iterator[Piece]:
        for index, piece in enumerate(self.pieces):
            self.before_piece(index)
            if self.cancelled:
                self.finish_reason = "cancelled"
                return
            self.stats.generated_tokens += 1
            self.stats.decode_s += 0.1 if index else 0.0
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
    ) -> Generation:
        self.asked.append([dict(message) for message in messages])
        self.params.append(params)
        self.thinking.append(thinking)
        self.max_tokens.append(max_tokens)
        answer = self.answers.pop(0) if self.answers else [Piece(f"echo: {messages[-1]['content']}")]
        if isinstance(answer, Exception):
            raise answer
        return Generation(answer, self.before_piece)
