"""How a model writes the calls of functions, told by the chat template that it was trained with."""

from __future__ import annotations

from enum import Enum


class CallFormat(Enum):
    """One family's way."""

    HERMES = "hermes"  # <tool_call>{"name": ..., "arguments": {...}}</tool_call>: Hermes, Qwen 2.5, Qwen 3
    FUNCTION_TAGS = "function tags"  # <tool_call><function=...><parameter=...>: INTELLECT-3, Qwen 3 Coder
    KEY_TAGS = "key tags"  # <tool_call>NAME<arg_key>..</arg_key><arg_value>..</arg_value>: GLM-4.5 and later
    FIRST_LINE = "first line"  # the name alone in a line, then an object of arguments: GLM-4
    HARMONY = "harmony"  # a message to=functions.NAME on a channel: gpt-oss (harmony.py)
    BARE_JSON = "bare JSON"  # {"name": ..., "parameters": {...}} and nothing else: Llama 3


# The first whose words are all in the template; what is more special comes first.
_WORDS: tuple[tuple[CallFormat, tuple[str, ...]], ...] = (
    (CallFormat.HARMONY, ("<|channel|>", "<|message|>", "functions")),
    (CallFormat.KEY_TAGS, ("<arg_key>", "<tool_call>")),
    (CallFormat.FUNCTION_TAGS, ("<function=", "<tool_call>")),
    (CallFormat.HERMES, ("<tool_call>", "arguments")),
    (CallFormat.FIRST_LINE, ("[gMASK]", "可用工具")),
    (CallFormat.FIRST_LINE, ("[gMASK]", "metadata", "tools")),
    (CallFormat.BARE_JSON, ("<|start_header_id|>", '"parameters"', "tool_calls")),
)


def call_format(template: str) -> CallFormat | None:
    """How a model with this chat template writes calls; None for a template without tools, or of an unknown kind."""
    if "tools" not in template:
        return None
    return next((kind for kind, words in _WORDS if all(word in template for word in words)), None)
