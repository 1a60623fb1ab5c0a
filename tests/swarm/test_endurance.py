"""Many readers, many requests: none fails, and what they took is given back. The long form is the benchmark itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench" / "endurance.py"


def test_memory_stays_flat_under_many_readers() -> None:
    command = [sys.executable, str(BENCH), "--requests", "640", "--readers", "64", "--growth", "3", "--health", "0"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert seen["failed"] == 0 and seen["requests"] == 640
