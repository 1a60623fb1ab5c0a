"""Chats in OpenAI's shape, checked field by field, without a node."""

from __future__ import annotations

import json

import pytest

from swarm.answers import Channel, EndReason, Piece
from swarm.api.errors import BadRequest
from swarm.api.openai_chat import parse_chat, tool_choice
from swarm.node.answer import Question, Reading
from swarm.text.tools import AUTO, ToolChoice
from tests.helpers.played_answer import PlayedAnswer, calls, events_in, streamed, whole

ASKED = {"messages": [{"role": "user", "content": "hi"}]}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def question_of(body: dict[str, object]) -> Question:
    (question,) = parse_chat({**ASKED, **body}).questions
    return question


def test_a_plain_request_takes_the_usual_parameters() -> None:
    wanted = parse_chat(dict(ASKED))
    assert not wanted.stream
    (question,) = wanted.questions
    assert question.model == "" and question.max_tokens is None and question.thinking is None and question.tools is None
    assert (question.params.temperature, question.params.seed) == (0.8, None)


def test_every_field_arrives() -> None:
    question = question_of(
        {
            "model": "openai/m:latest",
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 7.0,
            "min_p": 0.1,
            "presence_penalty": 1,
            "frequency_penalty": -1.5,
            "repeat_penalty": 1.1,
            "seed": -3,
            "max_completion_tokens": 9,
            "stop": "x",
            "tools": TOOLS,
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "chat_template_kwargs": {"enable_thinking": True},
        }
    )
    params = question.params
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0, 0.5, 7, 0.1)
    assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (1, -1.5, 1.1)
    assert params.seed == 2**63 - 3 and question.max_tokens == 9 and question.stop == ["x"]
    assert question.tools == TOOLS and question.thinking is True and question.model == "m"
    assert question.tool_choice == ToolChoice(required=True, parallel=False)


def test_what_means_nothing_special_is_taken() -> None:
    question = question_of({"max_tokens": -1, "stop": ["", "x", ""], "top_k": -1, "seed": 2.0, "user": "me", "n": None})
    assert (question.max_tokens, question.stop, question.params.top_k, question.params.seed) == (None, ["x"], 0, 2)
    assert question_of({"stop": ""}).stop == []


def test_a_seed_of_minus_one_is_another_one_for_every_answer() -> None:
    assert question_of({"seed": -1}).params.seed is None
    first, second = (question_of({"seed": -1}).params.seeded().seed for _ in range(2))
    assert first != second


def test_what_is_said_for_the_models_own_template_is_passed_on() -> None:
    said = {"enable_thinking": False, "clear_thinking": False, "reasoning_effort": "high"}
    question = question_of({"chat_template_kwargs": said})
    assert question.thinking is False
    assert question.template_values == {"clear_thinking": False, "reasoning_effort": "high"}
    assert question_of({"reasoning_effort": "low"}).template_values == {"reasoning_effort": "low"}
    assert question_of({"reasoning_effort": "none"}).template_values == {}


def test_tools_and_thinking_can_be_switched_off() -> None:
    question = question_of({"tools": TOOLS, "tool_choice": "none", "reasoning_effort": "none"})
    assert question.tools is None and question.thinking is False


