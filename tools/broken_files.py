"""Makes every kind of broken model file and prints the one line that Swarm says about it.

python tools/broken_files.py            # through the library
python tools/broken_files.py --command  # through `swarm show`, as a user sees it
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.helpers.broken_files import BROKEN, line_about


def line_of_library(path: Path) -> str:
    line = line_about(path)
    if not line:
        raise SystemExit(f"{path} was opened as if nothing were wrong with it")
    return line


def line_of_command(path: Path) -> str:
    command = [sys.executable, "-m", "swarm", "show", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = (result.stdout + result.stderr).strip().splitlines()
    if result.returncode == 0 or len(lines) != 1:
        raise SystemExit(f"{command} gave {result.returncode} and not one line:\n{result.stdout}{result.stderr}")
    return lines[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", action="store_true", help="through `swarm show`")
    say = line_of_command if parser.parse_args().command else line_of_library
    for broken in BROKEN:
        with tempfile.TemporaryDirectory() as directory:
            line = say(broken.make(Path(directory))).replace(f"{directory}/", "")
        print(f"{broken.kind:36} -> {line}")


if __name__ == "__main__":
    main()
