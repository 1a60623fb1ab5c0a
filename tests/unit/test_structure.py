"""The order of the house, read from the source. Lists here may only shrink: take out what is mended, add nothing."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tools import structure

ROOT = Path(__file__).parents[2]

CIRCLES: list[list[str]] = []
TWINS: dict[str, int] = {}
UNTESTED = {
    "swarm.__main__",
    "swarm.cli.chat",
    "swarm.cli.finding",
    "swarm.cli.forget",
    "swarm.cli.invite",
    "swarm.cli.join",
    "swarm.cli.leave",
    "swarm.cli.plan",
    "swarm.cli.rekey",
    "swarm.kernels.reference_matmul",
    "swarm.limits",
    "swarm.net.events",
    "swarm.store.gguf_header",
    "swarm.store.gguf_metadata",
    "swarm.text.bpe",
    "swarm.text.guard",
    "swarm.text.marks",
    "swarm.text.messages",
    "swarm.text.pretokenizers",
    "swarm.text.spm",
    "swarm.text.stream",
    "swarm.text.vocab",
}
SLEEPS = {"test_api_connection.py": 3}  # clients that are slow for a server whose timers are real
UNDECLARED: set[str] = set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    """What only the type checker sees counts: a module is understood with what it imports, or not at all."""
    assert structure.circles(structure.import_graph(ROOT)) == CIRCLES


def test_a_class_name_stands_for_one_class() -> None:
    found = structure.twins(ROOT)
    assert {name: len(modules) for name, modules in found.items()} == TWINS, found


def test_a_module_has_a_test_file_of_its_name() -> None:
    found = set(structure.untested(ROOT))
    assert not found - UNTESTED, "write tests/unit/test_<package>_<module>.py"
    assert not UNTESTED - found, "these have one now: take them out of the list"


def test_unit_tests_turn_the_clock_and_do_not_wait() -> None:
    assert structure.real_sleeps(ROOT) == SLEEPS


def test_what_is_imported_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {_normal(re.split(r"[^\w.-]", each)[0]) for each in declared}
    packages = packages_distributions()
    imported = {name: set(map(_normal, packages.get(name, [name]))) for name in structure.third_party(ROOT)}
    assert {name for name, providers in imported.items() if not names & providers} == UNDECLARED
    assert not names - set().union(*imported.values()), "nobody imports these"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
