"""Whatever Swarm imports is declared: an installation has no other packages."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in PROJECT["dependencies"]}

INSTALLED = packages_distributions()  # what provides which package


def imported(source: str) -> set[str]:
    """The roots of the packages of others that a module imports, wherever in it the import stands."""
    roots = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            roots.add(node.module.split(".")[0])
    return roots - sys.stdlib_module_names - {"swarm"}


def distributions_of(root: str) -> set[str]:
    return {name.lower().replace("_", "-") for name in INSTALLED.get(root, [root])}


@pytest.mark.parametrize("path", sorted((ROOT / "swarm").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_package_that_a_module_imports_is_declared(path: Path) -> None:
    undeclared = {root for root in imported(path.read_text("utf-8")) if not distributions_of(root) & DECLARED}
    assert not undeclared, f"declare {sorted(undeclared)} in pyproject.toml, or do without"


def test_every_declared_package_is_imported() -> None:
    sources = [*(ROOT / "swarm").rglob("*.py"), *(ROOT / "csrc").glob("*.py*")]
    text = "\n".join(path.read_text("utf-8") for path in sources)
    roots = {root for root in re.findall(r"^\s*(?:from|import|cimport) (\w+)", text, re.M)}
    used = set().union(*(distributions_of(root) for root in roots))
    assert used >= DECLARED, f"nobody imports {sorted(DECLARED - used)}"


def test_imports_in_functions_are_seen_too() -> None:
    assert imported("import os\ndef f():\n    from tqdm.auto import tqdm\n    import a.b\n") == {"tqdm", "a"}
