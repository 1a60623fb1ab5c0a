"""An answer of a model on this device, as its reader gets it: pieces of text as they are computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence

from swarm.answers import Channel, EndReason, ExpertUse, Meter, Piece, Stats
from swarm.local.session import LocalSession, Order, Progress, TokenRun
from swarm.text.answer_text import AnswerText


class SessionLoan:
    """Where an answer gets its session from when it begins, and puts it back when it ends."""

    def __init__(
        self,
        take: Callable[[Sequence[int]], LocalSession],
        give_back: Callable[[LocalSession], None],
        expert_use: Callable[[], ExpertUse] = ExpertUse,
    ) -> None:
        self.take, self.give_back, self.expert_use = take, give_back, expert_use


class LocalAnswer:
    """An iterator over the pieces of one answer. Nothing is computed before the first piece is asked for."""

    def __init__(
        self, loan: SessionLoan, order: Order, reader: AnswerText, *, progress: Progress | None = None
    ) -> None:
        self.tokens: list[int] = []
        self.order = order
        self._loan = loan
        self._progress = progress
        self._reader = reader
        self._run: TokenRun | None = None
        self._cancelled = False
        self._ended: EndReason | None = None
        self._pieces: Generator[Piece, None, None] = self._answered()
        self._begun = False
        self._said: list[Piece] = []
        self._meter = Meter(len(order.prompt))
        self._used_before = ExpertUse()
        self._asked_at = 0.0  # when the token that is awaited was asked for

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        self._begun = True
        piece = next(self._pieces)
        self._said.append(piece)
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
        self._ended = self._ended or EndReason.CANCELLED

    @property
    def text(self) -> str:
        """The answer without thinking: so far while iterating, otherwise the whole of it, which is then waited for."""
        return self._all_said(Channel.ANSWER)

    @property
    def thinking_text(self) -> str:
        """The thinking; like `text`."""
        return self._all_said(Channel.THINKING)

    @property
    def finish_reason(self) -> str | None:
        """'stop', 'length' (max_tokens), 'context' (full) or 'cancelled'; None while the answer still comes."""
        return None if self._ended is None else self._ended.value

    @property
    def stats(self) -> Stats:
        """The figures so far; what the reader of the pieces did in between is left out."""
        return self._meter.stats

    def _all_said(self, channel: Channel) -> str:
        if not self._begun:
            for _ in self:
                pass
        return "".join(piece.text for piece in self._said if piece.channel is channel)

    def _answered(self) -> Generator[Piece, None, None]:
        session = self._loan.take(self.order.prompt)
        self._used_before = self._loan.expert_use()
        try:
            self._run = TokenRun(session, self.order, self._on_progress)
            if self._cancelled:
                self._run.cancel()
            yield from self._pieces_of(self._run)
        finally:
            self._meter.experts = self._loan.expert_use() - self._used_before
            self._loan.give_back(session)

    def _on_progress(self, done: int, total: int) -> None:
        """After each batch of the prompt, while the first token is awaited."""
        self._meter.cached_tokens = len(self.order.prompt) - total
        self._meter.prefilled(time.perf_counter() - self._asked_at)
        if self._progress is not None:
            self._progress(done, total)

    def _pieces_of(self, run: TokenRun) -> Iterator[Piece]:
        for token in self._measured(iter(run)):
            self.tokens.append(token)
            self._meter.guessed_tokens, self._meter.guesses = run.n_guessed, run.n_guesses
            yield from self._reader.push(token)
            if self._reader.stopped:
                self._ended = EndReason.STOP
                return
        yield from self._reader.finish()
        self._ended = run.ended

    def _measured(self, tokens: Iterator[int]) -> Iterator[int]:
        while True:
            self._asked_at = time.perf_counter()
            token = next(tokens, None)
            if token is None:
                return
            self._meter.token(time.perf_counter() - self._asked_at)
            yield token
