"""The progress bar, where there is no terminal to draw it on."""

from __future__ import annotations

import pytest

from swarm.cli.progress import ProgressBar, Rate


def test_in_a_log_each_step_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as progress:
        for done in range(0, 1_000_001, 100_000):
            progress("Downloading", done, 1_000_000)
        progress("Waiting for another swarm", 0, 0)
        progress("Verifying", 1, 2**30)
    assert capsys.readouterr().err.splitlines() == [
        "swarm: downloading 977 KiB ...",
        "swarm: waiting for another swarm ...",
        "swarm: verifying 1 GiB ...",
    ]


def test_quick_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar():
        pass
    assert capsys.readouterr() == ("", "")


def test_in_a_log_a_long_step_tells_now_and_then_how_fast_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with ProgressBar(clock=lambda: now) as progress:
        for second in range(40):
            now = float(second)
            progress("Downloading", 10_000_000 * second, 6_000_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "swarm: downloading 5.59 GiB ...",
        "swarm: downloading 0.14/5.59 GiB, 10 MB/s, 10 min left",
        "swarm: downloading 0.28/5.59 GiB, 10 MB/s, 10 min left",
    ]


def test_what_was_kept_from_before_does_not_count_as_speed() -> None:
    rate = Rate()
    rate.count(5_000_000, 0.0)
    assert rate.text(10_000_000) == ""
    rate.count(6_000_000, 1.0)
    assert rate.text(10_000_000) == ", 1 MB/s, 4 s left"
