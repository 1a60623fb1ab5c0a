"""Requests in OpenAI's shape, checked field by field, without a node."""

from __future__ import annotations

import json

import pytest

from swarm.api.errors import BadRequest
from swarm.api.openai import parse_chat, parse_completion, sse

ASKED = {"messages": [{"role": "user", "content": "hi"}]}


def test_a_plain_request_takes_the_usual_parameters() -> None:
    wanted = parse_chat(dict(ASKED))
    assert not wanted.stream and not wanted.include_usage
    question = wanted.question
    assert question.model == "" and question.max_tokens is None and question.thinking is None and question.tools is None
    assert (question.params.temperature, question.params.seed) == (0.8, None)


def test_every_field_arrives() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    question = parse_chat(
        {
            **ASKED,
            "model": "m",
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 7,
            "min_p": 0.1,
            "presence_penalty": 1,
            "frequency_penalty": -1.5,
            "repeat_penalty": 1.1,
            "seed": -1,
            "max_completion_tokens": 9,
            "stop": "x",
            "tools": tools,
            "chat_template_kwargs": {"enable_thinking": True},
        }
    ).question
    params = question.params
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0, 0.5, 7, 0.1)
    assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (1, -1.5, 1.1)
    assert params.seed == 2**63 - 1 and question.max_tokens == 9 and question.stop == ["x"]
    assert question.tools == tools and question.thinking is True


def test_tools_and_thinking_can_be_switched_off() -> None:
    question = parse_chat({**ASKED, "tools": [{}], "tool_choice": "none", "reasoning_effort": "none"}).question
    assert question.tools is None and question.thinking is False


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 1),
        ("messages", "hi"),
        ("messages", ["hi"]),
        ("stream", "yes"),
        ("stream_options", []),
        ("temperature", True),
        ("temperature", "1"),
        ("top_k", 1.5),
        ("seed", "7"),
        ("max_tokens", -1),
        ("max_tokens", 2.0),
        ("stop", [""]),
        ("stop", ["x"] * 17),
        ("stop", 5),
        ("n", 2),
        ("logprobs", True),
        ("tools", {"a": 1}),
        ("response_format", {"type": "json_object"}),
        ("chat_template_kwargs", 1),
    ],
)
def test_a_field_that_cannot_be_used_is_named(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_chat({**ASKED, field: value})
    assert caught.value.param == field and field in str(caught.value)


@pytest.mark.parametrize("value", [None, 5, [], [[1], [2]], ["a", "b"], [1.5], [True]])
def test_a_completion_needs_one_text_or_one_list_of_ids(value: object) -> None:
    with pytest.raises(BadRequest, match="prompt must be one text"):
        parse_completion({"prompt": value})


def test_a_completion_takes_text_or_ids() -> None:
    for given, taken in (("a", "a"), ([1, 2], [1, 2]), (["a"], "a"), ([[1, 2]], [1, 2])):
        assert parse_completion({"prompt": given}).question.prompt == taken
    assert parse_completion({"prompt": "a"}).question.max_tokens == 16
    assert parse_completion({"prompt": "a", "max_tokens": 0}).question.max_tokens == 0


def test_events_are_lines_that_a_reader_can_split() -> None:
    raw = sse({"text": "a\nb ü"}, "swarm").decode()
    name, data, *rest = raw.split("\n")
    assert name == "event: swarm" and json.loads(data.removeprefix("data: ")) == {"text": "a\nb ü"} and rest == ["", ""]
