"""What the first stage of a session guesses, from the ids that it has; the time of a pass over all stages counts.

Where the entry node has a small model that drafts, it guesses instead, and sends every step itself.

A step takes guesses along only while this device has no other answer under way: other readers' tokens are certain, and
fill the rows of a step better.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm import limits
from swarm.guessing import Guesser, StepTimes
from swarm.wire.ids import ModelId, PeerId

MAX_BEHIND = 16  # ids that a draft had not seen: then what it took is no measure of a token
Way = tuple[ModelId, int, PeerId, PeerId]  # of a token: a model, the epoch and the author of its placement, the end


class StageGuesses:
    """Of one session, on the first stage."""

    def __init__(self) -> None:
        self.asks = False  # the step that `next` was for: the model's own block is to say what may come after it
        self._guesser = Guesser()
        self._asked_at: float | None = None  # when the step began that the token comes of
        self._n_rows = 0
        self._own: Sequence[int] = ()  # what the model's own block said last, for the tokens that are to come
        self._own_before: Sequence[int] = ()  # and before that, for those that have come
        self._own_s = 0.0  # that saying it took

    def read(self, ids: Sequence[int], times: StepTimes) -> None:
        """These are the session's ids, which no token is sampled after yet; `times` are those of its way."""
        self._guesser.text.read(ids)
        self._guesser.times = times
        self._asked_at = None
        self._own, self._own_before = (), ()

    def said(self, own: Sequence[int], seconds: float) -> None:
        """The model's own block says what comes after the tokens that `came` is told of next; that took so long."""
        self._own_before, self._own, self._own_s = self._own, own[:1], seconds if own else 0.0

    def came(self, tokens: Sequence[int], now: float, *, is_alone: bool) -> None:
        """The last stage sampled these. `is_alone`: the step shared the stages with none of another session."""
        if self._asked_at is not None and is_alone:
            self._guesser.times.took(self._n_rows, max(now - self._asked_at - self._own_s, 0.0))
        self._asked_at = None
        if self._own_before:  # whether it went along or not
            self._guesser.draft.saw(1, int(self._own_before[0] == tokens[0]))
        if self._own:
            self._guesser.draft.took(self._own_s)
        for token in tokens:
            self._guesser.text.take(token)

    def next(self, most: int, forced: Sequence[int], end_ids: Sequence[int], now: float) -> tuple[int, ...]:
        """What goes along with the next step, at most so many; it begins now. `forced`: what a form asks for."""
        most = min(most, limits.MAX_GUESSES)
        own = self._own if most and not forced and self._guesser.prefers(self._own) else ()
        guesses = list(own) or self._guesser.guess(most, forced)
        self.asks = self._guesser.plan_draft(min(most, 1)).tokens_per_s > self._guesser.plan(most).tokens_per_s
        first_end = next((i for i, token in enumerate(guesses) if token in end_ids), len(guesses))
        self._asked_at, self._n_rows = now, 1 + first_end
        return tuple(guesses[:first_end])


class EntryGuesses:
    """Of one session, on an entry node with a draft: the text's own and the draft's, whichever pay more."""

    def __init__(self) -> None:
        self.is_read = False  # the draft has the session's ids, or nearly; until then nobody waits for it
        self._guesser = Guesser()
        self._asked_at: float | None = None  # when the step began that the token comes of
        self._n_rows = 0
        self._n_drafted = 0  # of them
        self._n_ids = 0  # as the draft had them last
        self._asked_draft_at = 0.0

    def read(self, ids: Sequence[int], times: StepTimes) -> None:
        """These are the session's ids, which no token is sampled after yet; `times` are those of its way."""
        self._guesser.text.read(ids)
        self._guesser.times = times
        self._asked_at, self._n_drafted = None, 0
        self.is_read = False

    def came(self, tokens: Sequence[int], now: float, *, is_alone: bool) -> None:
        """The last stage sampled these after the step that was sent last."""
        if self._asked_at is not None and is_alone:
            self._guesser.times.took(self._n_rows, now - self._asked_at)
        if self._n_drafted:
            self._guesser.draft.saw(self._n_drafted, min(len(tokens) - 1, self._n_drafted))
        self._asked_at, self._n_drafted = None, 0
        for token in tokens:
            self._guesser.text.take(token)

    def n_wanted(self, most: int, n_ids: int, now: float) -> int:
        """How many tokens to ask the draft for, after so many ids; 0 where it does not pay."""
        if not self.is_read:
            return 0
        drafted = self._guesser.plan_draft(min(most, limits.MAX_GUESSES))
        if drafted.tokens_per_s <= self._guesser.plan(most).tokens_per_s:
            return 0
        self._asked_draft_at = now
        return drafted.n

    def own(self, most: int) -> list[int]:
        """What the text itself tells, as far as that pays."""
        return self._guesser.guess(min(most, limits.MAX_GUESSES))

    def drafted(self, n: int, n_ids: int, now: float) -> None:
        """The draft answered with n tokens after so many ids; none: it can say nothing any more."""
        if n and n_ids - self._n_ids <= MAX_BEHIND:
            self._guesser.draft.took((now - self._asked_draft_at) / n)
        self._n_ids, self.is_read = n_ids, n > 0

    def has_read(self, n_ids: int) -> None:
        """The draft has read the ids that there were at the beginning."""
        self._n_ids, self.is_read = n_ids, True

    def sent(self, n_guesses: int, now: float, *, of_draft: bool) -> None:
        """A step begins, with so many guesses."""
        self._asked_at, self._n_rows, self._n_drafted = now, 1 + n_guesses, n_guesses if of_draft else 0


class WayTimes:
    """What steps took on the ways that tokens of this device's sessions go."""

    def __init__(self) -> None:
        self._times: dict[Way, StepTimes] = {}

    def of(self, way: Way) -> StepTimes:
        """Of one way; the oldest ones are forgotten."""
        if way not in self._times:
            while len(self._times) >= limits.ROW_COST_STAGES:
                del self._times[next(iter(self._times))]
            self._times[way] = StepTimes()
        return self._times[way]
