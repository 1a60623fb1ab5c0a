"""A session on this device: token ids with their KV cache, the prompt in batches, then one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from swarm.answers import PREFILL_BATCH, EndReason
from swarm.engine.sampling import SamplingParams, sample
from swarm.text.model_text import check_fits, common_prefix

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Allowed = Callable[[Sequence[int], int], npt.NDArray[np.bool_]]  # (ids of the answer, vocab) -> bool (vocab,)
Progress = Callable[[int, int], None]  # prompt tokens computed, of how many


class Steps(Protocol):
    """What a session needs of a decoder."""

    @property
    def context(self) -> int: ...
    def new_kv(self, capacity: int, /) -> Any: ...
    def forward(self, ids: I32, kv: Any, /) -> F32:
        """Append `ids`; return the logits float32 (vocab,) after the last."""
        ...

    def logits(self, ids: I32, /) -> F32:
        """The logits float32 (len(ids), vocab) after each, as a fresh sequence."""
        ...


@dataclass(frozen=True)
class Order:
    """One answer to be generated. `params` needs a seed unless it is greedy; max_tokens None: up to the context.

    allowed: which tokens may come after the answer so far; None: all.
    """

    prompt: Sequence[int]
    params: SamplingParams
    end_tokens: Collection[int] = ()
    max_tokens: int | None = None
    allowed: Allowed | None = None


class LocalSession:
    """Token ids and the KV cache that belongs to them; the cache is reused as far as the next prompt agrees with it."""

    def __init__(self, decoder: Steps, batch_tokens: int = PREFILL_BATCH) -> None:
        self.decoder = decoder
        self.ids: list[int] = []  # in the cache; nothing that is not
        self._batch_tokens = batch_tokens
        self._kv: Any = None  # made when the first prompt comes

    def reusable(self, prompt: Sequence[int]) -> int:
        """How many tokens of `prompt` need no computing; never the last, whose logits are wanted."""
        return min(common_prefix(prompt, self.ids), max(len(prompt) - 1, 0))

    def prefill(self, prompt: Sequence[int], progress: Progress | None = None) -> Iterator[F32]:
        """Compute `prompt` batch by batch; yield the logits after each, the last being the prompt's.

        Raise ContextFull before anything is computed when the prompt leaves no room for an answer.
        """
        check_fits(prompt, self.decoder.context)
        if self._kv is None:
            self._kv = self.decoder.new_kv(self.decoder.context)
        self._truncate(self.reusable(prompt))
        reused = len(self.ids)
        while len(self.ids) < len(prompt):
            batch = prompt[len(self.ids) : len(self.ids) + self._batch_tokens]
            logits = self.append(batch)
            if progress is not None:
                progress(len(self.ids) - reused, len(prompt) - reused)
            yield logits

    def append(self, ids: Sequence[int]) -> F32:
        """Compute `ids` after those in the cache; return the logits after the last."""
        try:
            logits = self.decoder.forward(np.asarray(ids, dtype=np.int32), self._kv)
        except BaseException:
            # Interrupted half-way: what is in the cache beyond our ids is unknown.
            self._kv.truncate(min(len(self.ids), self._kv.length))
            del self.ids[self._kv.length :]
            raise
        self.ids += ids
        return logits

    def _truncate(self, length: int) -> None:
        if length < len(self.ids):
            self._kv.truncate(length)
            del self.ids[length:]


class TokenRun:
    """The tokens of one answer: iterate over its ids. `ended` says why it ended; `cancel()` ends it early."""

    def __init__(self, session: LocalSession, order: Order, progress: Progress | None = None) -> None:
        self.session, self.order, self.progress = session, order, progress
        self.ended: EndReason | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End the answer at the next token or batch of the prompt; from any thread or signal handler."""
        self._cancelled = True

    def __iter__(self) -> Iterator[int]:
        """The ids, without the token that ends the answer; each is computed when it is asked for."""
        logits = self._prefill()
        produced = 0
        while logits is not None and self.ended is None:
            allowed = self._allowed(len(logits))
            token = sample(logits, self.order.params, len(self.session.ids), self.session.ids, allowed)
            if token in self.order.end_tokens:
                self.ended = EndReason.STOP
                return
            produced += 1
            yield token
            self.ended = self._limit(produced)
            if self.ended is None:
                logits = self.session.append([token])

    def _prefill(self) -> F32 | None:
        """The logits after the prompt; None when it was cancelled before."""
        logits = None
        for logits in self.session.prefill(self.order.prompt, self.progress):  # noqa: B007  # the last counts
            if self._cancelled:
                self.ended = EndReason.CANCELLED
                return None
        if self.order.max_tokens is not None and self.order.max_tokens <= 0:
            self.ended = EndReason.LENGTH
        return logits

    def _allowed(self, n_vocab: int) -> npt.NDArray[np.bool_] | None:
        order = self.order
        return order.allowed(self.session.ids[len(order.prompt) :], n_vocab) if order.allowed is not None else None

    def _limit(self, produced: int) -> EndReason | None:
        if self._cancelled:
            return EndReason.CANCELLED
        if self.order.max_tokens is not None and produced >= self.order.max_tokens:
            return EndReason.LENGTH
        # The token just given out still needs a place in the cache before another can follow.
        if len(self.session.ids) + 1 >= self.session.decoder.context:
            return EndReason.CONTEXT
        return None
