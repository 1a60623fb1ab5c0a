"""Makes every kind of broken model file and prints the one line that Swarm says about it.

python tools/broken_files.py            # through swarm.store
python tools/broken_files.py --command  # through `swarm show`, as a user sees it
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from swarm.errors import SwarmError
from swarm.store.gguf import open_gguf
from tests.helpers.broken_files import BROKEN


def line_of_store(path: Path) -> str:
    try:
        open_gguf(path).close()
    except SwarmError as error:
        return str(error)
    raise SystemExit(f"{path} was opened as if nothing were wrong with it")


def line_of_command(path: Path) -> str:
    command = [sys.executable, "-m", "swarm.cli.main", "show", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = (result.stdout + result.stderr).strip().splitlines()
    if result.returncode == 0 or len(lines) != 1:
        raise SystemExit(f"{command} gave {result.returncode} and not one line:\n{result.stdout}{result.stderr}")
    return lines[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", action="store_true", help="through `swarm show`")
    say = line_of_command if parser.parse_args().command else line_of_store
    for broken in BROKEN:
        with tempfile.TemporaryDirectory() as directory:
            line = say(broken.make(Path(directory))).replace(f"{directory}/", "")
        print(f"{broken.kind:36} -> {line}")


if __name__ == "__main__":
    main()
