"""ARCHITECTURE.md is compared with the tree: what it names is there, and what is there is named."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PATH = re.compile(r"`((?:swarm|csrc|tools|tests|docs)/[\w./*-]*\w)/?`")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    lines = PAGE[PAGE.index(heading) :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def test_every_file_that_is_named_is_there() -> None:
    named = set(PATH.findall(PAGE))
    assert len(named) > 50
    # A capital NAME, SET or FAMILY stands for what somebody adds.
    made_up = {name for name in named if re.search(r"NAME|SET_FAMILY", name)}
    missing = {name for name in named - made_up if not list(ROOT.glob(name))}
    assert not missing


def test_every_package_is_on_the_map() -> None:
    packages = {path.parent.name for path in ROOT.glob("swarm/*/__init__.py")}
    assert {name for name in packages if f"`swarm/{name}/`" not in PAGE} == set()


def test_every_question_of_a_newcomer_names_a_file_that_answers_it() -> None:
    questions = rows("## Ten questions")
    assert len(questions) == 10
    for question, line, file in questions:
        assert line, question
        paths = re.findall(r"`([\w./]+\.\w+)`", file)
        folder = ""
        for path in paths:
            folder = path.rpartition("/")[0] or folder
            assert (ROOT / folder / path.rpartition("/")[2]).exists(), question


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    words = [row[0].lower() for row in rows("## Words")]
    assert words == sorted(words) and len(set(words)) == len(words)
