#!/usr/bin/env python3
"""Writes constraints.txt: the version and the hashes of every library that `make` installs.

    tools/constraints.py             versions as they are in this environment, where the tests ran with them
    tools/constraints.py --newest    the newest that pyproject.toml allows

Needs uv (pip install uv). Hashes are of every file of a version, so that one list fits each Python and processor; that
there are wheels for PYTHONS on x86-64 and ARM is looked at, and so nothing of a library is run to install it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "constraints.txt"
BUILD = "setuptools>=77\ncython>=3.1\n"  # what pyproject.toml's build-system asks for
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36")  # Debian 12 and Raspberry Pi OS of the same year
HEAD = "# Made by tools/constraints.py. `make` installs these, and nothing whose hash is not here.\n"


def main() -> int:
    """Parse the command line and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--newest", action="store_true")
    newest = parser.parse_args().newest
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        print("there is no uv here: pip install uv", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        build, here, made = (Path(folder) / name for name in ("build.in", "here.txt", "made.txt"))
        build.write_text(BUILD)
        here.write_text("" if newest else installed())
        plain = ["--no-header", "--no-annotate", "--no-emit-index-url", "-q", "-o", str(made)]
        asked = ["pyproject.toml", str(build), "--extra", "test", "--constraint", str(here)]
        pinned = ["--universal", "--generate-hashes", "--python-version", PYTHONS[0]]
        subprocess.run([uv, "pip", "compile", *asked, *pinned, *plain], cwd=ROOT, check=True)
        TARGET.write_text(HEAD + made.read_text())
        for python in PYTHONS:
            for platform in PLATFORMS:
                wheels = ["--python-version", python, "--python-platform", platform, "--only-binary", ":all:"]
                subprocess.run([uv, "pip", "compile", str(TARGET), *wheels, *plain], cwd=ROOT, check=True)
                print(f"wheels of all of it for Python {python} on {platform}")
    print(f"{TARGET.name}: {TARGET.read_text().count('==')} libraries")
    return 0


def installed() -> str:
    """What this environment has, one requirement a line."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable"], capture_output=True, text=True, check=True
    )
    return "".join(f"{line}\n" for line in listed.stdout.splitlines() if "==" in line)


if __name__ == "__main__":
    sys.exit(main())
