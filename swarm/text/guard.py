"""Keeps what people wrote apart from what the template wrote, through a rendering.

A template mixes both in one string; a user who types `<|user|>` must get text, not the mark. So before the rendering an
invisible flag is put behind every character of the user's strings with which a control token could begin or end, and
afterwards the flags become positions that no control token may cover. Nothing else about the strings changes: templates
may still trim them, compare them, and look for thinking in them.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from swarm.errors import TextError
from swarm.text.vocab import PRINTED_NAMES

# Characters that Unicode keeps for a program's own use; one that the conversation does not contain is the flag.
_NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
_THINKING = ("<think>", "</think>")
_MAX_NAME_CHARS = max(map(len, PRINTED_NAMES))
PIECE_CHARS = 64 * 1024  # searched at once: 5 ms


class Guarded(NamedTuple):
    """A rendered text, and the positions that no control token may cover."""

    text: str
    literal: Sequence[int]  # rising


class Guard:
    """Flags strings for one rendering, for a vocabulary with these control tokens."""

    def __init__(self, control: Iterable[str], values: object) -> None:
        """`values` is everything that will be protected; TextError when it leaves no character for the flag."""
        control = frozenset(control)
        self._flag = _unused_flag(values)
        edges = sorted({name[0] for name in control} | {name[-1] for name in control})
        self._edges = "|".join(map(re.escape, edges)) or "(?!)"
        # Templates look for these; where they are no control tokens there is nothing to guard.
        self._free = sorted(PRINTED_NAMES - control)

    def protect(self, value: object, *, free_thinking: bool = False) -> object:
        """`value` with all its strings flagged; `free_thinking` for an assistant's own words."""
        free = sorted({*self._free, *_THINKING}) if free_thinking else self._free
        pattern = re.compile("|".join([*map(re.escape, free), f"({self._edges})"]))
        return self._protect(value, pattern)

    def reveal(self, text: str) -> Guarded:
        """Take the flags out of a rendered text."""
        literal = array("I")
        position = text.find(self._flag)
        while position >= 0:
            literal.append(position - len(literal) - 1)
            position = text.find(self._flag, position + 1)
        return Guarded(text.replace(self._flag, ""), literal)

    def _protect(self, value: object, pattern: re.Pattern[str]) -> object:
        if isinstance(value, str):
            flagged = (pattern.sub(lambda m: m[0] + self._flag if m[1] else m[0], piece) for piece in _pieces(value))
            return "".join(flagged)
        if isinstance(value, Mapping):
            return {self._protect(key, pattern): self._protect(item, pattern) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._protect(item, pattern) for item in value]
        return value


def _pieces(text: str) -> Iterator[str]:
    """`text` cut where no name is: one search through a long text would hold the interpreter for all of it."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = start + PIECE_CHARS
        # Every name that is looked for begins with this, and has it nowhere else.
        mark = text.rfind("<", end - _MAX_NAME_CHARS, end)
        end = mark if mark >= 0 else end
        yield text[start:end]
        start = end
    yield text[start:]


def _unused_flag(values: object) -> str:
    used: set[str] = set()
    _collect(values, used)
    flag = next((char for char in _NONCHARACTERS if char not in used), None)
    if flag is None:
        raise TextError("the conversation contains every one of the 32 characters U+FDD0 to U+FDEF; leave one out")
    return flag


def _collect(value: object, used: set[str]) -> None:
    if isinstance(value, str):
        used.update(char for char in _NONCHARACTERS if char in value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect(key, used)
            _collect(item, used)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, used)
