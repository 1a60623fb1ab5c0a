"""Guesses that do not depend on the machine: steps that took what a test says, and somebody who knows the future."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from swarm.cluster.guesses import StageGuesses
from swarm.guessing import StepTimes

FREE = dict.fromkeys((1, 2, 4, 8, 16), 1.0)  # a row more takes nothing: as much is guessed as is worth anything


def times_of(costs: Mapping[int, float]) -> StepTimes:
    """Steps of so many rows were seen to take so many seconds."""
    times = StepTimes()
    for n_rows, seconds in costs.items():
        for _ in range(3):
            times.took(n_rows, seconds)
    return times


class FixedTimes(StepTimes):
    """They take that for ever, whatever the machine says."""

    def __init__(self, costs: Mapping[int, float] = FREE) -> None:
        super().__init__()
        self._costs = dict(costs)

    @property
    def knows_one_row(self) -> bool:
        return True

    def knows(self, n_rows: int) -> bool:
        return True

    def of(self, n_rows: int) -> float:
        return self._costs[1 << (n_rows - 1).bit_length()]


class Clairvoyant(StageGuesses):
    """Guesses as many as may be, each right with such a chance. `future`: what comes after these ids."""

    def __init__(self, future: Callable[[Sequence[int]], Sequence[int]], chance: float, rng: Random) -> None:
        super().__init__()
        self._future, self._chance, self._rng = future, chance, rng
        self._ids: list[int] = []

    def read(self, ids: Sequence[int], times: StepTimes) -> None:
        super().read(ids, times)
        self._ids = list(ids)

    def came(self, tokens: Sequence[int], now: float, *, is_alone: bool) -> None:
        super().came(tokens, now, is_alone=is_alone)
        self._ids += tokens

    def next(self, most: int, forced: Sequence[int], end_ids: Sequence[int], now: float) -> tuple[int, ...]:
        n = max(min(most, self._rng.choice((0, 1, 3, 7, 15))), 0)
        coming = self._future(self._ids)[:n]
        return tuple(token if self._rng.random() < self._chance else token // 2 for token in coming)
