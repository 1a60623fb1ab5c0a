"""ARCHITECTURE.md says what may see what; the source itself is read to see that it is so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "swarm"
LAYERS = (
    {
        "answers",
        "architectures",
        "errors",
        "guessing",
        "limits",
        "config",
        "cores",
        "value",
        "digests",
        "files",
        "units",
        "parts",
        "plain",
    },
    {"kernels", "wire"},
    {"models", "store", "text", "cluster"},
    {"convert", "engine", "net"},
    {"local", "node"},
    {"api"},
    {"cli"},
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
FRONT = {"__init__", "__main__"}  # the package's own API and `python -m swarm`: above everything
PURE = {"models", "wire", "cluster"}
PURE_IN_NET = {
    "access",
    "budget",
    "hearsay",
    "dial",
    "events",
    "gossip",
    "link_effects",
    "link_policy",
    "links",
    "warnings",
}
IMPURE_MODULES = {"asyncio", "os", "socket", "subprocess", "threading", "time", "zeroconf", "zmq"}

SETS_ENVIRONMENT = {"kernels/__init__.py"}  # tells libgomp how long to spin, before libgomp is loaded

MODULES = sorted(ROOT.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(tree: ast.AST, path: Path) -> set[str]:
    """Dotted names that a module imports, wherever in it the import stands."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ("swarm", *path.relative_to(ROOT).parent.parts)
                base = ".".join((*package[: len(package) - node.level + 1], base)).strip(".")
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def swarm_packages(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("swarm.")} & LEVEL.keys()


def parse(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_layers_below_its_own(path: Path) -> None:
    own = package_of(path)
    if own in FRONT:
        return
    for other in swarm_packages(imports_of(parse(path), path)) - {own}:
        below = LEVEL[other] < LEVEL[own] or LEVEL[own] == 0
        assert below, f"{path.relative_to(ROOT.parent)} (L{LEVEL[own]}) imports swarm.{other} (L{LEVEL[other]})"


def test_every_package_has_a_layer() -> None:
    found = {package_of(path) for path in MODULES} - FRONT
    assert found <= LEVEL.keys(), f"no layer for {sorted(found - LEVEL.keys())}"


def is_pure(path: Path) -> bool:
    return package_of(path) in PURE or (package_of(path) == "net" and path.stem in PURE_IN_NET)


@pytest.mark.parametrize("path", list(filter(is_pure, MODULES)), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_decides_has_no_clock_socket_thread_or_file(path: Path) -> None:
    names = imports_of(parse(path), path)
    assert not {name.split(".")[0] for name in names} & IMPURE_MODULES
    from_net = {name.split(".")[2] for name in names if name.startswith("swarm.net.")}
    assert from_net <= PURE_IN_NET, "what it imports is not pure"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_config_reads_the_environment_and_only_cli_prints(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            allowed = package_of(path) == "config" or str(path.relative_to(ROOT)) in SETS_ENVIRONMENT
            assert allowed, f"line {node.lineno} reads the environment"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert package_of(path) == "cli", f"line {node.lineno} prints"


def test_the_checker_sees_imports_inside_functions_and_relative_ones() -> None:
    source = "def f():\n    from swarm.cli import main\n    from ..net import keys\n    import swarm.api.app\n"
    names = imports_of(ast.parse(source), ROOT / "engine" / "decoder.py")
    assert swarm_packages(names) == {"cli", "net", "api"}
