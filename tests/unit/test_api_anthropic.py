"""Anthropic's messages: blocks in, blocks out."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from swarm.answers import Channel, EndReason, Piece
from swarm.api.anthropic import parse_messages, stop_reason
from swarm.api.errors import BadRequest
from swarm.text.tools import ToolChoice
from tests.helpers.api_client import api_of, returns
from tests.helpers.played_answer import PlayedAnswer, calls, events_in, streamed, whole

ASKED = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}


def test_blocks_become_messages() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sunny"}]},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    body = {
        **ASKED,
        "messages": messages,
        "system": [{"type": "text", "text": "be kind"}],
        "tools": [TOOL],
        "stop_sequences": ["x"],
    }
    (question,) = parse_messages(body).questions
    system, user, assistant, tool, again = question.messages
    assert (system["content"], user["content"], again["content"]) == ("be kind", "hi", "And now?")
    assert (assistant["content"], assistant["reasoning_content"]) == ("I look.", "hm")
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}  # type: ignore[index]
    assert tool == {"role": "tool", "tool_call_id": "t1", "content": "sunny"}
    assert question.tools == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "description": "d"}}
    ]
    assert question.stop == ["x"] and question.max_tokens == 9


def test_what_tool_choice_and_thinking_demand() -> None:
    def choice(value: object) -> ToolChoice:
        (question,) = parse_messages({**ASKED, "tools": [TOOL], "tool_choice": value}).questions
        return question.tool_choice

    assert choice({"type": "any"}) == ToolChoice(required=True)
    assert choice({"type": "tool", "name": "f"}) == ToolChoice(True, "f")
    assert choice({"type": "auto", "disable_parallel_tool_use": True}) == ToolChoice(parallel=False)
    (question,) = parse_messages({**ASKED, "tools": [TOOL], "tool_choice": {"type": "none"}}).questions
    assert question.tools is None and question.thinking is None
    (question,) = parse_messages({**ASKED, "thinking": {"type": "enabled", "budget_tokens": 1024}}).questions
    assert question.thinking is True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", []),
        ("messages", [{"role": "king", "content": "hi"}]),
        ("messages", [{"role": "user", "content": [{"type": "image"}]}]),
        ("messages", [{"role": "user"}]),
        ("system", 5),
        ("system", [{"type": "image"}]),
        ("tools", [{"type": "web_search_20250305", "name": "web_search"}]),
        ("tool_choice", {"type": "any"}),
        ("mcp_servers", [{}]),
        ("max_tokens", 0),
    ],
)
def test_a_field_that_cannot_be_used_is_named(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_messages({**ASKED, field: value})
    assert caught.value.param == field


def test_a_whole_message_has_its_blocks_in_order() -> None:
    answer = PlayedAnswer(Piece("hm", Channel.THINKING), Piece("I look."), *calls(("f", '{"a": 1}')))
    message = whole(parse_messages(ASKED).dialect, answer)
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][2]["input"] == {"a": 1} and message["content"][2]["id"].startswith("toolu_")
    assert message["stop_reason"] == "tool_use"
    assert message["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 2,
        "output_tokens": 3,
    }


def test_a_stream_tells_of_each_block() -> None:
    answer = PlayedAnswer(
        Piece("hm", Channel.THINKING), Piece("I "), Piece("look."), *calls(("f", '{"a": 1}'), ("g", "{}"))
    )
    events = events_in(streamed(parse_messages(ASKED).dialect, answer))
    names = [name for name, _ in events]
    assert all(name == value["type"] for name, value in events)
    assert names[0] == "message_start" and names[-2:] == ["message_delta", "message_stop"]
    starts = [value for name, value in events if name == "content_block_start"]
    assert [start["index"] for start in starts] == [0, 1, 2, 3]
    assert [start["content_block"]["type"] for start in starts] == ["thinking", "text", "tool_use", "tool_use"]
    assert names.count("content_block_stop") == 4
    parts = [value["delta"]["partial_json"] for _, value in events if value.get("index") == 2 and "delta" in value]
    assert json.loads("".join(parts)) == {"a": 1}
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("reason", "stop_string", "told"),
    [
        (EndReason.STOP, None, "end_turn"),
        (EndReason.STOP, "x", "stop_sequence"),
        (EndReason.LENGTH, None, "max_tokens"),
        (EndReason.CONTEXT, None, "model_context_window_exceeded"),
    ],
)
def test_how_an_answer_ended(reason: EndReason, stop_string: str | None, told: str) -> None:
    answer = PlayedAnswer(Piece("a"), reason=reason)
    answer.stop_string = stop_string
    assert stop_reason(answer) == told  # type: ignore[arg-type]


def test_tokens_are_counted_without_an_answer() -> None:
    prompt = returns(SimpleNamespace(ids=[1, 2, 3]))
    reply = api_of(prompt=prompt).post("/v1/messages/count_tokens", json=ASKED)
    assert reply.json() == {"input_tokens": 3}
