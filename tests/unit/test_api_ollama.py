"""Ollama's chats and texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swarm.answers import Channel, EndReason, Piece
from swarm.api.errors import BadRequest
from swarm.api.ollama import parse_chat, parse_generate
from swarm.errors import SwarmNetworkError
from tests.helpers.played_answer import PlayedAnswer, calls, streamed, whole

ASKED = {"model": "tiny:latest", "messages": [{"role": "user", "content": "hi"}]}


def lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.decode().splitlines()]


def test_options_arrive_and_a_stream_is_the_rule() -> None:
    options = {"temperature": 0, "num_predict": -2, "stop": ["x"], "seed": 5, "num_ctx": 4096, "repeat_penalty": 1.2}
    tools = [{"type": "function", "function": {"name": "f"}}]
    wanted = parse_chat({**ASKED, "options": options, "tools": tools, "think": False, "keep_alive": "5m"})
    (question,) = wanted.questions
    assert wanted.stream and not parse_chat({**ASKED, "stream": False}).stream
    assert (question.model, question.max_tokens, question.stop) == ("tiny", None, ["x"])
    assert (question.params.temperature, question.params.seed, question.params.repetition_penalty) == (0, 5, 1.2)
    assert question.tools == tools and question.thinking is False
    assert parse_chat({**ASKED, "think": "high"}).questions[0].thinking is True


def test_messages_keep_their_calls_and_thoughts() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    told = {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call], "images": []}
    (question,) = parse_chat({"messages": [told]}).questions
    assert question.messages == [{"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "hm"}]


def test_a_text_is_a_question_or_is_continued_as_it_is() -> None:
    (question,) = parse_generate({"prompt": "hi", "system": "be kind"}).questions
    assert [message["role"] for message in question.messages] == ["system", "user"]
    (question,) = parse_generate({"prompt": "hi", "raw": True}).questions
    assert question.prompt == "hi" and not question.messages


@pytest.mark.parametrize(
    ("field", "value"),
    [("images", ["x"]), ("suffix", "x"), ("template", "x"), ("context", [1]), ("messages", 5), ("options", 5)],
)
def test_a_field_that_cannot_be_used_is_named(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_chat({**ASKED, field: value})
    assert caught.value.param == field


def test_pictures_within_messages_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"messages\[0\] has images"):
        parse_chat({"messages": [{"role": "user", "content": "hi", "images": ["x"]}]})


def test_a_whole_reply_has_thinking_text_and_calls() -> None:
    answer = PlayedAnswer(Piece("hm", Channel.THINKING), Piece("Yes."), *calls(("f", '{"a": 1}')))
    reply = whole(parse_chat(ASKED).dialect, answer)
    assert reply["model"] == "tiny:latest" and reply["done"] is True and reply["done_reason"] == "stop"
    assert (reply["message"]["thinking"], reply["message"]["content"]) == ("hm", "Yes.")
    assert reply["message"]["tool_calls"] == [{"function": {"name": "f", "arguments": {"a": 1}}}]
    assert (reply["prompt_eval_count"], reply["eval_count"], reply["eval_duration"]) == (7, 3, 250_000_000)


def test_a_stream_is_lines_and_calls_come_whole() -> None:
    answer = PlayedAnswer(Piece("hm", Channel.THINKING), Piece("Yes."), *calls(("f", '{"a": 1}'), ("g", "{}")))
    told = lines(streamed(parse_chat(ASKED).dialect, answer))
    assert [line["done"] for line in told] == [False] * 4 + [True]
    messages = [line["message"] for line in told]
    assert (messages[0]["thinking"], messages[1]["content"]) == ("hm", "Yes.")
    called = [call["function"] for message in messages for call in message.get("tool_calls", ())]
    assert called == [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]
    cut = lines(streamed(parse_generate({"prompt": "a"}).dialect, PlayedAnswer(Piece("b"), reason=EndReason.LENGTH)))
    assert cut[0]["response"] == "b" and cut[-1]["done_reason"] == "length" and cut[-1]["response"] == ""


def test_what_goes_wrong_is_a_line_with_a_text() -> None:
    assert lines(parse_chat(ASKED).dialect.error(SwarmNetworkError("gone"))) == [{"error": "gone"}]
