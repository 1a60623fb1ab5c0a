"""Forms that an answer may be held to, JSON schemas and grammars, and calls that are demanded: made into one grammar.

Thinking is free. Where a form and functions are both there, an answer has the form or calls a function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from swarm.errors import TextError
from swarm.plain import one_line
from swarm.text.call_formats import CallFormat
from swarm.text.call_grammars import calls_rule, closed
from swarm.text.tools import ToolChoice, Tools

FormKind = Literal["json_schema", "gbnf", "lark", "regex", "choice"]
# One way to write JSON: a small model otherwise fills its answer with blank space.
JSON_OPTIONS = {"whitespace_flexible": False, "key_separator": ": ", "item_separator": ", "}
_BLANK = "/[\\n ]{0,2}/"
_ANALYSIS = 'thought: <|channel|> "analysis" <|message|> analysis <|end|> <|start|> "assistant"\nanalysis: /(.|\\n)*/\n'
_THOUGHT = 'thought[suffix="</think>"]: /(.|\\n)*/\n'


@dataclass(frozen=True)
class Form:
    """What an answer must be: JSON of a schema, or a text of a grammar."""

    kind: FormKind
    text: str


ANY_JSON_OBJECT = Form("json_schema", '{"type": "object"}')


def json_form(schema: Mapping[str, Any]) -> Form:
    """JSON of this schema; objects have the properties that it lists and no others, unless it says otherwise."""
    return Form("json_schema", json.dumps(closed(schema)))


@dataclass(frozen=True)
class Speaker:
    """How a model begins its answer, and how it calls."""

    calls: CallFormat | None
    inside_thought: bool  # the prompt has opened it
    may_think: bool  # of its own accord
    on_channels: bool = False  # it chooses a channel for what it says (harmony.py)


def grammar_of(form: Form | None, tools: Tools, choice: ToolChoice, speaker: Speaker) -> str:
    """llguidance's grammar, as JSON in ASCII; "" where nothing is demanded. TextError for a form that is none."""
    must_call = choice.required and speaker.calls is not None
    if form is None and not must_call:
        return ""
    grammars: list[Any] = []
    bodies = []
    lines: list[str] = []
    if speaker.calls is not None and tools.names:
        bodies.append("calls")
        lines += calls_rule(speaker.calls, tools, choice, JSON_OPTIONS)
    if form is not None and not must_call:
        bodies.append("final" if speaker.on_channels else "@form")
        lines += ['final: <|channel|> "final" <|message|> @form'] * speaker.on_channels
        grammars = _compiled(form)
    start = f"start: {_before(speaker)}({' | '.join(bodies)})\n"
    thought = _THOUGHT if speaker.inside_thought or speaker.may_think else ""
    thought = _ANALYSIS if speaker.on_channels else thought
    outer = {"lark_grammar": start + thought + "\n".join(lines)}
    return json.dumps({"grammars": [outer, *grammars]})


def _before(speaker: Speaker) -> str:
    """What may come before the answer itself."""
    if speaker.on_channels:
        return "thought? "
    if speaker.inside_thought:
        return f"thought {_BLANK} "
    return f'{_BLANK} ("<think>" thought {_BLANK})? ' if speaker.may_think else ""


def _compiled(form: Form) -> list[Any]:
    """A form as named grammars of llguidance."""
    if form.kind == "json_schema":
        return [{"name": "form", "json_schema": {**json.loads(form.text), "x-guidance": JSON_OPTIONS}}]
    try:
        from llguidance import grammar_from  # slow to import, and few answers have a form

        made = grammar_from(form.kind, form.text)
    except ValueError as error:
        raise TextError(f"the form of the answer is no {form.kind}: {one_line(str(error), 200)}") from None
    grammar = json.loads(made)["grammars"][0] if made.startswith("{") else {"lark_grammar": made}
    return [{**grammar, "name": "form"}]
