"""What one peer delivers of a model: how much to ask of it ahead, and when to lose patience."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from swarm import limits
from swarm.wire.ids import PeerId

COUNTED_S = 0.1  # a rate is measured over so long at least: chunks come in bursts


@dataclass(slots=True)
class AskedChunk:
    """A chunk that was asked of a peer."""

    peer: PeerId
    chunk: int
    n_bytes: int
    asked_at: float


@dataclass(slots=True)
class PullPeer:
    """What a peer has, what is asked of it, and how fast it answered lately."""

    have: npt.NDArray[np.bool_]
    requests: dict[int, AskedChunk] = field(default_factory=dict)  # in the order of asking
    asked_bytes: int = 0
    run: deque[int] = field(default_factory=deque)  # what to ask next
    bytes_per_s: float = 0.0
    heard_at: float = 0.0
    counted_at: float = 0.0
    counted_bytes: int = 0
    n_failures: int = 0
    resume_at: float = 0.0
    asked_have_at: float = -1e9

    @property
    def window_bytes(self) -> int:
        """How much to ask ahead."""
        wanted = int(self.bytes_per_s * limits.PULL_WINDOW_S)
        return min(max(wanted, limits.PULL_WINDOW_MIN_BYTES), limits.PULL_WINDOW_MAX_BYTES)

    def is_ready(self, now: float) -> bool:
        """True when more may be asked of it now."""
        in_window = self.asked_bytes < self.window_bytes and len(self.requests) < limits.MAX_PULL_REQUESTS
        return in_window and now >= self.resume_at

    def asked(self, number: int, request: AskedChunk) -> None:
        """A chunk was asked of it."""
        if not self.requests:
            self.heard_at = self.counted_at = request.asked_at
            self.counted_bytes = 0
        self.requests[number] = request
        self.asked_bytes += request.n_bytes

    def answered(self, number: int) -> None:
        """A request is over, one way or another."""
        self.asked_bytes -= self.requests.pop(number).n_bytes

    def heard(self, now: float) -> None:
        """It answered, whatever the answer: it is well."""
        self.heard_at, self.n_failures = now, 0

    def count(self, n_bytes: int, now: float) -> None:
        """Bytes came: update the rate."""
        self.counted_bytes += n_bytes
        elapsed = now - self.counted_at
        if elapsed >= COUNTED_S:
            rate = self.counted_bytes / elapsed
            self.bytes_per_s = rate if self.bytes_per_s == 0 else 0.5 * (self.bytes_per_s + rate)
            self.counted_at, self.counted_bytes = now, 0

    def deadline(self) -> float:
        """When to lose patience: some chunk of the oldest requests should have come by then."""
        oldest = next(iter(self.requests.values()))
        expected_s = 8 * oldest.n_bytes / self.bytes_per_s if self.bytes_per_s else 0.0
        patience_s = min(max(limits.PULL_PATIENCE_S * 2.0**self.n_failures, expected_s), limits.PULL_PATIENCE_MAX_S)
        return max(oldest.asked_at, self.heard_at) + patience_s

    def give_up(self, now: float) -> None:
        """It delivered nothing for too long: leave it alone for a while, longer each time."""
        self.n_failures += 1
        self.resume_at = now + min(2.0 ** (self.n_failures - 1), limits.PULL_BACKOFF_MAX_S)
        self.bytes_per_s = 0.0
        self.run.clear()
