"""JSON that somebody sent: read only when that takes a moment, for the parser holds the interpreter for all of it."""

from __future__ import annotations

import json

from swarm.limits import MAX_REQUEST_DEPTH, MAX_REQUEST_ITEMS, MAX_REQUEST_NUMBER_CHARS, MAX_REQUEST_OBJECTS

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class TooMuch(ValueError):
    """The JSON has more of something than any honest request."""


def parse_json(text: str) -> object:
    """The value that `text` spells; TooMuch when it is too deep or has too many values, else ValueError for no JSON."""
    _check_shape(text.encode("utf-8", "replace"))
    try:
        return json.loads(text, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole_number(text: str) -> int:
    if len(text) > MAX_REQUEST_NUMBER_CHARS:
        raise ValueError("a number is too long")
    return int(text)


def _check_shape(data: bytes) -> None:
    """Count what the parser would make."""
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > 2 * MAX_REQUEST_OBJECTS:
        raise TooMuch(f"more than {MAX_REQUEST_OBJECTS} texts")
    outside = b"".join(bare.split(b'"')[::2])  # without what stands in texts
    brackets = outside.translate(None, _NOT_BRACKETS)
    if len(brackets) > 2 * MAX_REQUEST_OBJECTS or outside.count(b",") > MAX_REQUEST_ITEMS:
        raise TooMuch(f"more than {MAX_REQUEST_OBJECTS} objects or {MAX_REQUEST_ITEMS} values")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_REQUEST_DEPTH:
            raise TooMuch(f"more than {MAX_REQUEST_DEPTH} levels of nesting")
