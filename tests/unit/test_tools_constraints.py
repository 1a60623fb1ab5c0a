"""constraints.txt: a version and hashes of everything that `make` installs."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENTRY = re.compile(r"^(\S+)==(\S+)(?: ;[^\\]*)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def pinned() -> dict[str, str]:
    return {canonicalize_name(match[1]): match[2] for match in ENTRY.finditer((ROOT / "constraints.txt").read_text())}


def test_everything_that_is_installed_has_a_version_that_is_allowed_and_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["test"]]
    found = pinned()
    for text in [*wanted, *project["build-system"]["requires"]]:
        requirement = Requirement(text)
        version = found.get(canonicalize_name(requirement.name))
        assert version is not None, f"{text} is not in constraints.txt: run tools/constraints.py"
        assert requirement.specifier.contains(version), f"{text}, and constraints.txt has {version}"


def test_there_is_nothing_else_in_the_file() -> None:
    text = (ROOT / "constraints.txt").read_text()
    rest = ENTRY.sub("", text)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []


PIP = """#!/bin/sh
echo "$@" >>calls
case "$*" in
*--version*) echo "Python 3.99" ;;
*--require-hashes*) [ "$FAILS" = 0 ] || { echo "ERROR: no matching distribution found for numpy" >&2; exit 1; } ;;
esac
"""


def installs(tmp_path: Path, *, fails: bool) -> tuple[list[str], str]:
    """What tools/install asks pip for, and what it says."""
    for name in ("tools/install", "tools/waiting"):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
        copy.chmod(0o755)
    python = tmp_path / "python"
    python.write_text(PIP)
    python.chmod(0o755)
    done = subprocess.run(
        ["tools/install", "./python"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "FAILS": str(int(fails))},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [line for line in (tmp_path / "calls").read_text().splitlines() if "install" in line], done.stderr


def test_make_installs_by_hash_and_then_only_the_project_itself(tmp_path: Path) -> None:
    (libraries, project), said = installs(tmp_path, fails=False)
    assert "--require-hashes --only-binary :all: -r constraints.txt" in libraries
    assert "--no-deps --no-build-isolation --editable ." in project and said == ""


def test_where_the_versions_do_not_fit_a_line_says_so_and_others_are_taken(tmp_path: Path) -> None:
    (_, fallback), said = installs(tmp_path, fails=True)
    assert "--editable .[test]" in fallback
    assert "no matching distribution found for numpy" in said
    assert "not all of constraints.txt is to be had for Python 3.99 on" in said
