"""OpenAI's responses: items in, items out, and an event for each step."""

from __future__ import annotations

import json

import pytest

from swarm.answers import Channel, EndReason, Piece
from swarm.api.errors import BadRequest
from swarm.api.openai_responses import parse_responses
from swarm.errors import SwarmNetworkError
from swarm.text.tools import ToolChoice
from tests.helpers.played_answer import PlayedAnswer, calls, events_in, streamed, whole

TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}


def test_a_text_and_instructions_are_a_conversation() -> None:
    (question,) = parse_responses({"input": "hi", "instructions": "be kind", "max_output_tokens": 5}).questions
    assert question.messages == [{"role": "developer", "content": "be kind"}, {"role": "user", "content": "hi"}]
    assert question.max_tokens == 5


def test_items_become_messages_and_calls_of_a_turn_stay_together() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}], "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]
    (question,) = parse_responses(
        {"input": items, "tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}}
    ).questions
    _, assistant, tool = question.messages
    assert assistant["reasoning_content"] == "hm"
    assert [call["id"] for call in assistant["tool_calls"]] == ["c1", "c2"]  # type: ignore[attr-defined]
    assert tool == {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    assert question.tools == [
        {"type": "function", "function": {k: TOOL[k] for k in ("name", "description", "parameters")}}
    ]
    assert question.tool_choice == ToolChoice(True, "f")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", 5),
        ("input", []),
        ("input", [{"type": "image_generation_call"}]),
        ("tools", [{"type": "web_search"}]),
        ("previous_response_id", "resp_1"),
        ("background", True),
        ("temperature", "hot"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_responses({"input": "hi", field: value})
    assert caught.value.param == field


def test_a_whole_response_has_its_items_in_order() -> None:
    answer = PlayedAnswer(Piece("hm", Channel.THINKING), Piece("I look."), *calls(("f", '{"a": 1}')))
    response = whole(parse_responses({"input": "hi"}).dialect, answer)
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call"]
    assert response["output"][1]["content"][0]["text"] == "I look."
    assert response["output"][2]["arguments"] == '{"a": 1}' and response["output"][2]["call_id"].startswith("call_")
    assert response["status"] == "completed" and response["usage"]["total_tokens"] == 10
    cut = whole(parse_responses({"input": "hi"}).dialect, PlayedAnswer(Piece("a"), reason=EndReason.LENGTH))
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_a_stream_tells_of_each_step_and_ends_with_the_whole() -> None:
    answer = PlayedAnswer(
        Piece("hm", Channel.THINKING), Piece("I "), Piece("look."), *calls(("f", '{"a": 1}'), ("g", "{}"))
    )
    events = events_in(streamed(parse_responses({"input": "hi"}).dialect, answer))
    assert all(name == value["type"] for name, value in events)
    assert [value["sequence_number"] for _, value in events] == list(range(len(events)))
    names = [name.removeprefix("response.") for name, _ in events]
    assert names[:3] == ["created", "in_progress", "output_item.added"] and names[-1] == "completed"
    for name in ("output_text.delta", "output_text.done", "content_part.added", "content_part.done"):
        assert name in names
    assert names.count("output_item.added") == names.count("output_item.done") == 4
    assert names.count("function_call_arguments.done") == 2
    text = "".join(value["delta"] for name, value in events if name == "response.output_text.delta")
    assert text == "I look."
    output = events[-1][1]["response"]["output"]
    assert [json.loads(item["arguments"]) for item in output[2:]] == [{"a": 1}, {}]
    ids = {value["item"]["id"] for name, value in events if name == "response.output_item.added"}
    assert ids == {item["id"] for item in output}


def test_a_stream_that_fails_says_so() -> None:
    dialect = parse_responses({"input": "hi"}).dialect
    ((name, value),) = events_in(dialect.error(SwarmNetworkError("it is gone")))
    assert name == "response.failed" and value["response"]["error"]["message"] == "it is gone"
