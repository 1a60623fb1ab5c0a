"""Conversations in the shape of the OpenAI API, checked, and brought into the shape that a template expects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from swarm.errors import TextError
from swarm.text.bounded_json import parse_json
from swarm.text.harmony import is_harmony, one_call_each

Message = Mapping[str, object]

_TOOLS_OF_MESSAGE = re.compile(r"""\w\[['"]tools['"]\] is defined""")
# Kinds of parts, and where each has its text.
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "observation", "ipython")


def checked(messages: Sequence[Message]) -> list[dict[str, object]]:
    """The messages with their contents as plain text; TextError naming the message that cannot be used."""
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise TextError("a conversation is a list of messages, each with a role and a content")
    if not messages:
        raise TextError("the conversation has no message")
    return [_checked(i, message) for i, message in enumerate(messages)]


def for_template(messages: Sequence[Message], source: str) -> list[dict[str, object]]:
    """Map roles that the template would silently drop onto those that it knows."""
    adapted = [_known_role(message, source) for message in messages]
    if is_harmony(source):
        return one_call_each(adapted)
    if drops_tools(source):
        return [part for message in adapted for part in _glm4_parts(message)]
    return adapted


def with_tools(messages: Sequence[Message], tools: object, source: str) -> list[Message]:
    """The messages with the functions in one of their own, for a template that looks for them there (GLM-4-9B's)."""
    if tools and _TOOLS_OF_MESSAGE.search(source):
        return [{"role": "system", "content": "", "tools": tools}, *messages]
    return list(messages)


def drops_tools(source: str) -> bool:
    """Whether the template is GLM-4's: it knows a call only as `metadata` and a result only as `observation`."""
    return "metadata" in source and not re.search(r"""['"]tool['"]""", source) and "tool_calls" not in source


def with_text_arguments(messages: Sequence[Message]) -> list[dict[str, object]]:
    """The arguments of calls as JSON text, and no content as no text: for templates that join strings."""
    return [
        {
            **message,
            "content": message.get("content") or "",
            **({"tool_calls": [_with_text(call) for call in calls]} if (calls := _calls(message)) else {}),
        }
        for message in messages
    ]


def _checked(i: int, message: object) -> dict[str, object]:
    if not isinstance(message, Mapping):
        raise TextError(f"message {i} is not an object with a role and a content")
    role = message.get("role")
    if role not in ROLES:
        raise TextError(f"message {i} has the role {role!r:.40}; known roles: {', '.join(ROLES)}")
    content = message.get("content")
    calls = _calls(message) or [each for each in (message.get("function_call"),) if each]
    if content is None and role != "assistant":
        raise TextError(f"message {i} has no content")
    if content is None and not calls:
        content = message.get("refusal") or ""  # a turn that was cancelled, or that was only thought
    out = {name: value for name, value in message.items() if name not in ("tool_calls", "function_call")}
    out["content"] = content if content is None else _plain_text(i, content)
    if calls:
        out["tool_calls"] = [_checked_call(i, call) for call in calls]
    return out


def _plain_text(i: int, content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TextError(f"message {i}: the content is neither a text nor a list of parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get(_TEXT_PARTS[kind]) if isinstance(kind, str) and kind in _TEXT_PARTS else None
        if not isinstance(text, str):
            raise TextError(f"message {i} has a part of type {kind!r:.40}; this model reads text only")
        texts.append(text)
    return "".join(texts)


def _calls(message: Message) -> Sequence[object]:
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list | tuple) else ()


def _checked_call(i: int, call: object) -> dict[str, object]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise TextError(f"message {i} has a tool call without a function name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    rest = {key: value for key, value in call.items() if key != "function"} if isinstance(call, Mapping) else {}
    return {**rest, "type": "function", "function": {**function, "arguments": arguments}}


def _parsed(arguments: str) -> object:
    """Arguments as the object that they spell; text that spells none stays text."""
    try:
        value = parse_json(arguments or "{}")
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def _known_role(message: Message, source: str) -> dict[str, object]:
    role = message["role"]
    if role == "developer" and "developer" not in source:
        role = "system"
    if role in ("function", "observation", "ipython") and not re.search(rf"""['"]{role}['"]""", source):
        role = "tool"
    return {**message, "role": role}


def _glm4_parts(message: Message) -> list[dict[str, object]]:
    """GLM-4's shape: a call is an assistant's message with the function's name as metadata."""
    if message["role"] == "tool":
        return [{**message, "role": "observation"}]
    calls = _calls(message)
    if message["role"] != "assistant" or not calls:
        return [dict(message)]
    spoken = [{"role": "assistant", "content": message["content"]}] if message.get("content") else []
    return spoken + [_glm4_call(call) for call in calls if isinstance(call, Mapping)]


def _glm4_call(call: Message) -> dict[str, object]:
    function = call["function"]
    assert isinstance(function, Mapping)  # checked() built it
    return {"role": "assistant", "metadata": function["name"], "content": _json(function["arguments"])}


def _with_text(call: object) -> object:
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        return call
    function = call["function"]
    return {**call, "function": {**function, "arguments": _json(function.get("arguments", {}))}}


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
