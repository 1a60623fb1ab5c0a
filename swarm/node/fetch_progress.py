"""How far the devices of an answer are with fetching their parts, as one line: percent, rate, time left. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from swarm.units import rate_text, time_text

WINDOW_S = 5.0  # over which a rate is told
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Fetching:
    """One device: the share of what it fetches that is there, and how much that is in all."""

    name: str
    share: float
    total_bytes: int


class FetchProgress:
    """Of one answer that waits; call `line` again and again."""

    def __init__(self) -> None:
        self._done: deque[tuple[float, float]] = deque()  # time, bytes there

    def line(self, fetching: Sequence[Fetching], now: float) -> str:
        """What a reader is told; "" when nobody fetches."""
        busy = [each for each in fetching if each.share < 1 and each.total_bytes]
        if not busy:
            self._done.clear()
            return ""
        done, total = sum(each.share * each.total_bytes for each in fetching), sum(e.total_bytes for e in fetching)
        rate = self._rate(done, now)
        parts = [f"{each.name} {each.share:.0%}" for each in sorted(busy, key=lambda each: each.share)[:MOST_NAMED]]
        more = f" and {len(busy) - MOST_NAMED} more" if len(busy) > MOST_NAMED else ""
        pace = f"; {rate_text(rate)}, {time_text((total - done) / rate)} left" if rate else ""
        return f"fetching the model: {', '.join(parts)}{more}{pace}"

    def _rate(self, done: float, now: float) -> float:
        """Bytes per second, all devices together; 0 until that can be told."""
        if self._done and done < self._done[-1][1]:  # another fetch has begun
            self._done.clear()
        self._done.append((now, done))
        while now - self._done[0][0] > WINDOW_S:
            self._done.popleft()
        then, before = self._done[0]
        return (done - before) / (now - then) if now - then >= 1.0 else 0.0
