"""A session on this device: token ids with their KV cache, the prompt in batches, then one token at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from swarm.answers import PREFILL_BATCH, EndReason
from swarm.engine.draft import Choose
from swarm.engine.sampling import SamplingParams, sample
from swarm.guessing import Guesser
from swarm.text.model_text import check_fits, common_prefix

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Forced = Callable[[Sequence[int]], Sequence[int]]  # ids of the answer -> those that must come next
Allowed = Callable[[Sequence[int], int], npt.NDArray[np.bool_]]  # (ids of the answer, vocab) -> bool (vocab,)
Progress = Callable[[int, int], None]  # prompt tokens computed, of how many


MAX_BEHIND = 16  # ids that a draft had not seen: then what it took is no measure of a token


class Steps(Protocol):
    """What a session needs of a decoder."""

    @property
    def context(self) -> int: ...
    def new_kv(self, capacity: int, /) -> Any: ...
    def forward(self, ids: I32, kv: Any, /) -> F32:
        """Append `ids`; return the logits float32 (vocab,) after the last."""
        ...

    def forward_all(self, ids: I32, kv: Any, /) -> F32:
        """Append `ids`; return the logits float32 (len(ids), vocab) after each."""
        ...

    def logits(self, ids: I32, /) -> F32:
        """The logits float32 (len(ids), vocab) after each, as a fresh sequence."""
        ...


class LongSteps(Steps, Protocol):
    """A decoder that reads experts from disk, and fewer of them when it has much of a prompt at once."""

    @property
    def held_tokens(self) -> int:
        """How much; 0: no more than any other."""
        ...

    def prompt(self, ids: I32, kv: Any, /) -> Generator[float, None, F32]:
        """As `forward`, for so many ids; yields what share is done."""
        ...


class GuessingSteps(Steps, Protocol):
    """A decoder that guesses for itself."""

    def propose(self, ids: Sequence[int], choose: Choose, kv: Any, /) -> list[int]:
        """What may come after `ids`."""
        ...


class Drafts(Protocol):
    """Who says what may come next, at a cost."""

    @property
    def most(self) -> int:
        """Tokens that it says at once."""
        ...

    def propose(self, ids: Sequence[int], n: int, choose: Choose, /) -> list[int]:
        """At most n tokens that may come after `ids`."""
        ...


@dataclass(frozen=True)
class Order:
    """One answer to be generated. `params` needs a seed unless it is greedy; max_tokens None: up to the context.

    allowed: which tokens may come after the answer so far; None: all. forced: those that must. guess: compute tokens
    that may come along with those that are certain, where that is faster.
    """

    prompt: Sequence[int]
    params: SamplingParams
    end_tokens: Collection[int] = ()
    max_tokens: int | None = None
    allowed: Allowed | None = None
    forced: Forced | None = None
    guess: bool = True


class LocalSession:
    """Token ids and the KV cache that belongs to them; the cache is reused as far as the next prompt agrees with it."""

    def __init__(
        self,
        decoder: Steps,
        batch_tokens: int = PREFILL_BATCH,
        draft: Drafts | None = None,
        long: LongSteps | None = None,
    ) -> None:
        """`long`: the decoder again, where it takes more of a prompt at once."""
        self.decoder = decoder
        self._long = long
        self.draft = draft
        self.ids: list[int] = []  # in the cache; nothing that is not
        self.guesser = Guesser()
        self._batch_tokens = batch_tokens
        self._kv: Any = None  # made when the first prompt comes

    @property
    def kv(self) -> Any:
        """The KV cache; None before the first prompt."""
        return self._kv

    def reusable(self, prompt: Sequence[int]) -> int:
        """How many tokens of `prompt` need no computing; never the last, whose logits are wanted."""
        return min(common_prefix(prompt, self.ids), max(len(prompt) - 1, 0))

    def prefill(self, prompt: Sequence[int], progress: Progress | None = None) -> Iterator[F32 | None]:
        """Compute `prompt` batch by batch; yield the logits after each, the last being the prompt's; None within one.

        Raise ContextFull before anything is computed when the prompt leaves no room for an answer.
        """
        check_fits(prompt, self.decoder.context)
        if self._kv is None:
            self._kv = self.decoder.new_kv(self.decoder.context)
        self.truncate(self.reusable(prompt))
        reused = len(self.ids)

        def tell(more: int = 0) -> None:
            if progress is not None:
                progress(len(self.ids) + more - reused, len(prompt) - reused)

        while (left := len(prompt) - len(self.ids)) > 0:
            if self._long is not None and min(left, self._long.held_tokens) > self._batch_tokens:
                yield from self._append_long(prompt[len(self.ids) :][: self._long.held_tokens], self._long, tell)
                continue
            logits = self.append(prompt[len(self.ids) :][: self._batch_tokens])
            tell()
            yield logits

    def _append_long(self, ids: Sequence[int], decoder: LongSteps, tell: Callable[[int], None]) -> Iterator[F32 | None]:
        """As `append`, with a look at the world between two pieces of the work."""
        with self._all_or_nothing():
            steps = decoder.prompt(np.asarray(ids, dtype=np.int32), self._kv)
            while True:
                try:
                    share = next(steps)
                except StopIteration as done:
                    logits: F32 = done.value
                    break
                tell(int(share * len(ids)))
                yield None
        self.ids += ids
        tell(0)
        yield logits

    def append(self, ids: Sequence[int]) -> F32:
        """Compute `ids` after those in the cache; return the logits after the last."""
        return self._append(ids, self.decoder.forward)

    def append_all(self, ids: Sequence[int]) -> F32:
        """The same; return the logits after each: float32 (len(ids), vocab)."""
        return self._append(ids, self.decoder.forward_all)

    def _append(self, ids: Sequence[int], forward: Callable[[I32, Any], F32]) -> F32:
        with self._all_or_nothing():
            logits = forward(np.asarray(ids, dtype=np.int32), self._kv)
        self.ids += ids
        return logits

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """While ids are computed that are not ours yet."""
        try:
            yield
        except BaseException:
            # Interrupted half-way: what is in the cache beyond our ids is unknown.
            self._kv.truncate(min(len(self.ids), self._kv.length))
            del self.ids[self._kv.length :]
            raise

    def truncate(self, length: int) -> None:
        """Forget what is in the cache from this position on."""
        if length < len(self.ids):
            self._kv.truncate(length)
            del self.ids[length:]


class OwnDraft:
    """A session whose decoder guesses for itself (swarm/engine/mtp.py)."""

    most = 1

    def __init__(self, decoder: GuessingSteps, session: LocalSession) -> None:
        self._decoder, self._session = decoder, session

    def propose(self, ids: Sequence[int], n: int, choose: Choose) -> list[int]:
        """The token that may come after `ids`."""
        return self._decoder.propose(ids, choose, self._session.kv)


class TokenRun:
    """The tokens of one answer: iterate over its ids. `ended` says why it ended; `cancel()` ends it early."""

    def __init__(self, session: LocalSession, order: Order, progress: Progress | None = None) -> None:
        self.session, self.order, self.progress = session, order, progress
        self.ended: EndReason | None = None
        self.n_guesses = 0  # that were computed
        self.n_guessed = 0  # tokens given out that were computed as guesses
        self._ids = [*order.prompt]  # and of the answer, as far as it is given out
        self._n_drafted = 0  # of the guesses of the last step, those of the draft
        self._drafted_at = 0  # how many ids there were when the draft was asked last
        self._cancelled = False

    def cancel(self) -> None:
        """End the answer at the next token or batch of the prompt; from any thread or signal handler."""
        self._cancelled = True

    def __iter__(self) -> Iterator[int]:
        """The ids, without the token that ends the answer; steps are made when their tokens are asked for."""
        logits = self._prefill()
        if logits is None or self.ended is not None:
            return
        if self.order.guess:
            self.session.guesser.text.read(self._ids)
        guesses: list[int] = []
        rows = logits[None]  # logits (1 + guesses, vocab)
        while True:
            for i, row in enumerate(rows):
                token = self._sampled(row)
                if token in self.order.end_tokens:
                    self.ended = EndReason.STOP
                    return
                self._take(token, guessed=i > 0)
                yield token
                self.ended = self._limit()
                if self.ended is not None:
                    return
                if guesses[i : i + 1] != [token]:
                    break
            if self._n_drafted:
                self.session.guesser.draft.saw(self._n_drafted, i)
            guesses = self._guess()
            rows = self._step([token, *guesses])

    def _sampled(self, logits: F32, ids: Sequence[int] | None = None) -> int:
        """The token after those that are given out, or after `ids`."""
        order, ids = self.order, self._ids if ids is None else ids
        allowed = order.allowed(ids[len(order.prompt) :], len(logits)) if order.allowed is not None else None
        return sample(logits, order.params, len(ids), ids, allowed)

    def _take(self, token: int, *, guessed: bool) -> None:
        self._ids.append(token)
        self.n_guessed += guessed
        if self.order.guess:
            self.session.guesser.text.take(token)

    def _guess(self) -> list[int]:
        """What may come after the tokens that are given out; nothing where that does not pay."""
        self._n_drafted = 0
        if not self.order.guess:
            return []
        session, room = self.session, self.session.decoder.context - len(self._ids)
        most = min(room, self._left if self._left is not None else room) - 1
        forced = self.order.forced(self._ids[len(self.order.prompt) :]) if self.order.forced is not None else ()
        if session.draft is not None and not forced:
            drafted = session.guesser.plan_draft(min(most, session.draft.most))
            if drafted.tokens_per_s > session.guesser.plan(most).tokens_per_s:
                return self._draft(session.draft, drafted.n)
        return session.guesser.guess(most, forced)

    def _draft(self, draft: Drafts, n: int) -> list[int]:
        """What the draft model would say: it chooses as the model does, with the same random numbers."""
        n_new, self._drafted_at = len(self._ids) - self._drafted_at, len(self._ids)
        started = time.perf_counter()
        found = draft.propose(self._ids, n, self._sampled)
        if n_new <= MAX_BEHIND:
            self.session.guesser.draft.took((time.perf_counter() - started) / max(len(found), 1))
        self._n_drafted = len(found)
        return found

    def _step(self, ids: list[int]) -> F32:
        """Compute the last token and guesses after it; the logits float32 (len(ids), vocab) after each."""
        session = self.session
        session.truncate(len(self._ids) - 1)  # guesses that did not come
        started = time.perf_counter()
        rows = session.append_all(ids) if len(ids) > 1 else session.append(ids)[None]
        session.guesser.times.took(len(ids), time.perf_counter() - started)
        self.n_guesses += len(ids) - 1
        return rows

    def _prefill(self) -> F32 | None:
        """The logits after the prompt; None when it was cancelled before."""
        logits = None
        for logits in self.session.prefill(self.order.prompt, self.progress):  # noqa: B007  # the last counts
            if self._cancelled:
                self.ended = EndReason.CANCELLED
                return None
        if self._left == 0:
            self.ended = EndReason.LENGTH
        return logits

    def _limit(self) -> EndReason | None:
        if self._cancelled:
            return EndReason.CANCELLED
        if self._left == 0:
            return EndReason.LENGTH
        # The token just given out still needs a place in the cache before another can follow.
        if len(self._ids) >= self.session.decoder.context:
            return EndReason.CONTEXT
        return None

    @property
    def _left(self) -> int | None:
        """How many tokens may still come of those that were asked for; None: as many as the context holds."""
        most = self.order.max_tokens
        return None if most is None else max(most - (len(self._ids) - len(self.order.prompt)), 0)
