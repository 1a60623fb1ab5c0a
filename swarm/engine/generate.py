"""Generation of token ids: a session with its KV cache, the prompt in chunks, then one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from swarm.engine.sampling import SamplingParams, sample
from swarm.errors import ContextFull, TextError

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

PREFILL_CHUNK_TOKENS = 512  # enough to read each weight once for many tokens, few enough to show progress and to stop
Progress = Callable[[int, int], None]  # prompt tokens computed, of how many


class KV(Protocol):
    """The keys and values of the tokens so far."""

    @property
    def length(self) -> int: ...
    def truncate(self, length: int, /) -> None: ...


class Decoder(Protocol):
    """What generation needs of a model, on this device or on many."""

    @property
    def context(self) -> int: ...
    def new_kv(self, capacity: int, /) -> Any: ...
    def forward(self, ids: I32, kv: Any, /) -> F32:
        """Append `ids`; return the logits float32 (vocab,) after the last."""
        ...


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"  # the model ended it, or a stop string came
    LENGTH = "length"  # max_tokens
    CONTEXT = "context"  # the context is full
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Request:
    """One answer to be generated. `params` needs a seed unless it is greedy; max_tokens None: up to the context."""

    prompt: Sequence[int]
    params: SamplingParams
    end_tokens: Collection[int] = ()
    max_tokens: int | None = None


class Session:
    """Token ids and the KV cache that belongs to them; the cache is reused as far as the next prompt agrees with it."""

    def __init__(self, decoder: Decoder, chunk_tokens: int = PREFILL_CHUNK_TOKENS) -> None:
        self.decoder = decoder
        self.ids: list[int] = []  # in the cache; nothing that is not
        self._chunk_tokens = chunk_tokens
        self._kv: Any = None  # made when the first prompt comes

    def reusable(self, prompt: Sequence[int]) -> int:
        """How many tokens of `prompt` need no computing; never the last, whose logits are wanted."""
        most = min(len(prompt) - 1, len(self.ids))
        return next((i for i in range(most) if prompt[i] != self.ids[i]), max(most, 0))

    def prefill(self, prompt: Sequence[int], progress: Progress | None = None) -> Iterator[F32]:
        """Compute `prompt` chunk by chunk; yield the logits after each, the last being the prompt's.

        Raise ContextFull before anything is computed when the prompt leaves no room for an answer.
        """
        check_fits(prompt, self.decoder.context)
        if self._kv is None:
            self._kv = self.decoder.new_kv(self.decoder.context)
        self._truncate(self.reusable(prompt))
        reused = len(self.ids)
        while len(self.ids) < len(prompt):
            chunk = prompt[len(self.ids) : len(self.ids) + self._chunk_tokens]
            logits = self.append(chunk)
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


def check_fits(prompt: Sequence[int], context: int) -> None:
    """Raise TextError for a prompt that is none, ContextFull for one that leaves no room for an answer."""
    if not prompt:
        raise TextError("the prompt is empty")
    if min(prompt) < 0:
        raise TextError(f"{min(prompt)} is not a token id")
    if len(prompt) >= context:
        raise ContextFull(
            f"the conversation has {len(prompt)} tokens and the context holds {context}; "
            "start anew, shorten it, or raise the context"
        )


class Run:
    """One answer in progress: iterate over its token ids. `finish` says why it ended; `cancel()` ends it early."""

    def __init__(self, session: Session, request: Request, progress: Progress | None = None) -> None:
        self.session, self.request, self.progress = session, request, progress
        self.finish: Finish | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End the answer at the next token or chunk of the prompt; from any thread or signal handler."""
        self._cancelled = True

    def __iter__(self) -> Iterator[int]:
        """The ids, without the token that ends the answer; each is computed when it is asked for."""
        logits = self._prefill()
        produced = 0
        while logits is not None and self.finish is None:
            token = sample(logits, self.request.params, len(self.session.ids), self.session.ids)
            if token in self.request.end_tokens:
                self.finish = Finish.STOP
                return
            produced += 1
            yield token
            self.finish = self._limit(produced)
            if self.finish is None:
                logits = self.session.append([token])

    def _prefill(self) -> F32 | None:
        """The logits after the prompt; None when it was cancelled before."""
        logits = None
        for logits in self.session.prefill(self.request.prompt, self.progress):  # noqa: B007  # the last counts
            if self._cancelled:
                self.finish = Finish.CANCELLED
                return None
        if self.request.max_tokens is not None and self.request.max_tokens <= 0:
            self.finish = Finish.LENGTH
        return logits

    def _limit(self, produced: int) -> Finish | None:
        if self._cancelled:
            return Finish.CANCELLED
        if self.request.max_tokens is not None and produced >= self.request.max_tokens:
            return Finish.LENGTH
        # The token just given out still needs a place in the cache before another can follow.
        if len(self.session.ids) + 1 >= self.session.decoder.context:
            return Finish.CONTEXT
        return None
