"""The pages for people: links lead somewhere, commands run or say what they need, quoted words are in the code."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from swarm.cli import main as cli
from swarm.store.fetching import SMOLLM2
from tools import expectations

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("*.md"), *ROOT.glob("swarm/**/*.md"), *ROOT.glob("csrc/*.md")])
# Whoever follows these types what stands there: each block runs here, or says what it needs.
GUIDES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
WITH_COMMANDS = ("README", "start", "glm-4", "intellect-3", "models", "raspberry-pi", "performance", "convert")
TYPED = re.compile(r"(?:sudo )?(?:swarm|sh|make|pip|pipx|python|pytest|tools/\S+|bash|git) \S")  # at a line's beginning
FENCE = re.compile(r"(?P<mark><!-- (?:runs|needs: [^>]+) -->\n)?```sh\n(?P<text>.*?)```", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
SWARM = re.compile(r"(?:sudo )?swarm .+")
# Of a pattern or a shell, not of a command that is typed.
PLACEHOLDER = re.compile(r"\b(?!Q4_|Q8_)[A-Z]{2,}\b|\.\.\.|[\[\]|]|\$|\bN\b")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """What a link may name behind #, as the hosts of such pages make it from headings."""
    made = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text_of(path)))
    return set(made)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {target}"


def commands(page: Path) -> Iterator[str]:
    """Lines of code blocks, fenced or indented, that begin with `swarm`."""
    text = text_of(page)
    lines = [line for fence in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in fence.splitlines()]
    lines += re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    if page in GUIDES:  # in a sentence a name alone stands for the command: `swarm rm`
        lines += re.findall(r"`(swarm [a-z]+ [^`]+)`", re.sub(r"\s+", " ", text))
    for line in lines:
        command = re.split(r"\s+#|\s{3,}|\s[|>]\s", line.strip())[0]
        if SWARM.fullmatch(command) and not PLACEHOLDER.search(command.replace("CODE", "7-482-915")):
            yield command.removeprefix("sudo ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_that_the_program_takes(page: Path) -> None:
    for command in commands(page):
        words = shlex.split(command)[1:]
        if words[0].startswith("-"):
            continue
        assert words[0] in cli.COMMANDS, f"{page.name}: {command}"
        module = cli.module_of(words[0])
        cli.build_parser(words[0], module).parse_intermixed_args(words[1:])


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_block_of_commands_runs_here_or_says_what_it_needs(page: Path) -> None:
    text = text_of(page)
    blocks = list(FENCE.finditer(text))
    assert blocks or page.stem not in WITH_COMMANDS
    assert len(blocks) == text.count("```sh\n")
    assert all(block["mark"] for block in blocks), [block["text"] for block in blocks if not block["mark"]]
    others = re.findall(r"^```(?!sh\n)\w*\n(.*?)^```", FENCE.sub("", text), re.DOTALL | re.MULTILINE)
    lines = [
        *re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE),
        *(line for block in others for line in block.splitlines()),
    ]
    assert not [line for line in lines if TYPED.match(line)], "commands stand in blocks of sh"


RUNNING = [
    (page.stem, i, block["text"])
    for page in GUIDES
    for i, block in enumerate(FENCE.finditer(text_of(page)))
    if block["mark"] and "runs" in block["mark"]
]


@pytest.mark.parametrize(("name", "i", "text"), RUNNING, ids=[f"{name}-{i}" for name, i, _ in RUNNING])
def test_a_block_that_runs_does(name: str, i: int, text: str, real_model: Path, own_home: Path) -> None:
    models = own_home / "models"
    models.mkdir()
    (models / SMOLLM2.file_name).symlink_to(real_model)
    bin_folder = own_home / "bin"
    bin_folder.mkdir()
    (bin_folder / "swarm").write_text(f'#!/bin/sh\nexec {sys.executable} -m swarm "$@"\n')
    (bin_folder / "swarm").chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SWARM_MODELS_DIR": str(models),
    }
    done = subprocess.run(
        ["bash", "-euc", text], env=env, cwd=own_home, check=False, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- what the program says


@cache
def said() -> tuple[str, ...]:
    """Every text in the sources; what is filled in stands as `...`."""
    found = []
    for path in sorted(ROOT.glob("swarm/**/*.py")):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def is_said(words: str) -> bool:
    pattern = re.compile(".*?".join(re.escape(part.strip()) for part in words.split("...") if part.strip()), re.DOTALL)
    return any(pattern.search(text) for text in said())


def quoted_words(page: str) -> list[str]:
    """The first cells of the tables whose head is `it says`, or `the plan says`: several words may stand in one."""
    rows = []
    for table in re.findall(r"^\| (?:it says|the plan says) \|.*\n\|[-|]+\n((?:\|.*\n)+)", text_of(ROOT / page), re.M):
        rows += [cell for row in table.splitlines() for cell in re.findall(r"`([^`]+)`", row.split("|")[1])]
    return rows


@pytest.mark.parametrize("page", ["docs/troubleshooting.md", "docs/raspberry-pi.md", "docs/glm-4.md"])
def test_the_words_that_the_program_is_said_to_print_are_in_it(page: str) -> None:
    words = quoted_words(page)
    assert len(words) > 4
    assert not [each for each in words if not is_said(each)]


def test_words_that_nobody_says_are_noticed() -> None:
    assert not is_said("the flux capacitor of ... is cold")


@pytest.mark.parametrize("page", expectations.PAGES)
def test_what_is_expected_of_devices_is_what_the_planner_expects(page: str) -> None:
    text = text_of(ROOT / "docs" / page)
    assert "<!-- expectations -->" in text
    assert expectations.with_table(page, text) == text, "tools/expectations.py --write"


# --- what is promised


def promises() -> list[list[str]]:
    """The rows of the tables of promises, cell by cell: the last one names the tests."""
    tables = re.findall(r"^\| promise \|.*\n\|[-|]+\n((?:\|.*\n)+)", text_of(ROOT / "docs/guarantees.md"), re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")[1:-1]] for table in tables for row in table.splitlines()]


def test_each_promise_names_its_tests_and_they_are_there() -> None:
    rows = promises()
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`(\w+/test_\w+\.py)`", row[-1])
        assert named or "*this is not prevented*" in row[0], row[0]
        for name in named:
            assert re.search(r"^(?:async )?def test_", text_of(ROOT / "tests" / name), re.MULTILINE), name


def test_tests_that_the_page_of_promises_names_elsewhere_are_there() -> None:
    for name in re.findall(r"`(\w+/test_\w+\.py)`", text_of(ROOT / "docs/guarantees.md")):
        assert (ROOT / "tests" / name).is_file(), name
