"""What the first stage of a session guesses, from the ids that it has; the time of a pass over all stages counts.

A step takes guesses along only while this device has no other answer under way: other readers' tokens are certain, and
fill the rows of a step better.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm import limits
from swarm.guessing import Guesser, StepTimes
from swarm.wire.ids import ModelId, PeerId

Way = tuple[ModelId, int, PeerId, PeerId]  # of a token: a model, the epoch and the author of its placement, the end


class StageGuesses:
    """Of one session, on the first stage."""

    def __init__(self) -> None:
        self._guesser = Guesser()
        self._asked_at: float | None = None  # when the step began that the token comes of
        self._n_rows = 0

    def read(self, ids: Sequence[int], times: StepTimes) -> None:
        """These are the session's ids, which no token is sampled after yet; `times` are those of its way."""
        self._guesser.text.read(ids)
        self._guesser.times = times
        self._asked_at = None

    def came(self, tokens: Sequence[int], now: float, *, is_alone: bool) -> None:
        """The last stage sampled these. `is_alone`: the step shared the stages with none of another session."""
        if self._asked_at is not None and is_alone:
            self._guesser.times.took(self._n_rows, now - self._asked_at)
        self._asked_at = None
        for token in tokens:
            self._guesser.text.take(token)

    def next(self, most: int, forced: Sequence[int], end_ids: Sequence[int], now: float) -> tuple[int, ...]:
        """What goes along with the next step, at most so many; it begins now. `forced`: what a form asks for."""
        guesses = self._guesser.guess(min(most, limits.MAX_GUESSES), forced)
        first_end = next((i for i, token in enumerate(guesses) if token in end_ids), len(guesses))
        self._asked_at, self._n_rows = now, 1 + first_end
        return tuple(guesses[:first_end])


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
