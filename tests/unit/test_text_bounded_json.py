"""JSON of strangers: what would hold the interpreter is refused before it is read."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.text.bounded_json import TooMuch, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text('a"\\[{,}]', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\{', max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_honest_json_is_read_as_always(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["[" * 101 + "]" * 101, "[" + "[]," * 200_000 + "1]", '"",' * 200_001])
def test_too_much_is_refused_at_once(text: str) -> None:
    begun = time.thread_time()
    with pytest.raises(TooMuch):
        parse_json(text)
    assert time.thread_time() - begun < 0.5


@pytest.mark.parametrize("text", ["", "{", "1" * 65, "]" * 1000])
def test_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
