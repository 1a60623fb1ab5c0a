"""A rate limit without a clock: how fetching and serving leave the network to an answer in progress."""

from __future__ import annotations

BURST_S = 0.1  # of the rate that may be used at once after a pause


class RateLimit:
    """Tokens in bytes, filled at `bytes_per_s`; None means no limit, 0 means nothing at all."""

    def __init__(self, bytes_per_s: float | None = None) -> None:
        self._bytes_per_s = bytes_per_s
        self._tokens = 0.0
        self._filled_at = 0.0

    def set_rate(self, bytes_per_s: float | None, now: float) -> None:
        self._fill(now)
        self._bytes_per_s = bytes_per_s
        self._tokens = min(self._tokens, 0.0)

    def may_go(self, now: float) -> bool:
        """True while nothing is owed; what then goes may take the balance below zero."""
        self._fill(now)
        return self._bytes_per_s is None or (self._bytes_per_s > 0 and self._tokens >= 0)

    def take(self, n_bytes: int) -> None:
        if self._bytes_per_s is not None:
            self._tokens -= n_bytes

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next may go; None when only a change of the rate helps, or nothing is limited."""
        if self._bytes_per_s is None:
            return None
        if self.may_go(now):
            return 0.0
        return -self._tokens / self._bytes_per_s if self._bytes_per_s else None

    def _fill(self, now: float) -> None:
        elapsed, self._filled_at = max(0.0, now - self._filled_at), now
        if self._bytes_per_s is not None:
            self._tokens = min(self._tokens + elapsed * self._bytes_per_s, BURST_S * self._bytes_per_s)
