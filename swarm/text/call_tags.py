"""Calls whose arguments stand between tags, one after the other; they become the JSON that clients expect.

Between the tags is text: whether `5` is a number or a text is said by the function's own schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from swarm.answers import Channel, Piece
from swarm.text.bounded_json import parse_json
from swarm.text.tools import Tools


@dataclass(frozen=True)
class Tags:
    """How a format writes a call, between the tags of the call itself."""

    name: re.Pattern[str]  # up to the first argument; group 1 is the function's name
    argument: re.Pattern[str]  # groups: its name, its value


FUNCTION_TAGS = Tags(
    re.compile(r"\s*<function=\s*([^>\n]+?)\s*>"),
    re.compile(r"\s*<parameter=\s*([^>\n]+?)\s*>\n?(.*?)\n?</parameter>", re.DOTALL),
)
KEY_TAGS = Tags(
    re.compile(r"\s*([^\s<]+)[ \t]*(?=\n|<arg_key>)"),
    re.compile(r"\s*<arg_key>\s*(.*?)\s*</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL),
)


class TaggedCall:
    """One call: each argument is given out when it is whole."""

    def __init__(self, number: int, tags: Tags, tools: Tools) -> None:
        self._number = number
        self._tags = tags
        self._tools = tools
        self._held = ""
        self._name: str | None = None
        self._n_arguments = 0

    @property
    def begun(self) -> bool:
        """Something of it was given out."""
        return self._name is not None

    def push(self, text: str) -> list[Piece]:
        """What is certain of the call now."""
        self._held += text
        pieces = []
        if self._name is None:
            match = self._tags.name.match(self._held)
            if match is None:
                return []
            pieces.append(self._begin(match[1], match.end()))
        while (match := self._tags.argument.match(self._held)) is not None:
            self._held = self._held[match.end() :]
            pieces.append(self._argument(match[1], match[2]))
        return pieces

    def finish(self) -> list[Piece]:
        """The rest, when all of it has come; raise ValueError when it was no call."""
        pieces = []
        if self._name is None:
            if not re.fullmatch(r"\s*[\w.:-]+\s*", self._held):
                raise ValueError("no call")
            pieces.append(self._begin(self._held.strip(), len(self._held)))
        return [*pieces, Piece("}" if self._n_arguments else "{}", Channel.CALL, self._number)]

    def _begin(self, name: str, size: int) -> Piece:
        self._name, self._held = name, self._held[size:]
        return Piece("", Channel.CALL, self._number, name)

    def _argument(self, key: str, text: str) -> Piece:
        before = ", " if self._n_arguments else "{"
        self._n_arguments += 1
        value = value_of(text, self._tools.schema_of(self._name or "", key))
        written = json.dumps(value, ensure_ascii=False)
        return Piece(f"{before}{json.dumps(key, ensure_ascii=False)}: {written}", Channel.CALL, self._number)


def value_of(text: str, schema: Mapping[str, object]) -> object:
    """What an argument's text means where the schema says so; without a schema, JSON where it is some."""
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    if kinds == ["string"]:
        return text
    try:
        value = parse_json(text.strip())
    except ValueError:
        lowered = text.strip().lower()
        return {"true": True, "false": False}[lowered] if "boolean" in kinds and lowered in ("true", "false") else text
    return text if "string" in kinds and not isinstance(value, str | None | dict | list) else value
