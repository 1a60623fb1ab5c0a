"""What a reader is told while devices fetch their parts."""

from __future__ import annotations

from swarm.node.fetch_progress import Fetching, FetchProgress


def test_percent_rate_and_time_left_are_told() -> None:
    progress = FetchProgress()
    lines = [
        progress.line([Fetching("attic", 0.5 + 0.01 * t, 10**9), Fetching("kitchen", 1.0, 10**8)], float(t))
        for t in range(4)
    ]
    assert lines[0] == "fetching the model: attic 50%"
    assert lines[3] == "fetching the model: attic 53%; 10 MB/s, 47 s left"


def test_nobody_who_fetches_is_no_line() -> None:
    progress = FetchProgress()
    assert progress.line([], 0.0) == progress.line([Fetching("attic", 1.0, 5), Fetching("b", 0.0, 0)], 1.0) == ""


def test_the_slowest_are_named() -> None:
    line = FetchProgress().line([Fetching(f"d{i}", i / 10, 100) for i in range(5)], 0.0)
    assert line == "fetching the model: d0 0%, d1 10%, d2 20% and 2 more"


def test_a_fetch_that_stands_still_has_no_end() -> None:
    progress = FetchProgress()
    assert "left" not in [progress.line([Fetching("a", 0.5, 100)], float(t)) for t in range(9)][-1]


def test_a_new_fetch_counts_from_its_own_beginning() -> None:
    progress = FetchProgress()
    progress.line([Fetching("a", 0.9, 10**9)], 0.0)
    progress.line([Fetching("a", 0.1, 10**9)], 3.0)
    assert "10 MB/s" in progress.line([Fetching("a", 0.11, 10**9)], 4.0)
