#!/usr/bin/env python3
"""Run real clients against a real node, and write what each of them could do into docs/api.md.

python tools/client_table.py            run tests/clients, write the table
python tools/client_table.py --show     only print it
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
BEGIN, END = "<!-- clients: made by tools/client_table.py -->", "<!-- end of clients -->"
# A test's file, and the package that it tries.
CLIENTS = {
    "test_openai": "openai",
    "test_anthropic": "anthropic",
    "test_ollama": "ollama",
    "test_litellm": "litellm",
    "test_langchain": "langchain-openai",
    "test_llm": "llm",
    "test_instructor": "instructor",
    "test_pydantic_ai": "pydantic-ai-slim",
    "test_llama_index": "llama-index-llms-openai-like",
}
# Of Node's clients one test tries several things.
NODE_CLIENTS = (
    ("openai for Node", {"lists", "chat", "stream"}, "openai_lists_chats_and_streams"),
    ("openai for Node", {"tools", "errors"}, "openai_calls_functions_and_hears_what_is_wrong"),
    ("AI SDK", {"chat", "stream"}, "the_ai_sdk_chats_and_streams"),
    ("AI SDK", {"tools", "structured_output"}, "the_ai_sdk_gets_objects_and_calls"),
)
FEATURES = ("lists", "chat", "stream", "tools", "structured_output", "errors")
RESULT = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED) .*?tests/clients/(\w+)\.py(?:::test_(\w+))?", re.MULTILINE)
VERSION = re.compile(r"^(npm|apart) (\S+) (\S+)$", re.MULTILINE)  # of what is not installed in this environment
ALSO_NODE = {"openai": "responses", "ai": "`@ai-sdk/openai-compatible`"}
MARKS = {"PASSED": "yes", "FAILED": "**no**", "ERROR": "**no**", "SKIPPED": "not tried"}


def results() -> str:
    """What pytest says of each test."""
    command = [sys.executable, "-m", "pytest", "tests/clients", "-q", "-rA", "--tb=line", "--color=no"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def table(said: str) -> str:
    """The table client x feature, in Markdown."""
    outcomes: dict[tuple[str, str], set[str]] = defaultdict(set)
    others: dict[str, dict[str, str]] = defaultdict(dict)
    for outcome, module, test in RESULT.findall(said):
        feature = next((each for each in FEATURES if test == each or test.startswith(f"{each}_")), None)
        if feature is None:
            others[module][test.replace("_", " ")] = outcome
        else:
            outcomes[module, feature].add(outcome)
    versions = versions_said(said, "apart")
    rows = [f"| client | {' | '.join(name.replace('_', ' ') for name in FEATURES)} | also |"]
    rows.append("|---" * (len(FEATURES) + 2) + "|")
    for module, package in CLIENTS.items():
        marks = [mark(outcomes[module, feature]) for feature in FEATURES]
        also = ", ".join(name for name, outcome in others[module].items() if outcome == "PASSED")
        rows.append(f"| {package} {versions.get(package) or version_of(package)} | {' | '.join(marks)} | {also} |")
    return "\n".join([*rows, *node_rows(said)])


def versions_said(said: str, where: str) -> dict[str, str]:
    """Those of packages from npm, or of an environment apart: one name may be in both."""
    return {package: version for kind, package, version in VERSION.findall(said) if kind == where}


def node_rows(said: str) -> list[str]:
    """The rows of the clients for Node, whose packages come from npm."""
    outcomes = {test: outcome for outcome, module, test in RESULT.findall(said) if module == "test_node_js"}
    versions = versions_said(said, "npm")
    rows = []
    for package, name in (("openai", "openai for Node"), ("ai", "AI SDK")):
        marks = []
        for feature in FEATURES:
            tests = [test for of, does, test in NODE_CLIENTS if of == name and feature in does]
            marks.append(mark({outcomes.get(test, "SKIPPED") for test in tests}))
        rows.append(f"| {name} {versions.get(package, '')} | {' | '.join(marks)} | {ALSO_NODE[package]} |")
    return rows


def mark(outcomes: set[str]) -> str:
    """The worst of some outcomes, as a word; empty where the client has no such test."""
    worst = next((each for each in ("FAILED", "ERROR", "SKIPPED", "PASSED") if each in outcomes), None)
    return MARKS[worst] if worst is not None else ""


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def main() -> int:
    made = table(results())
    print(made)
    if "--show" not in sys.argv:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}", encoding="utf-8")
    return int("**no**" in made)


if __name__ == "__main__":
    sys.exit(main())
