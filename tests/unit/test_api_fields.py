"""Fields that several dialects have in common."""

from __future__ import annotations

import msgspec
import pytest

from swarm.api.errors import BadRequest
from swarm.api.fields import SamplingRequest, converted, length_of, params_of, refuse, stops_of


def test_whole_numbers_may_be_written_as_others() -> None:
    request = converted({"top_k": 40.0, "temperature": 1, "seed": -3.0, "unknown": {}}, SamplingRequest)
    assert (request.top_k, request.temperature, request.seed) == (40, 1.0, -3)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("top_k", 1.5, "top_k: expected a whole number, got a number"),
        ("temperature", "hot", "temperature: expected a number, got a text"),
        ("temperature", 1e300, "temperature is 1e"),
        ("min_p", 2, "min_p is 2"),
    ],
)
def test_a_refusal_names_the_field_and_what_it_must_be(field: str, value: object, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        params_of(converted({field: value}, SamplingRequest))
    assert caught.value.param == field and words in str(caught.value) and len(str(caught.value)) < 200


def test_nothing_and_no_limit_are_taken() -> None:
    assert params_of(converted({"top_k": -1, "min_p": None}, SamplingRequest)).top_k == 0
    assert stops_of(None) == stops_of("") == [] and stops_of(["a", ""]) == ["a"]
    assert length_of("x", None, 1) is length_of("x", -1, 1) is None and length_of("x", 0, 0) == 0


def test_demands_are_refused_only_where_they_demand_something() -> None:
    refuse({"suffix": "", "other": 1}, {"suffix": "leave it out"})
    with pytest.raises(BadRequest, match="suffix is not supported; leave it out"):
        refuse({"suffix": "x"}, {"suffix": "leave it out"})


class Asked(msgspec.Struct):
    a: list[dict[str, str]]


def test_half_a_character_is_taken_as_one_that_is_missing() -> None:
    """As a program leaves it that cuts texts by length."""
    assert converted({"a": [{"x\ud83e": "\ud83e\udd99 \ud800"}], "\udfff": 1}, Asked).a == [{"x\ufffd": "🦙 \ufffd"}]
