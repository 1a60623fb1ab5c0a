"""Forms and demanded calls become one grammar, whatever way a model thinks and calls."""

from __future__ import annotations

import json

import pytest

from swarm.errors import TextError
from swarm.text.call_formats import CallFormat
from swarm.text.forms import ANY_JSON_OBJECT, Form, Speaker, grammar_of, json_form
from swarm.text.tools import AUTO, ToolChoice, Tools
from tests.helpers.grammars import follows
from tests.helpers.schemas import PERSON, record

TOOLS = Tools([{"name": "now", "parameters": {}}])
REQUIRED = ToolChoice(required=True)
PLAIN = Speaker(None, inside_thought=False, may_think=False)
CALLER = Speaker(CallFormat.HERMES, inside_thought=False, may_think=False)
ADA = '{"name": "Ada", "age": 36}'
CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def test_nothing_is_demanded_where_nothing_is() -> None:
    assert grammar_of(None, TOOLS, AUTO, CALLER) == ""
    assert grammar_of(None, TOOLS, REQUIRED, PLAIN) == ""  # a model that cannot call: refused before


def test_an_answer_has_its_form() -> None:
    grammar = grammar_of(json_form(PERSON), Tools(()), AUTO, PLAIN)
    assert follows(grammar, ADA)
    for other in ("Ada", "{}", ADA + "!", '{"name": "Ada", "age": -1}', " " + ADA):
        assert not follows(grammar, other)
    assert grammar.isascii() and "\n" not in grammar


def test_thinking_is_free() -> None:
    form = json_form(PERSON)
    inside = grammar_of(form, Tools(()), AUTO, Speaker(None, inside_thought=True, may_think=True))
    assert follows(inside, "hm {\n</think>\n\n" + ADA) and not follows(inside, ADA)
    may = grammar_of(form, Tools(()), AUTO, Speaker(None, inside_thought=False, may_think=True))
    assert follows(may, "<think>hm</think>" + ADA) and follows(may, "\n" + ADA)


def test_an_answer_has_the_form_or_calls_where_it_may_do_both() -> None:
    both = grammar_of(json_form(PERSON), TOOLS, AUTO, CALLER)
    assert follows(both, ADA) and follows(both, CALL)
    must = grammar_of(json_form(PERSON), TOOLS, REQUIRED, CALLER)
    assert follows(must, CALL) and not follows(must, ADA)


@pytest.mark.parametrize(
    ("form", "fine", "wrong"),
    [
        (ANY_JSON_OBJECT, '{"a": [1, {"b": null}]}', "[1]"),
        (Form("regex", "[a-c]{2}"), "ab", "abc"),
        (Form("choice", '["yes", "no"]'), "no", "noes"),
        (Form("gbnf", 'root ::= "a"+ "b"'), "aab", "ba"),
        (Form("lark", 'start: "a" "b"?'), "ab", "abb"),
    ],
)
def test_forms_of_every_kind(form: Form, fine: str, wrong: str) -> None:
    grammar = grammar_of(form, Tools(()), AUTO, PLAIN)
    assert follows(grammar, fine) and not follows(grammar, wrong)


def test_a_grammar_that_is_none_says_which_kind_it_should_be() -> None:
    with pytest.raises(TextError, match="the form of the answer is no gbnf"):
        grammar_of(Form("gbnf", "root ::= ("), Tools(()), AUTO, PLAIN)


def test_objects_have_the_properties_that_are_listed_and_no_others() -> None:
    open_record = {
        name: value for name, value in record(x={"type": "integer"}).items() if name != "additionalProperties"
    }
    grammar = grammar_of(json_form(open_record), Tools(()), AUTO, PLAIN)
    assert follows(grammar, '{"x": 1}') and not follows(grammar, '{"x": 1, "y": 2}')
    wide = grammar_of(json_form({**open_record, "additionalProperties": True}), Tools(()), AUTO, PLAIN)
    assert follows(wide, '{"x": 1, "y": 2}')
    assert json.loads(json_form({"allOf": [open_record, open_record]}).text)["allOf"] == [open_record, open_record]
