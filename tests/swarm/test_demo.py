"""`make demo` does what it says: a device is killed in the middle, the text stays the same, nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.nodes import ROOT


def test_the_demo_survives_its_own_kill_and_cleans_up(tmp_path: Path, real_model: Path) -> None:
    env = {**os.environ, "SWARM_MODEL": str(real_model), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo.py")],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9" in done.stdout and "is gone; going on with" in done.stdout
    assert "the text is the same, word for word" in done.stdout
    assert not list(tmp_path.iterdir())
