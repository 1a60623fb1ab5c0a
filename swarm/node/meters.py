"""How busy this device is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from swarm.answers import Stats

RATE_WINDOW_S = 2.0


class Meters:
    """How busy this device was, and how many tokens passed through it, in the last seconds."""

    def __init__(self) -> None:
        self.busy = 0.0
        self.tokens_per_s = 0.0
        self._samples: deque[tuple[float, float, int]] = deque()  # time, seconds computed, positions

    def tick(self, busy_s: float, positions: int, now: float) -> None:
        """Take the worker's counters."""
        self._samples.append((now, busy_s, positions))
        while now - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        then, busy_then, positions_then = self._samples[0]
        elapsed = max(now - then, 1e-3)
        self.busy = min(max((busy_s - busy_then) / elapsed, 0.0), 1.0)
        self.tokens_per_s = (positions - positions_then) / elapsed


@dataclass(slots=True)
class Totals:
    """What all answers that were given here took together, since the start."""

    answers: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    guessed_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    def add(self, stats: Stats, *, failed: bool) -> None:
        """One more answer has ended."""
        self.answers += 1
        self.failed += failed
        self.prompt_tokens += stats.prompt_tokens
        self.cached_tokens += stats.cached_tokens
        self.generated_tokens += stats.generated_tokens
        self.guessed_tokens += stats.guessed_tokens
        self.prefill_s += stats.prefill_s
        self.decode_s += stats.decode_s
