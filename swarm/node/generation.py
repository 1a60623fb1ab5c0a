"""An answer in progress: token ids become text, thinking is told from answer, stop strings end it, figures are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from swarm.engine.generate import Finish, Progress, Request, Run, Session
from swarm.node.answer_text import AnswerText
from swarm.text.stream import StreamDecoder
from swarm.text.thinking import StopStrings, ThinkingSplitter


@dataclass(frozen=True)
class Piece:
    """Some text of an answer, the token that completed it, and whether the model is still thinking."""

    text: str
    token: int
    thinking: bool = False


@dataclass(frozen=True)
class Stats:
    """What an answer took. Tokens that end an answer are not counted."""

    prompt_tokens: int
    cached_tokens: int  # of the prompt, reused from the turn before
    generated_tokens: int
    first_token_s: float  # from the beginning to the first token
    prefill_s: float  # for the prompt tokens that were not cached
    decode_s: float  # for all tokens after the first

    @property
    def prefill_tokens_per_s(self) -> float:
        """Speed of reading the prompt; 0 where nothing was read."""
        return (self.prompt_tokens - self.cached_tokens) / self.prefill_s if self.prefill_s > 0 else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """Speed of answering after the first token; 0 for fewer than two tokens."""
        return (self.generated_tokens - 1) / self.decode_s if self.decode_s > 0 else 0.0


class SessionLoan:
    """Where a generation gets its session from when it begins, and puts it back when it ends."""

    def __init__(self, take: Callable[[Sequence[int]], Session], give_back: Callable[[Session], None]) -> None:
        self.take, self.give_back = take, give_back


class Generation:
    """An iterator over the pieces of one answer. Nothing is computed before the first piece is asked for."""

    def __init__(
        self,
        loan: SessionLoan,
        request: Request,
        decoder: StreamDecoder,
        *,
        stop: Sequence[str] = (),
        splitter: ThinkingSplitter | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`splitter`: for chats, where thinking is told from answer and blank space before the answer is left out."""
        self.tokens: list[int] = []
        self.request = request
        self._loan = loan
        self._progress = progress
        self._texts = AnswerText(decoder, StopStrings(stop), splitter)
        self._run: Run | None = None
        self._cancelled = False
        self._finish: str | None = None
        self._pieces: Generator[Piece, None, None] = self._generate()
        self._begun = False
        self._answer: list[str] = []
        self._thinking: list[str] = []
        self._times = _Times()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        self._begun = True
        piece = next(self._pieces)
        (self._thinking if piece.thinking else self._answer).append(piece.text)
        return piece

    def cancel(self) -> None:
        """End the answer early; from any thread or signal handler. What has come so far stays."""
        self._cancelled = True
        if self._run is not None:
            self._run.cancel()

    def close(self) -> None:
        """End the answer now and give the session back; for a reader that goes away."""
        self.cancel()
        self._pieces.close()
        self._finish = self._finish or Finish.CANCELLED.value

    @property
    def text(self) -> str:
        """The answer without thinking: so far while iterating, otherwise the whole of it, which is then waited for."""
        self._complete_unless_begun()
        return "".join(self._answer)

    @property
    def thinking_text(self) -> str:
        """The thinking; like `text`."""
        self._complete_unless_begun()
        return "".join(self._thinking)

    @property
    def finish_reason(self) -> str | None:
        """'stop', 'length' (max_tokens), 'context' (full) or 'cancelled'; None while the answer still comes."""
        return self._finish

    @property
    def stats(self) -> Stats:
        """The figures so far."""
        return Stats(
            prompt_tokens=len(self.request.prompt),
            cached_tokens=self._times.cached_tokens,
            generated_tokens=len(self.tokens),
            first_token_s=self._times.first_token_s,
            prefill_s=self._times.prefill_s,
            decode_s=self._times.decode_s,
        )

    def _complete_unless_begun(self) -> None:
        if not self._begun:
            for _ in self:
                pass

    def _generate(self) -> Generator[Piece, None, None]:
        session = self._loan.take(self.request.prompt)
        try:
            self._run = Run(session, self.request, self._on_progress)
            if self._cancelled:
                self._run.cancel()
            yield from self._pieces_of(self._run)
        finally:
            self._loan.give_back(session)

    def _on_progress(self, done: int, total: int) -> None:
        self._times.prefilled(cached_tokens=len(self.request.prompt) - total)
        if self._progress is not None:
            self._progress(done, total)

    def _pieces_of(self, run: Run) -> Iterator[Piece]:
        token = -1
        for token in self._times.measured(iter(run)):
            self.tokens.append(token)
            yield from (Piece(part.text, token, part.thinking) for part in self._texts.push(token))
            if self._texts.stopped:
                self._finish = Finish.STOP.value
                return
        yield from (Piece(part.text, token, part.thinking) for part in self._texts.finish())
        self._finish = run.finish.value if run.finish is not None else None


class _Times:
    """Adds up the time that the model took, leaving out what the reader of the pieces did in between."""

    def __init__(self) -> None:
        self.cached_tokens = 0
        self.prefill_s = self.first_token_s = self.decode_s = 0.0
        self._start = 0.0

    def measured(self, tokens: Iterator[int]) -> Iterator[int]:
        for i in count():
            self._start = time.perf_counter()
            token = next(tokens, None)
            if token is None:
                return
            took = time.perf_counter() - self._start
            if i == 0:
                self.first_token_s = took
            else:
                self.decode_s += took
            yield token

    def prefilled(self, cached_tokens: int) -> None:
        """Called after each chunk of the prompt, while the first token is awaited."""
        self.cached_tokens = cached_tokens
        self.prefill_s = time.perf_counter() - self._start
