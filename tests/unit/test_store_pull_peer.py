"""What one peer delivers: how much is asked of it ahead, and when patience with it ends."""

from __future__ import annotations

import numpy as np
import pytest

from swarm import limits
from swarm.store.pull_peer import AskedChunk, PullPeer
from swarm.wire.ids import PeerId

A = PeerId("a" * 32)
MIB = 1024 * 1024


def peer_that_was_asked(n: int, now: float = 0.0) -> PullPeer:
    peer = PullPeer(np.ones(n, np.bool_))
    for number in range(n):
        peer.asked(number, AskedChunk(A, number, MIB, now))
    return peer


def test_the_rate_is_what_came_lately_and_widens_the_window() -> None:
    peer = peer_that_was_asked(100)
    assert peer.window_bytes == limits.PULL_WINDOW_MIN_BYTES
    for hundredth in range(1, 101):
        peer.count(MIB, hundredth / 100)
    assert peer.bytes_per_s == pytest.approx(100 * MIB, rel=0.1)
    assert peer.window_bytes == pytest.approx(25 * MIB, rel=0.1)
    peer.count(10_000 * MIB, 1.2)
    assert peer.window_bytes == limits.PULL_WINDOW_MAX_BYTES


def test_a_full_window_or_many_small_requests_are_enough() -> None:
    assert peer_that_was_asked(1).is_ready(0.0)
    assert not peer_that_was_asked(2).is_ready(0.0)
    peer = PullPeer(np.ones(100, np.bool_))
    for number in range(limits.MAX_PULL_REQUESTS):
        assert peer.is_ready(0.0)
        peer.asked(number, AskedChunk(A, number, 100, 0.0))
    assert not peer.is_ready(0.0)
    peer.answered(0)
    assert peer.is_ready(0.0) and peer.asked_bytes == 100 * (limits.MAX_PULL_REQUESTS - 1)


def test_patience_starts_anew_with_every_word_and_is_longer_on_a_slow_link() -> None:
    peer = peer_that_was_asked(2)
    assert peer.deadline() == limits.PULL_PATIENCE_S
    peer.heard(2.0)
    assert peer.deadline() == 2.0 + limits.PULL_PATIENCE_S
    peer.bytes_per_s = MIB  # eight chunks of time for one
    assert peer.deadline() == 2.0 + 8.0
    peer.bytes_per_s = 1.0
    assert peer.deadline() == 2.0 + limits.PULL_PATIENCE_MAX_S


def test_whoever_does_not_deliver_is_left_alone_longer_each_time_until_a_word_comes() -> None:
    peer = peer_that_was_asked(1)
    pauses = []
    for _ in range(8):
        peer.give_up(100.0)
        pauses.append(peer.resume_at - 100.0)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert not peer.is_ready(129.9) and peer.is_ready(130.0)
    peer.heard(140.0)
    peer.give_up(150.0)
    assert peer.resume_at == 151.0
