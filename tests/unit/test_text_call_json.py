"""JSON objects that are calls: where they end, and what odd ones mean."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from swarm.text.call_json import ObjectEnd, arguments_text, calls_in

VALUES = st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v))


@given(st.dictionaries(st.text(), VALUES), st.integers(1, 7))
def test_the_end_of_an_object_is_found_however_it_is_cut(value: dict[str, object], step: int) -> None:
    text = json.dumps(value)
    end, whole = ObjectEnd(), text + "}<rest"
    position = 0
    while (size := end.feed(whole[position : position + step])) is None:
        position += step
    assert whole[: position + size] == text


def test_calls_are_found_in_what_models_make_of_them() -> None:
    assert calls_in({"name": "f", "arguments": {"a": 1}}) == [("f", '{"a": 1}')]
    assert calls_in({"function": {"name": "f", "parameters": None}}) == [("f", "{}")]
    assert calls_in([{"name": "f"}, {"name": "g", "arguments": '{"b": 2}'}]) == [("f", "{}"), ("g", '{"b": 2}')]
    assert calls_in({"names": 1}) == calls_in(5) == calls_in("f") == []


def test_arguments_are_always_an_object() -> None:
    assert arguments_text("[1]") == arguments_text("{") == arguments_text(None) == arguments_text(5) == "{}"
