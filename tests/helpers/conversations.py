"""The four conversations that the template test data renders, and what it says they render to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
]
_CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo", "n": 3}}}
HI = [{"role": "user", "content": "Hi"}]
TWO_TURNS = [
    {"role": "system", "content": "SYS"},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello", "reasoning_content": "R1"},
    {"role": "user", "content": "Bye"},
]
WITH_TOOLS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "Checking.", "reasoning_content": "I should call.", "tool_calls": [_CALL]},
    {"role": "tool", "content": '{"t": 5}'},
]
# Name in RENDERS.txt: messages, and the options of the rendering.
CONVERSATIONS: dict[str, tuple[list[dict[str, object]], dict[str, object]]] = {
    "plain": (HI, {}),
    "sys+2turn": (TWO_TURNS, {}),
    "nothink": (HI, {"thinking": False}),
    "tools": (WITH_TOOLS, {"tools": TOOLS}),
}


def expected_renders(folder: Path) -> dict[str, dict[str, str]]:
    """File name to conversation to text; a text that starts with ERR is an error that the rendering gives."""
    renders: dict[str, dict[str, str]] = {}
    name = ""
    for line in (folder / "RENDERS.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("####"):
            name = line.split()[-1]
            renders[name] = {}
        elif match := re.fullmatch(r"  \[(.*?)\] (.*)", line):
            text = match[2]
            renders[name][match[1]] = text if text.startswith("ERR") else ast.literal_eval(text)
    return renders
