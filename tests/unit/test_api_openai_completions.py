"""Completions in OpenAI's shape."""

from __future__ import annotations

import pytest

from swarm.answers import Piece
from swarm.api.errors import BadRequest
from swarm.api.openai_completions import parse_completion, prompts_of
from swarm.node.answer import Question
from tests.helpers.played_answer import PlayedAnswer, events_in, streamed, whole


@pytest.mark.parametrize("value", [None, 5, [], [[]], [1.5], [True], [{}], ["a", 1]])
def test_a_completion_needs_texts_or_lists_of_ids(value: object) -> None:
    with pytest.raises(BadRequest, match="prompt must be a text"):
        parse_completion({"prompt": value})


def test_a_completion_takes_texts_and_ids_alone_or_in_lists() -> None:
    assert prompts_of("a") == ["a"] and prompts_of([1, 2]) == [[1, 2]]
    assert prompts_of(["a", [1, 2]]) == ["a", [1, 2]]
    assert [question.prompt for question in parse_completion({"prompt": ["a", "b"], "n": 2}).questions] == list("aabb")


def test_the_length_is_openais_unless_another_is_asked_for() -> None:
    for given, taken in ((None, 16), (0, 0), (-1, None), (7, 7)):
        assert parse_completion({"prompt": "a", "max_tokens": given}).questions[0].max_tokens == taken


@pytest.mark.parametrize(
    ("field", "value"), [("best_of", 3), ("suffix", 5), ("min_tokens", 2), ("n", 17), ("echo", "yes")]
)
def test_a_field_that_cannot_be_used_is_named(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_completion({"prompt": "a", field: value})
    assert caught.value.param == field


def test_too_many_texts_at_once_are_refused() -> None:
    with pytest.raises(BadRequest, match="17 texts are asked for"):
        parse_completion({"prompt": ["a"] * 17})


def test_the_prompt_comes_first_for_those_who_want_it() -> None:
    answer = PlayedAnswer(Piece(" time"), question=Question("", prompt="Once"))
    body = {"prompt": "Once", "echo": True}
    assert whole(parse_completion(body).dialect, answer)["choices"][0]["text"] == "Once time"
    chunks = [value for _, value in events_in(streamed(parse_completion(body).dialect, answer))][:-1]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Once time"
