"""tools/structure.py counts what is there, on a tree small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import structure


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The root of a tree that has nothing in it yet."""
    return tmp_path


def write(root: Path, **files: str) -> None:
    """A name's double underscores are slashes: `swarm__net__dial` is swarm/net/dial.py."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def graph(root: Path, **files: str) -> structure.Graph:
    write(root, **files)
    return structure.import_graph(root)


def test_an_import_for_the_type_checker_makes_a_circle(tree: Path) -> None:
    found = graph(
        tree,
        swarm__a="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from swarm.b import B\n",
        swarm__b="import swarm.c\n",
        swarm__c="from swarm import a\n",
        swarm__d="from swarm.a import x\n",
    )
    assert found["swarm.d"] == {"swarm.a"}
    assert structure.circles(found) == [["swarm.a", "swarm.b", "swarm.c"]]


def test_an_import_inside_a_function_makes_none(tree: Path) -> None:
    found = graph(tree, swarm__a="import swarm.b\n", swarm__b="def late():\n    import swarm.a\n")
    assert structure.circles(found) == []


def test_a_relative_import_is_followed(tree: Path) -> None:
    found = graph(tree, swarm__net__a="from . import b\nfrom ..wire import c\n", swarm__net__b="x", swarm__wire__c="x")
    assert found["swarm.net.a"] == {"swarm.net.b", "swarm.wire.c"}


def test_classes_of_one_name_are_twins_when_their_modules_differ(tree: Path) -> None:
    write(tree, swarm__a="class One: ...\nclass Two: ...\n", swarm__b="class Two: ...\nclass Three: ...\n")
    assert structure.twins(tree) == {"Two": ["swarm.a", "swarm.b"]}


def test_a_module_is_tested_by_a_file_of_its_name_in_any_folder(tree: Path) -> None:
    write(tree, swarm__net__a="x", swarm__net__b="x", swarm__net__c="x", swarm__net__empty="")
    write(tree, tests__unit__test_net_a="x", tests__sim__test_b="x", tests__unit__test_other_c="x")
    assert structure.untested(tree) == ["swarm.net.c"]


def test_only_sleeps_that_let_time_pass_count(tree: Path) -> None:
    text = (
        "time.sleep(0.1)\nasync def f():\n    await asyncio.sleep(0)\n    await asyncio.sleep(x)\n    clock.sleep(9)\n"
    )
    write(tree, tests__unit__test_a=text, tests__unit__test_b="asyncio.sleep(0)\n", tests__sim__test_c="time.sleep(1)")
    assert structure.real_sleeps(tree) == {"test_a.py": 2}


def test_a_number_whose_name_is_a_bound_belongs_in_limits(tree: Path) -> None:
    text = "MAX_ITEMS = 2 * 8\n_MIN_RATE = -0.5\nWAIT_S: float = 3.0\nMAX_NAME = 'x'\nWIDTH = 3\nLATER_S = f()\n"
    write(tree, swarm__a=text + "def f():\n    MAX_INSIDE = 3\n", swarm__limits="MAX_PEERS = 5\n")
    assert structure.bounds_outside_limits(tree) == ["swarm.a.MAX_ITEMS", "swarm.a._MIN_RATE", "swarm.a.WAIT_S"]


def test_what_a_tree_imports_from_others_is_found_wherever_it_stands(tree: Path) -> None:
    text = "import os, zmq.auth\nfrom swarm.b import c\nfrom . import d\ndef f():\n    from blake3 import blake3\n"
    write(tree, swarm__a=text)
    assert structure.third_party(tree) == {"zmq", "blake3"}


def test_functions_are_as_long_as_they_look(tree: Path) -> None:
    write(tree, swarm__a="def f():\n    return (\n        1\n    )\n\nclass C:\n    async def g(self): ...\n")
    assert sorted(structure.python_functions(tree).values()) == [1, 4]


def test_c_is_counted_roughly_and_without_what_cython_writes(tree: Path) -> None:
    csrc = tree / "csrc"
    csrc.mkdir()
    (csrc / "a.c").write_text("int a;\nstatic void f(int x) {\n  if (x) {\n  }\n}\n// " + "-" * 120 + "\n")
    (csrc / "_native.pyx").write_text("# " + "-" * 120 + "\n")
    (csrc / "_native.c").write_text("// " + "-" * 200 + "\n")
    assert structure.c_functions(tree) == {"a.c:2": 4}
    assert structure.long_c_lines(tree) == ["_native.pyx:1", "a.c:6"]


def test_trees_stand_beside_each_other_in_the_table(tree: Path) -> None:
    write(tree, swarm__a="import os\n\n\ndef f(): ...\n", swarm__value="a\nb\n")
    text = structure.table([tree, tree])
    assert "| lines of hand-written schema | 2 | 2 |" in text
    assert "| lines of a Python file: median, longest | 3, 4 (swarm.a) | 3, 4 (swarm.a) |" in text
    assert len(text.splitlines()) == len(structure.ROWS) + 2
