"""What README.md claims is read from it and compared with the code."""

from __future__ import annotations

import doctest
import re
import tomllib
from pathlib import Path

import pytest

import swarm
from swarm.cli.main import COMMANDS
from swarm.kernels.quants import QUANTS
from swarm.models import FAMILIES
from swarm.store.fetching import SMOLLM2

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(header: str) -> list[list[str]]:
    """The rows of the table whose first line is `header`."""
    lines = iter(README.splitlines())
    assert header in lines, f"README.md has no table {header}"
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def test_the_table_of_families_is_the_table_in_the_code() -> None:
    assert sorted(row[0] for row in table("| architecture | models |")) == sorted(FAMILIES)


def test_the_table_of_types_is_the_table_in_the_code() -> None:
    told = {name: tuple(map(float, bits)) for name, *bits in table("| type | bits in the file | bits in memory |")}
    sizes = {quant.name: (quant.block_bytes, quant.packed_block_bytes, quant.block_cols) for quant in QUANTS.values()}
    assert told == {name: (in_file * 8 / cols, packed * 8 / cols) for name, (in_file, packed, cols) in sizes.items()}


def test_the_table_of_commands_is_the_table_in_the_code() -> None:
    rows = table("| command | what it does |")
    assert {row[0].split()[1]: row[1] for row in rows} == COMMANDS


def test_every_file_that_is_linked_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_oldest_python_named_is_the_one_of_the_package() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Python {oldest} or newer" in README


def test_the_package_and_the_module_have_one_version() -> None:
    assert swarm.__version__ == PROJECT["version"]


def test_the_make_targets_named_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"(?:^|`)make (\w+)", README, re.M))
    assert {"chat", "test"} <= named <= targets


def test_the_python_example_does_what_it_shows(
    real_model: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_home / SMOLLM2.file_name).symlink_to(real_model)
    monkeypatch.setenv("SWARM_MODELS_DIR", str(own_home))
    example = re.search(r"```pycon\n(.*?)```", README, re.S)
    assert example is not None
    test = doctest.DocTestParser().get_doctest(example[1], {}, "README.md", "README.md", 0)
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert result.failed == 0, "".join(report)
    assert result.attempted > 5
