"""A rate limit, with time as an argument."""

from __future__ import annotations

import pytest

from swarm.store.pacing import BURST_S, RateLimit


def sent_in(limit: RateLimit, start: float, seconds: float, piece: int = 1000) -> int:
    """Bytes that go in some seconds when there is always something to send."""
    sent = 0
    for millisecond in range(int(seconds * 1000)):
        if limit.may_go(start + millisecond / 1000):
            limit.take(piece)
            sent += piece
    return sent


def test_without_a_limit_everything_goes() -> None:
    limit = RateLimit()
    limit.take(10**12)
    assert limit.may_go(0.0) and limit.wait_s(0.0) is None


def test_no_more_goes_than_the_rate_after_the_first_burst() -> None:
    limit = RateLimit(100_000)
    assert sent_in(limit, 0.0, 10.0) == pytest.approx(1_000_000, rel=0.02)


def test_a_pause_saves_up_a_short_burst_and_no_more() -> None:
    limit = RateLimit(100_000)
    sent_in(limit, 0.0, 1.0)
    assert sent_in(limit, 1000.0, 1.0) == pytest.approx(100_000 * (1 + BURST_S), rel=0.03)


def test_what_is_owed_tells_how_long_to_wait() -> None:
    limit = RateLimit(1000)
    limit.may_go(0.0)
    limit.take(500)
    assert not limit.may_go(0.0) and limit.wait_s(0.0) == pytest.approx(0.5)
    assert limit.may_go(0.5) and limit.wait_s(0.5) == 0.0


def test_a_rate_of_nothing_waits_for_another_rate() -> None:
    limit = RateLimit(0.0)
    limit.take(1)
    assert not limit.may_go(10.0) and limit.wait_s(10.0) is None
    limit.set_rate(None, 10.0)
    assert limit.may_go(10.0)


def test_a_new_rate_keeps_what_is_owed_and_gives_nothing() -> None:
    limit = RateLimit(1000)
    limit.take(1000)
    limit.set_rate(10_000, 0.0)
    assert limit.wait_s(0.0) == pytest.approx(0.1)
