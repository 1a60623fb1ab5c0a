"""Calls that are JSON objects with a name and arguments, read while they come."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from swarm.answers import Channel, Piece
from swarm.text.bounded_json import parse_json

_TEXT = r'"((?:[^"\\]|\\.)*)"'
# What stands before the arguments in all but odd calls.
_HEAD = re.compile(
    rf'\s*\{{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"(?:name|function)"\s*:\s*{_TEXT}\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{{)'
)


class ObjectEnd:
    """Finds where a JSON object that comes in pieces ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = self._escaped = False

    def feed(self, text: str) -> int | None:
        """How much of `text` belongs to the object, when it ends in there; None while it does not."""
        for i, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_text:
                self._escaped = char == "\\"
                self._in_text = char != '"'
            elif char == '"':
                self._in_text = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return i + 1
        return None


class JsonCall:
    """One call, `{"name": ..., "arguments": {...}}`: the arguments are given out as they come."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._held = ""
        self._arguments: ObjectEnd | None = None
        self._has_all = False

    @property
    def begun(self) -> bool:
        """Something of it was given out."""
        return self._arguments is not None

    def push(self, text: str) -> list[Piece]:
        """What is certain of the call now."""
        if self._has_all:
            return []
        if self._arguments is not None:
            return self._take(text)
        self._held += text
        head = _HEAD.match(self._held)
        if head is None:
            return []
        self._arguments = ObjectEnd()
        named = Piece("", Channel.CALL, self._number, unescaped(head[1]))
        return [named, *self._take(self._held[head.end() :])]

    def finish(self) -> list[Piece]:
        """The rest, when all of it has come; raise ValueError when it was no call."""
        if self._arguments is not None:
            return []
        calls = list(calls_in(parse_json(self._held)))
        if not calls:
            raise ValueError("no call")
        return [Piece(arguments, Channel.CALL, self._number + i, name) for i, (name, arguments) in enumerate(calls)]

    def _take(self, text: str) -> list[Piece]:
        assert self._arguments is not None
        size = self._arguments.feed(text)
        self._has_all = size is not None
        return [Piece(text[:size], Channel.CALL, self._number)] if text[:size] else []


def calls_in(value: object) -> list[tuple[str, str]]:
    """Names and arguments, as JSON, of the calls that a value spells: one, or a list of them; none for others."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [call for item in value for call in calls_in(item)]
    if not isinstance(value, Mapping):
        return []
    inner = value.get("function")
    if isinstance(inner, Mapping):
        return calls_in(inner)
    name = value.get("name", inner)
    if not isinstance(name, str):
        return []
    return [(name, arguments_text(value.get("arguments", value.get("parameters"))))]


def arguments_text(arguments: object) -> str:
    """Arguments as the JSON of an object: what is none becomes the empty one."""
    if isinstance(arguments, str):
        try:
            arguments = parse_json(arguments)
        except ValueError:
            arguments = None
    return json.dumps(arguments if isinstance(arguments, dict) else {}, ensure_ascii=False)


def unescaped(text: str) -> str:
    """What stood between the quotes of a JSON text."""
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text
