#!/usr/bin/env python3
"""Count what keeps a house in order: sizes, circles, names, tests, bounds. To see a tree before and after a change:

    python tools/structure.py OLD_TREE .

The source is read, never run, so that any two checkouts can be compared.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ("swarm/wire/schema.py", "swarm/wire/_records.pyi", "swarm/value.py", "csrc/_records.pyx")
SANDBOX = ("swarm/text/sandbox.py", "swarm/text/render_worker.py")
MAX_C_COLUMNS = 120
BOUND = re.compile(r"_?(MAX|MIN|MOST)_|[A-Z0-9_]+_(S|MS|BYTES|CHARS|TOKENS|STEPS)$")
C_SOURCES = ("*.c", "*.h", "*.inc", "*.pyx", "*.pxi")
C_FUNCTION = re.compile(r"^[A-Za-z_].*\)\s*\{\s*$")

Graph = dict[str, set[str]]


def python_files(root: Path) -> list[Path]:
    """The modules of a tree that have anything in them."""
    return sorted(path for path in (root / "swarm").rglob("*.py") if path.stat().st_size)


def c_files(root: Path, *patterns: str) -> list[Path]:
    """Files of csrc/, but for what Cython makes of a .pyx beside it."""
    made = {path.with_suffix(".c") for path in (root / "csrc").glob("*.pyx")}
    return sorted({path for pattern in patterns for path in (root / "csrc").glob(pattern)} - made)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def module_name(root: Path, path: Path) -> str:
    """The dotted name of a file: `swarm.net.dial`, `swarm` for a package's `__init__`."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


# --- sizes


def python_functions(root: Path) -> dict[str, int]:
    """Lines of each function, decorators left out, by module and name."""
    found = {}
    for path in python_files(root):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                found[f"{module_name(root, path)}.{node.name}:{node.lineno}"] = node.end_lineno - node.lineno + 1
    return found


def c_functions(root: Path) -> dict[str, int]:
    """Lines of each C function, roughly: from a line that begins at the margin and opens a brace to the brace there."""
    found = {}
    for path in c_files(root, "*.c", "*.h", "*.inc"):
        begin = None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if begin is None and C_FUNCTION.match(line):
                begin = number
            elif begin is not None and line.startswith("}"):
                found[f"{path.name}:{begin}"] = number - begin + 1
                begin = None
    return found


# --- imports


def import_graph(root: Path) -> Graph:
    """Who imports whom when it is loaded; what only the type checker sees counts, what a function imports does not."""
    names = {module_name(root, path): path for path in python_files(root)}
    return {name: set(_imports(root, path, set(names))) - {name} for name, path in names.items()}


def _imports(root: Path, path: Path, known: set[str]) -> Iterator[str]:
    package = path.relative_to(root).parent.parts
    for node in _outside_functions(parse(path)):
        if isinstance(node, ast.Import):
            yield from known.intersection(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = (*package[: len(package) - node.level + 1], node.module) if node.level else (node.module,)
            base = ".".join(part for part in parts if part)
            # `from package import module` needs the module; what is no module comes from the package's __init__.
            whole = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
            yield from known.intersection(whole)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _outside_functions(child)


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules each of which reaches all others of its group, in order."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in graph}
    return sorted(list(group) for group in groups if group)


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += graph[name]
    return seen


def third_party(root: Path) -> set[str]:
    """Top-level names that a tree imports anywhere, but for the standard library and its own."""
    found = set()
    for path in python_files(root):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - {"swarm"} - sys.stdlib_module_names


# --- names and tests


def twins(root: Path) -> dict[str, list[str]]:
    """Names of classes that more than one module defines."""
    where: dict[str, set[str]] = {}
    for path in python_files(root):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, set()).add(module_name(root, path))
    return {name: sorted(modules) for name, modules in sorted(where.items()) if len(modules) > 1}


def untested(root: Path) -> list[str]:
    """Modules without a test file of their name: tests/*/test_net_dial.py or test_dial.py for swarm.net.dial."""
    tests = {path.stem for path in (root / "tests").rglob("test_*.py")}
    modules = [path for path in python_files(root) if path.stem != "__init__"]
    return [module_name(root, path) for path in modules if not tests & _test_names(root, path)]


def _test_names(root: Path, path: Path) -> set[str]:
    parts = path.relative_to(root / "swarm").with_suffix("").parts
    return {f"test_{'_'.join(parts)}", f"test_{parts[-1]}"}


def real_sleeps(root: Path) -> dict[str, int]:
    """Calls of `sleep` in unit tests that let time pass, by file."""
    found: dict[str, int] = {}
    for path in sorted((root / "tests/unit").glob("*.py")):
        count = sum(_sleeps(node) for node in ast.walk(parse(path)))
        if count:
            found[path.name] = count
    return found