def test_several_choices_have_seeds_of_their_own() -> None:
    questions = parse_chat({**ASKED, "n": 3, "seed": 2**63 - 1}).questions
    assert [question.params.seed for question in questions] == [2**63 - 1, 0, 1]
    assert len({question.params for question in parse_chat({**ASKED, "n": 2}).questions}) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 1),
        ("messages", "hi"),
        ("messages", ["hi"]),
        ("messages", []),
        ("stream", "yes"),
        ("stream_options", []),
        ("temperature", True),
        ("temperature", "1"),
        ("temperature", -1),
        ("top_k", 1.5),
        ("seed", "7"),
        ("max_tokens", -2),
        ("max_tokens", 2.5),
        ("stop", ["x"] * 17),
        ("stop", 5),
        ("n", 0),
        ("n", 17),
        ("tools", {"a": 1}),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "g"}}),
        ("chat_template_kwargs", 1),
        ("chat_template_kwargs", {"enable_thinking": "no"}),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("min_tokens", 4),
        ("suffix", "x"),
        ("best_of", 2),
        ("modalities", ["text", "audio"]),
        ("continue_final_message", True),
    ],
)
def test_a_field_that_cannot_be_used_is_named(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_chat({**ASKED, field: value})
    assert caught.value.param == field and field in str(caught.value)


def test_what_tool_choice_demands() -> None:
    assert tool_choice(None, ()) == tool_choice("auto", TOOLS) == AUTO
    assert tool_choice({"type": "function", "function": {"name": "f"}}, TOOLS) == ToolChoice(True, "f")
    assert tool_choice({"type": "function", "name": "f"}, TOOLS) == ToolChoice(True, "f")


def test_a_whole_reply_has_thinking_text_and_calls() -> None:
    answer = PlayedAnswer(Piece("hm", Channel.THINKING), Piece("Let me see."), *calls(("f", '{"a": 1}')))
    reply = whole(parse_chat({**ASKED, "model": "openai/Tiny"}).dialect, answer)
    (choice,) = reply["choices"]
    message = choice["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "Let me see.")
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert choice["finish_reason"] == "tool_calls" and reply["model"] == "openai/Tiny"
    assert reply["usage"]["total_tokens"] == 10 and reply["timings"]["predicted_per_second"] == 8.0
    assert (
        whole(parse_chat(dict(ASKED)).dialect, PlayedAnswer(*calls(("f", "{}"))))["choices"][0]["message"]["content"]
        is None
    )


def test_a_streamed_reply_says_the_same() -> None:
    answer = PlayedAnswer(Piece("hm", Channel.THINKING), Piece("Yes."), *calls(("f", '{"a": 1}'), ("g", "{}")))
    body = {**ASKED, "stream_options": {"include_usage": True}}
    chunks = [value for _, value in events_in(streamed(parse_chat(body).dialect, answer))]
    assert chunks.pop() == "[DONE]"
    figures = chunks.pop()
    assert figures["choices"] == [] and figures["usage"]["completion_tokens"] == 3
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes."
    parts = [part for delta in deltas for part in delta.get("tool_calls", ())]
    for index, name, arguments in ((0, "f", {"a": 1}), (1, "g", {})):
        mine = [part for part in parts if part["index"] == index]
        assert mine[0]["function"]["name"] == name and mine[0]["id"] and "id" not in mine[1]
        assert json.loads("".join(part["function"]["arguments"] for part in mine)) == arguments
    assert len({part["id"] for part in parts if "id" in part}) == 2


def test_several_choices_are_told_apart_and_the_prompt_counts_once() -> None:
    reply = whole(
        parse_chat({**ASKED, "n": 2}).dialect,
        PlayedAnswer(Piece("a")),
        PlayedAnswer(Piece("b"), reason=EndReason.LENGTH),
    )
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    assert [choice["finish_reason"] for choice in reply["choices"]] == ["stop", "length"]
    assert (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) == (7, 6)


def test_progress_is_told_to_those_who_ask() -> None:
    answer = PlayedAnswer(Reading(5, 9), Piece("a"))
    assert b"prompt_progress" not in streamed(parse_chat(dict(ASKED)).dialect, answer)
    data = streamed(parse_chat({**ASKED, "return_progress": True}).dialect, answer)
    progress = next(value["prompt_progress"] for _, value in events_in(data) if "prompt_progress" in value)
    assert (progress["processed"], progress["total"]) == (5, 9)
    ours = streamed(parse_chat(dict(ASKED), for_us=True).dialect, answer)
    assert ("swarm", {"reading": [5, 9]}) in events_in(ours)
