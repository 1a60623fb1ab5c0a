"""What the text of an argument means is said by the function's schema."""

from __future__ import annotations

import pytest

from swarm.text.call_tags import value_of


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "string"}, "5"),
        ('{"a": 1}', {"type": "string"}, '{"a": 1}'),
        ("5", {"type": "integer"}, 5),
        (" 5 ", {"type": ["integer", "null"]}, 5),
        ("null", {"type": ["string", "null"]}, None),
        ("5", {"type": ["string", "null"]}, "5"),
        ("True", {"type": "boolean"}, True),
        ("five", {"type": "integer"}, "five"),
        ("[1, 2]", {"type": "array"}, [1, 2]),
        ('{"a": 1}', {}, {"a": 1}),
        ("Paris", {}, "Paris"),
    ],
)
def test_a_value_is_what_its_schema_allows(text: str, schema: dict[str, object], value: object) -> None:
    assert value_of(text, schema) == value
