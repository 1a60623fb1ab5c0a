"""A rehearsal: two members that exchange sums and see how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from swarm.errors import StageLost
from swarm.net import rehearsal
from swarm.net.rehearsal import KEPT, MANY, ROUNDS, rehearse
from tests.helpers.stages import links, together


class SlowStage:
    """A stage whose exchanges take `wait_s`, and a second for `rate` bytes; every tenth is disturbed."""

    me = 0

    def __init__(self, wait_s: float, rate: float, burst_bytes: int = 0) -> None:
        self.wait_s, self.rate, self.burst_bytes = wait_s, rate, burst_bytes  # these pass at once
        self.now = 0.0
        self.sent = self.n = self.sequence = 0

    def reserve(self, n_values: int, n_bytes: int) -> None:
        """There is room."""

    def begin(self, sequence: int) -> None:
        assert sequence > self.sequence
        self.sequence = sequence

    def exchange(self, near: np.ndarray, far: np.ndarray, wide: np.ndarray) -> bool:
        assert near.shape[1] <= MANY and not far.any() and not wide.any()
        n_bytes = 2 * near.size
        self.n += 1
        self.sent += n_bytes
        self.now += self.wait_s + max(n_bytes - self.burst_bytes, 0) / self.rate + (1.0 if self.n % 11 == 0 else 0.0)
        return False

    def counters(self) -> Sequence[float]:
        return self.n, 0.0, self.sent, 0


def test_what_is_waited_and_how_fast_bytes_pass_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SlowStage(0.0005, 12.5e6)
    monkeypatch.setattr(time, "perf_counter", lambda: stage.now)
    wait_s, rate = rehearse(stage)  # type: ignore[arg-type]
    assert wait_s == pytest.approx(0.0005) and rate == pytest.approx(12.5e6), "what was disturbed does not count"
    assert stage.n == sum(rounds for *_, rounds in ROUNDS) and 0 < KEPT < 1


def test_a_network_that_lets_some_bytes_pass_at_once_is_no_faster_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = SlowStage(0.0003, 12.5e6, burst_bytes=20_000)
    monkeypatch.setattr(time, "perf_counter", lambda: stage.now)
    wait_s, rate = rehearse(stage)  # type: ignore[arg-type]
    assert wait_s == pytest.approx(0.0003, rel=0.2) and rate == pytest.approx(12.5e6, rel=0.3)


def test_two_members_see_about_the_same() -> None:
    with links(2) as both:
        found = together(lambda j: rehearse(both[j].native), 2)
    for seen in found:
        assert isinstance(seen, tuple), seen
        assert 0 < seen[0] < 0.5 and seen[1] > 1e5


def test_who_is_left_alone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with links(2) as both:
        both[1].close()
        with pytest.raises(StageLost):
            rehearse(both[0].native)


def test_both_ends_know_the_sizes() -> None:
    assert (rehearsal.ROUNDS, rehearsal.BITS) == (((1, 256, 96), (15, 4096, 12)), 14), "as PROTOCOL.md says"
