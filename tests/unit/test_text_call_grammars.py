"""Demanded calls: what the grammar of each family's way lets through is read again as the call that it is."""

from __future__ import annotations

import json

import pytest

from swarm.answers import Channel
from swarm.text.call_formats import CallFormat
from swarm.text.call_grammars import closed
from swarm.text.calls import call_reader
from swarm.text.forms import Speaker, grammar_of
from swarm.text.tools import ToolChoice, Tools
from tests.helpers.grammars import follows
from tests.helpers.schemas import INT, one_of, record, text
from tests.unit.test_text_calls import ANSWERS
from tests.unit.test_text_calls import TOOLS as OF_ANSWERS

F = CallFormat
WHERE = record(x=INT)
TOOLS = Tools(
    [
        {
            "name": "go",
            "parameters": record("fast", to=text(), how=one_of("foot", "car"), fast={"type": "boolean"}, where=WHERE),
        },
        {"name": "now", "parameters": {}},
    ]
)
REQUIRED = ToolChoice(required=True)
GO = {"to": "Rome", "how": "car", "fast": True, "where": {"x": 1}}
WRITTEN = {
    F.HERMES: '<tool_call>\n{"name": "go", "arguments": ARGS}\n</tool_call>',
    F.BARE_JSON: '{"name": "go", "parameters": ARGS}',
    F.FIRST_LINE: "go\nARGS",
    F.KEY_TAGS: "<tool_call>go\n<arg_key>to</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>how</arg_key>\n"
    "<arg_value>car</arg_value>\n<arg_key>fast</arg_key>\n<arg_value>true</arg_value>\n"
    '<arg_key>where</arg_key>\n<arg_value>{"x": 1}</arg_value>\n</tool_call>',
    F.FUNCTION_TAGS: "<tool_call>\n<function=go>\n<parameter=to>\nRome\n</parameter>\n"
    "<parameter=how>\ncar\n</parameter>\n"
    '<parameter=fast>\ntrue\n</parameter>\n<parameter=where>\n{"x": 1}\n</parameter>\n</function>\n</tool_call>',
}


def demanded(kind: CallFormat, choice: ToolChoice = REQUIRED, tools: Tools = TOOLS) -> str:
    return grammar_of(None, tools, choice, Speaker(kind, inside_thought=False, may_think=False))


def call(kind: CallFormat) -> str:
    return WRITTEN[kind].replace("ARGS", json.dumps(GO))


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_demanded_call_is_the_only_answer_and_is_read_again(kind: CallFormat) -> None:
    grammar, written = demanded(kind), call(kind)
    assert follows(grammar, written)
    assert not follows(grammar, "I would rather not.")
    assert not follows(grammar, written.replace("car", "plane"))
    reader = call_reader(kind, TOOLS)
    pieces = [*reader.push(written), *reader.finish()]
    assert {piece.channel for piece in pieces} == {Channel.CALL}
    assert json.loads("".join(piece.text for piece in pieces)) == GO


@pytest.mark.parametrize("kind", WRITTEN)
def test_one_function_may_be_demanded_by_name(kind: CallFormat) -> None:
    assert not follows(demanded(kind, ToolChoice(required=True, name="now")), call(kind))
    assert follows(demanded(kind, ToolChoice(required=True, name="go")), call(kind))


@pytest.mark.parametrize("kind", [F.HERMES, F.KEY_TAGS, F.FUNCTION_TAGS])
def test_several_calls_follow_each_other_unless_there_may_be_one_only(kind: CallFormat) -> None:
    two = f"{call(kind)}\n{call(kind)}"
    assert follows(demanded(kind), two)
    assert not follows(demanded(kind, ToolChoice(required=True, parallel=False)), two)


def test_what_may_be_left_out_may_be_left_out() -> None:
    short = call(F.KEY_TAGS).replace("<arg_key>fast</arg_key>\n<arg_value>true</arg_value>\n", "")
    assert follows(demanded(F.KEY_TAGS), short)
    assert not follows(demanded(F.KEY_TAGS), short.replace("<arg_key>to</arg_key>\n<arg_value>Rome</arg_value>\n", ""))


@pytest.mark.parametrize("name", ["Qwen 3", "GLM-4.5", "INTELLECT-3", "Llama 3"])
def test_what_the_families_write_of_themselves_follows_the_grammar(name: str) -> None:
    kind, written, _, _ = ANSWERS[name]
    assert follows(demanded(kind, tools=OF_ANSWERS), written.removeprefix("\nI look.\n"))


def test_a_schema_is_closed_down_to_its_leaves_and_not_within_its_parts() -> None:
    inner = {"type": "object", "properties": {"properties": {"type": "string"}}}
    assert closed({"items": inner})["items"]["additionalProperties"] is False
    assert closed({"properties": {"allOf": inner}})["properties"]["allOf"]["additionalProperties"] is False
    assert closed({"allOf": [inner]}) == {"allOf": [inner]}
    assert closed({"properties": {}, "additionalProperties": True})["additionalProperties"] is True
    assert closed({"type": "integer", "minimum": 3}) == {"type": "integer", "minimum": 3, "maximum": 10**15}
    assert closed({"type": ["number", "null"]})["multipleOf"] == 1e-9
    assert closed({"enum": [{"properties": {}}]}) == {"enum": [{"properties": {}}]}
