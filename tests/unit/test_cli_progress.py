"""The progress bar, where there is no terminal to draw it on."""

from __future__ import annotations

import pytest

from swarm.cli.progress import ProgressBar


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
