"""The form that a request demands of its answer, in the words of OpenAI, llama-server, vLLM, Ollama and Anthropic."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from swarm.api.errors import BadRequest
from swarm.text.forms import ANY_JSON_OBJECT, Form, json_form

Json = Mapping[str, Any]


def form_of(body: Json, response_format: object = None, field: str = "response_format") -> Form | None:
    """What `response_format`, or a field beside it, demands; None for plain text. BadRequest naming the field."""
    forms = [form for form in (_of_format(response_format, field), *_beside(body)) if form is not None]
    if len(forms) > 1:
        raise BadRequest(f"{field} is one of several forms that are demanded; there can be one", field)
    return forms[0] if forms else None


def schema_or_json(value: object, field: str) -> Form | None:
    """Ollama's `format`: "json", or a schema."""
    if value in (None, ""):
        return None
    if value == "json":
        return ANY_JSON_OBJECT
    return _schema(value, field)


def _of_format(value: object, field: str) -> Form | None:
    if isinstance(value, str):  # some say only the type
        value = {"type": value}
    if value is None:
        return None
    asked: Json = value if isinstance(value, Mapping) else {}
    match asked.get("type"):
        case "text":
            return None
        case "json_object":
            schema = asked.get("schema")
            return ANY_JSON_OBJECT if schema is None else _schema(schema, field)
        case "json_schema":
            inner = asked.get("json_schema", asked)
            return _schema(inner.get("schema") if isinstance(inner, Mapping) else None, field)
    raise BadRequest(f"{field} is {value!r:.80}; it must be of type text, json_object or json_schema", field)


def _beside(body: Json) -> list[Form]:
    """Forms in fields of their own."""
    return [make(body[name], name) for name, make in _FIELDS.items() if body.get(name) is not None]


def _schema(value: object, field: str) -> Form:
    if isinstance(value, bool):
        value = {} if value else value
    if not isinstance(value, Mapping):
        raise BadRequest(f"{field} has no schema that is an object", field)
    return json_form(value)


def _schema_or_text(value: object, field: str) -> Form:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRequest(f"{field} is no JSON", field) from None
    return _schema(value, field)


def _grammar(value: object, field: str) -> Form:
    return Form("gbnf", _text(value, field))


def _regex(value: object, field: str) -> Form:
    return Form("regex", _text(value, field))


def _choice(value: object, field: str) -> Form:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise BadRequest(f"{field} must be a list of texts", field)
    return Form("choice", json.dumps(value))


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{field} must be a text", field)
    return value


# llama-server's, then vLLM's.
_FIELDS: dict[str, Callable[[object, str], Form]] = {
    "json_schema": _schema,
    "grammar": _grammar,
    "guided_json": _schema_or_text,
    "guided_regex": _regex,
    "guided_choice": _choice,
    "guided_grammar": _grammar,
}
