"""Every benchmark starts when it is run as the documents say, and says what it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tools/bench").glob("*.py"))
SCRIPTS = [path for path in FILES if "__main__" in path.read_text()]  # the others are what these share


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_benchmark_run_from_anywhere_answers_help(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(script), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "tools/bench/" in done.stdout or "usage:" in done.stdout


def test_no_benchmark_hides_a_package_of_the_project() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert not packages & {path.stem for path in FILES}
