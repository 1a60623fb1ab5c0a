"""Finding the marks (added and control tokens) in a text, so that what lies between is encoded as plain text."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class Match(NamedTuple):
    """A mark that stands at text[start:end]."""

    start: int
    end: int
    token: int


class MarkFinder:
    """Finds the longest of some marks at each place of a text, from left to right."""

    def __init__(self, marks: Mapping[str, int]) -> None:
        self._marks = marks
        lengths: dict[str, set[int]] = {}
        for mark in marks:
            lengths.setdefault(mark[0], set()).add(len(mark))
        self._lengths = {first: sorted(sizes, reverse=True) for first, sizes in lengths.items()}
        self._first = re.compile(f"[{re.escape(''.join(sorted(lengths)))}]") if lengths else None

    def find(self, text: str, literal: Sequence[int] = ()) -> Iterator[Match]:
        """The marks in `text`, none of which covers a position in `literal`, which rise."""
        position = 0
        while self._first is not None and (candidate := self._first.search(text, position)):
            match = self._at(text, candidate.start(), literal)
            if match is not None:
                yield match
            position = match.end if match is not None else candidate.end()

    def _at(self, text: str, start: int, literal: Sequence[int]) -> Match | None:
        for length in self._lengths[text[start]]:
            token = self._marks.get(text[start : start + length])
            if token is None:
                continue
            next_literal = bisect_left(literal, start)
            if next_literal == len(literal) or literal[next_literal] >= start + length:
                return Match(start, start + length, token)
        return None