def _sleeps(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "sleep":
        return False
    asks = isinstance(node.func.value, ast.Name) and node.func.value.id in ("time", "asyncio")
    return asks and not (node.args and isinstance(node.args[0], ast.Constant) and not node.args[0].value)


def bounds_outside_limits(root: Path) -> list[str]:
    """Constants of modules that are numbers and whose names say that they bound something, not in limits.py."""
    found = []
    for path in python_files(root):
        if path != root / "swarm/limits.py":
            for name, value in _constants(parse(path)):
                if BOUND.match(name) and _is_number(value):
                    found.append(f"{module_name(root, path)}.{name}")
    return found


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def _is_number(value: ast.expr) -> bool:
    numbers = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    leaves = [node for node in ast.walk(value) if isinstance(node, ast.Constant)]
    return all(isinstance(node, numbers) for node in ast.walk(value)) and all(
        isinstance(leaf.value, int | float) for leaf in leaves
    )


def long_c_lines(root: Path) -> list[str]:
    """Lines of C and Cython that no screen shows whole."""
    return [
        f"{path.name}:{number}"
        for path in c_files(root, *C_SOURCES)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > MAX_C_COLUMNS
    ]


# --- the table


def _median_and_longest(sizes: dict[str, int]) -> str:
    if not sizes:
        return "none"
    longest = max(sizes, key=lambda name: sizes[name])
    return f"{median(sizes.values()):g}, {sizes[longest]} ({longest.rpartition(':')[0] or longest})"


def _python_sizes(root: Path) -> dict[str, int]:
    return {module_name(root, path): lines_of(path) for path in python_files(root)}


def _written_by_hand(root: Path, files: tuple[str, ...]) -> str:
    return str(sum(lines_of(root / file) for file in files if (root / file).is_file()))


def _tested(root: Path) -> str:
    modules = [path for path in python_files(root) if path.stem != "__init__"]
    return f"{len(untested(root))} of {len(modules)}"


def _circles(root: Path) -> str:
    found = circles(import_graph(root))
    return f"{len(found)} ({sum(map(len, found))} modules)" if found else "0"


ROWS: dict[str, Callable[[Path], str]] = {
    "Python files": lambda root: str(len(python_files(root))),
    "lines of a Python file: median, longest": lambda root: _median_and_longest(_python_sizes(root)),
    "lines of a Python function: median, longest": lambda root: _median_and_longest(python_functions(root)),
    "C and Cython files": lambda root: str(len(c_files(root, *C_SOURCES))),
    "lines of a C or Cython file: median, longest": lambda root: _median_and_longest(
        {path.name: lines_of(path) for path in c_files(root, *C_SOURCES)}
    ),
    "lines of a C function: median, longest": lambda root: _median_and_longest(c_functions(root)),
    "lines of C and Cython over 120 columns": lambda root: str(len(long_c_lines(root))),
    "import circles": _circles,
    "class names defined in several modules": lambda root: str(len(twins(root))),
    "lines of hand-written schema": lambda root: _written_by_hand(root, SCHEMA),
    "lines of hand-written sandbox": lambda root: _written_by_hand(root, SANDBOX),
    "modules without a test file of their name": _tested,
    "bounds outside limits.py": lambda root: str(len(bounds_outside_limits(root))),
    "real sleeps in tests/unit": lambda root: str(sum(real_sleeps(root).values())),
}


def table(trees: list[Path]) -> str:
    """One row a measure, one column a tree, as Markdown."""
    head = ["", *(str(tree) for tree in trees)]
    rows = [[name, *(measure(tree.resolve()) for tree in trees)] for name, measure in ROWS.items()]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "trees", type=Path, nargs="*", default=[ROOT], metavar="TREE", help="this one when none is given"
    )
    parser.add_argument("--list", choices=LISTS, help="the things themselves instead of their number")
    args = parser.parse_args()
    if args.list:
        print("\n".join(line for tree in args.trees for line in LISTS[args.list](tree.resolve())))
    else:
        print(table(args.trees))


LISTS: dict[str, Callable[[Path], list[str]]] = {
    "circles": lambda root: [" ".join(circle) for circle in circles(import_graph(root))],
    "twins": lambda root: [f"{name}: {' '.join(modules)}" for name, modules in twins(root).items()],
    "untested": untested,
    "bounds": bounds_outside_limits,
    "sleeps": lambda root: [f"{file}: {count}" for file, count in real_sleeps(root).items()],
    "long-lines": long_c_lines,
}

if __name__ == "__main__":
    main()
