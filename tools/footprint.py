#!/usr/bin/env python3
"""What takes the room of an installation, by package: PYTHON tools/footprint.py, with the Python of that environment.

Prints MiB on disk of each package that has more than half of one, and of what Python compiled of it.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections import Counter
from importlib import metadata
from pathlib import Path

MIB = 2**20
LEAST_BYTES = MIB // 2


def main() -> int:
    root = Path(sys.prefix)
    sizes, compiled = by_package()
    for name, n_bytes in (sizes + compiled).most_common():
        if n_bytes >= LEAST_BYTES:
            print(f"{n_bytes / MIB:6.1f} MiB  {name:24} {compiled[name] / MIB:5.1f} compiled")
    whole = sum(on_disk(path) for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"{whole / MIB:6.1f} MiB  all of {root}")
    return 0


def by_package() -> tuple[Counter[str], Counter[str]]:
    """Bytes of each package's files as they came, and of what Python made of them."""
    sizes, compiled = Counter[str](), Counter[str]()
    site = Path(sysconfig.get_path("platlib"))
    for package in metadata.distributions(path=[str(site)]):
        for file in package.files or ():
            path = Path(str(package.locate_file(file)))
            if not path.name.endswith(".pyc") and path.exists():
                sizes[package.name] += on_disk(path)
                compiled[package.name] += sum(map(on_disk, path.parent.glob(f"__pycache__/{path.stem}.*.pyc")))
    return sizes, compiled


def on_disk(path: Path) -> int:
    """Bytes of the disk's blocks."""
    return os.stat(path).st_blocks * 512


if __name__ == "__main__":
    sys.exit(main())
