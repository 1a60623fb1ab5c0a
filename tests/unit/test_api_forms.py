"""The form that a request demands, in everybody's words."""

from __future__ import annotations

import json

import pytest

from swarm.api.errors import BadRequest
from swarm.api.forms import form_of, schema_or_json
from swarm.text.forms import ANY_JSON_OBJECT, Form, json_form
from tests.helpers.schemas import PERSON

OF_PERSON = json_form(PERSON)


@pytest.mark.parametrize("value", [None, "text", {"type": "text"}])
def test_plain_text_demands_nothing(value: object) -> None:
    assert form_of({}, value) is None


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("json_object", ANY_JSON_OBJECT),
        ({"type": "json_object"}, ANY_JSON_OBJECT),
        ({"type": "json_object", "schema": PERSON}, OF_PERSON),
        ({"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": True}}, OF_PERSON),
        ({"type": "json_schema", "name": "p", "schema": PERSON}, OF_PERSON),
    ],
)
def test_a_response_format_is_a_form(value: object, form: Form) -> None:
    assert form_of({}, value) == form


@pytest.mark.parametrize(
    ("field", "value", "form"),
    [
        ("json_schema", PERSON, OF_PERSON),
        ("guided_json", json.dumps(PERSON), OF_PERSON),
        ("guided_regex", "a+", Form("regex", "a+")),
        ("guided_choice", ["a", "b"], Form("choice", '["a", "b"]')),
        ("grammar", 'root ::= "a"', Form("gbnf", 'root ::= "a"')),
    ],
)
def test_other_servers_fields_are_honoured(field: str, value: object, form: Form) -> None:
    assert form_of({field: value}) == form


@pytest.mark.parametrize(
    ("body", "value", "field"),
    [
        ({}, {"type": "xml"}, "response_format"),
        ({}, 5, "response_format"),
        ({}, {"type": "json_schema"}, "response_format"),
        ({"guided_json": "{"}, None, "guided_json"),
        ({"guided_choice": []}, None, "guided_choice"),
        ({"grammar": 5}, None, "grammar"),
        ({"grammar": "x"}, "json_object", "response_format"),
    ],
)
def test_a_form_that_is_none_is_named(body: dict[str, object], value: object, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        form_of(body, value)
    assert caught.value.param == field


def test_ollama_s_format() -> None:
    assert schema_or_json(None, "format") is schema_or_json("", "format") is None
    assert schema_or_json("json", "format") == ANY_JSON_OBJECT and schema_or_json(PERSON, "format") == OF_PERSON
    with pytest.raises(BadRequest, match="format"):
        schema_or_json("xml", "format")
