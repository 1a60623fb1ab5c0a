"""One word, one meaning (ARCHITECTURE.md, "Words"): words that were given up do not come back."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A word, what is said instead, and where it has another meaning that stays.
RETIRED: dict[str, tuple[str, str]] = {
    r"door(man|men|s)?": ("listener, AccessList", ""),
    r"notices": ("warnings", r"swarm/cli/remote|tests/"),  # the verb
    r"liars?": ("bad peer", r"tests/"),
    r"legs?": ("KV reservation", ""),
    r"LEGS": ("KV_RESERVATIONS", ""),
    r"neighbours\.py|seeing\.py|asking\.py|quick\.py|texts\.py|alone\.py": ("peers, status, questions, fast_path", ""),
    r"Neighbours|Seeing|Asking|QuickGate|LoopGate|AnswerTexts": ("Peers, Status, Questions, FastPath, AnswerText", ""),
    r"swarm\.node\.(model|generation|answer_text)|swarm\.engine\.generate|swarm\.net\.engine": ("swarm.local", ""),
    r"PREFILL_CHUNK(_TOKENS)?|prefill chunks?": ("prefill batch", ""),
    r"penalty_window": ("repeat_last_n", ""),
    r"o_bias|can_think|compute_us": ("nothing: it was dead", ""),
    r"abreast|twins?|course": ("streams, ...", r"tools/structure|tests/unit/test_(tools_)?structure"),
    r"output head": ("LM head", ""),
    r"head_(macs|bytes)|sw_head": ("lm_head_macs, lm_head_bytes, sw_lm_head", ""),
}
VARIABLES = ("here", "known", "alone")  # say of what type it is
FOLDERS = ("swarm/**/*.py", "csrc/[!_]*", "csrc/*.pyx", "tests/**/*.py", "tools/**/*.py")
PAGES = ("docs/*.md", "*.md", "swarm/**/*.md")
SOURCES = [
    path
    for pattern in FOLDERS + PAGES
    for path in sorted(ROOT.glob(pattern))
    if path.is_file() and path not in (Path(__file__), ROOT / "tools/bench/LOG.md")
]


@pytest.mark.parametrize("word", RETIRED)
def test_a_word_that_was_given_up_does_not_come_back(word: str) -> None:
    better, elsewhere = RETIRED[word]
    pattern = re.compile(rf"\b(?:{word})\b")
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        if elsewhere and re.match(elsewhere, name):
            continue
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not pattern.search(line), f"{name}:{i}: say {better}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("swarm/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_variable_is_named_for_what_it_is(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            assert node.id not in VARIABLES, f"line {node.lineno}: {node.id}"
        if isinstance(node, ast.arg):
            assert node.arg not in VARIABLES, f"line {node.lineno}: {node.arg}"
