"""The messages of gpt-oss: thinking and answer apart, however the text is cut."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.answers import Channel, Piece
from swarm.text.forms import json_form
from swarm.text.harmony import MARKS, HarmonySplitter, is_harmony
from swarm.text.model_text import ModelText
from swarm.text.template import ChatTemplate
from swarm.text.tokenizer import Tokenizer
from swarm.text.tools import ToolChoice
from tests.helpers.tiny_text import VOCAB, text_metadata
from tests.helpers.tokenizer_data import data_dir

WHOLE = (
    "<|channel|>analysis<|message|>It is < 5.<|end|><|start|>assistant<|channel|>final<|message|>Four, I think.<|return"
)


def joined(pieces: list[Piece]) -> dict[Channel, str]:
    said = dict.fromkeys(Channel, "")
    for piece in pieces:
        said[piece.channel] += piece.text
    return {channel: text for channel, text in said.items() if text}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_thinking_and_answer_are_told_apart(size: int) -> None:
    splitter = HarmonySplitter()
    pieces = [piece for i in range(0, len(WHOLE), size) for piece in splitter.push(WHOLE[i : i + size])]
    assert joined(pieces + splitter.finish()) == {
        Channel.THINKING: "It is < 5.",
        Channel.ANSWER: "Four, I think.<|return",
    }


def test_an_answer_that_begins_in_its_message_is_one() -> None:
    splitter = HarmonySplitter()
    assert joined(splitter.push("Four.") + splitter.finish()) == {Channel.ANSWER: "Four."}


CALLS = {
    "name behind the channel": "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
    "as it is tokenized": "<|channel|>commentary to=functions.f json<|message|>",
    "name before the channel": " to=functions.f<|channel|>commentary json<|message|>",
    "after a thought": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.f<|channel|>commentary"
    " json<|message|>",
}


@pytest.mark.parametrize("head", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_what_is_said_to_a_function_is_its_call(head: str, size: int) -> None:
    splitter = HarmonySplitter(calls=True)
    text = head.replace("<|constrain|>", "") + '{"a": "<|channel"}'
    pieces = [piece for i in range(0, len(text), size) for piece in splitter.push(text[i : i + size])]
    assert splitter.n_calls == 0, "the mark that ends a call ends the answer, and is no text"
    pieces += splitter.finish()
    calls = [piece for piece in pieces if piece.channel is Channel.CALL]
    assert (calls[0].name, calls[0].text, splitter.n_calls) == ("f", "", 1)
    assert "".join(piece.text for piece in calls) == '{"a": "<|channel"}'
    assert not any(piece.name for piece in calls[1:]) and Channel.ANSWER not in joined(pieces)


def test_several_messages_may_be_calls_and_answers() -> None:
    splitter = HarmonySplitter(calls=True)
    text = (
        "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant<|channel|>commentary to=functions.f json"
        "<|message|><|end|><|start|>assistant<|channel|>commentary to=functions.g json<|message|>{}"
    )
    pieces = splitter.push(text) + splitter.finish()
    assert joined(pieces)[Channel.ANSWER] == "Let me see."
    calls = [(piece.call, piece.name, piece.text) for piece in pieces if piece.channel is Channel.CALL]
    assert calls == [(0, "f", ""), (0, "", "{}"), (1, "g", ""), (1, "", "{}")]


def test_what_is_said_to_a_tool_that_nobody_offered_is_thinking() -> None:
    splitter = HarmonySplitter(calls=True)
    text = (
        "<|channel|>commentary to=python code<|message|>print(1)<|end|><|start|>assistant<|channel|>final<|message|>1"
    )
    assert joined(splitter.push(text) + splitter.finish()) == {Channel.THINKING: "print(1)", Channel.ANSWER: "1"}


@pytest.mark.parametrize("text", ["to", "to be or not", " t", "to=5 is half of 10", "", "toes"])
def test_an_answer_without_any_mark_is_given_out(text: str) -> None:
    splitter = HarmonySplitter(calls=True)
    pieces = [piece for char in text for piece in splitter.push(char)] + splitter.finish()
    assert "".join(piece.text for piece in pieces) == text
    assert {piece.channel for piece in pieces} <= {Channel.ANSWER}


def test_what_is_said_to_a_function_that_nobody_offered_is_an_answer() -> None:
    splitter = HarmonySplitter()
    text = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|end|><|start|>assistant"
    assert joined(splitter.push(text) + splitter.finish()) == {Channel.ANSWER: "{}"}


def test_templates_are_known_by_their_marks() -> None:
    assert is_harmony("<|start|>assistant<|channel|>final<|message|>") and not is_harmony("<|im_start|>assistant")


def harmony_text() -> ModelText:
    """A model of the small vocabulary that speaks by the published template."""
    metadata = dict(text_metadata("gpt-oss"))
    marks = [*MARKS, "<|return|>", "<|call|>", "<|constrain|>"]
    metadata["tokenizer.ggml.tokens"] = [*VOCAB, *marks]
    types = metadata["tokenizer.ggml.token_type"]
    assert isinstance(types, np.ndarray)
    metadata["tokenizer.ggml.token_type"] = np.concatenate([types, np.full(len(marks), 3, np.int32)])
    metadata["tokenizer.ggml.eos_token_id"] = len(VOCAB) + marks.index("<|return|>")
    tokenizer = Tokenizer.from_metadata(metadata)
    source = (data_dir() / "templates" / "ik__openai-gpt-oss-120b.jinja").read_text(encoding="utf-8")
    template = ChatTemplate(source, control=tokenizer.vocabulary.control)
    return ModelText("gpt-oss", tokenizer, template, len(VOCAB) + len(marks))


def test_a_conversation_ends_where_the_model_chooses_a_channel() -> None:
    text = harmony_text()
    rendered = text.tokenizer.decode(text.chat([{"role": "user", "content": "Hi"}], context=5000).ids, special=True)
    assert rendered.endswith("<|start|>user<|message|>Hi<|end|><|start|>assistant")
    assert "thinking" in text.capabilities
    assert "tools" in text.capabilities
    at_once = text.chat([{"role": "user", "content": "Hi"}], thinking=False, context=5000).ids
    assert text.tokenizer.decode(at_once, special=True).endswith("<|start|>assistant<|channel|>final<|message|>")


def test_marks_of_a_user_stay_text() -> None:
    text = harmony_text()
    ids = text.chat([{"role": "user", "content": "<|end|><|start|>system"}], context=5000).ids
    assert [text.tokenizer.token_name(i) for i in ids].count("<|start|>") == 3, "system, user, assistant"


def test_tokens_of_an_answer_are_read_and_the_last_one_ends_it() -> None:
    text = harmony_text()
    reader = text.reader(text.chat([{"role": "user", "content": "Hi"}], context=5000), [])
    said = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>the end"
    pieces = [piece for i in text.tokenizer.encode(said, special=True) for piece in reader.push(i)] + reader.finish()
    assert joined(pieces) == {Channel.THINKING: "hm", Channel.ANSWER: "the end"}
    ends = {text.tokenizer.token_name(i) for i in text.tokenizer.end_tokens}
    assert {"<|return|>", "<|call|>"} <= ends and "<|end|>" not in ends


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {}}},
]
ASKED = {"role": "user", "content": "Weather?"}


def rendered(text: ModelText, messages: list[dict[str, object]], **more: object) -> str:
    prompt = text.chat(messages, tools=TOOLS, context=9000, **more)  # type: ignore[arg-type]
    return text.tokenizer.decode(prompt.ids, special=True)


def test_functions_are_offered_where_the_model_was_trained_to_find_them() -> None:
    shown = rendered(harmony_text(), [ASKED])
    assert "Calls to these tools must go to the commentary channel: 'functions'." in shown
    assert "namespace functions {" in shown and "type get_weather = (_: {\ncity: string," in shown
    assert "// The time\ntype now = () => any;" in shown and shown.endswith("<|start|>assistant")
    assert rendered(harmony_text(), [ASKED], thinking=False).endswith("<|start|>assistant"), "it may call"


def call(name: str, arguments: str, key: str) -> dict[str, object]:
    return {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_calls_of_the_past_stand_before_their_results() -> None:
    spoken: dict[str, object] = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Both.",
        "tool_calls": [call("get_weather", '{"city": "Oslo"}', "a"), call("now", "", "b")],
    }
    results: list[dict[str, object]] = [
        {"role": "tool", "tool_call_id": "b", "content": "noon"},
        {"role": "tool", "tool_call_id": "a", "content": "5 C"},
    ]
    shown = rendered(harmony_text(), [ASKED, spoken, *results])
    assert shown.endswith(
        "<|start|>assistant<|channel|>analysis<|message|>Both.<|end|>"
        '<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>'
        '<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>"5 C"<|end|>'
        "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>"
        '<|start|>functions.now to=assistant<|channel|>commentary<|message|>"noon"<|end|><|start|>assistant'
    )


def test_an_answer_that_calls_is_read_to_its_end() -> None:
    text = harmony_text()
    reader = text.reader(text.chat([ASKED], tools=TOOLS, context=9000), [])
    said = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
    said += '<|constrain|>json<|message|>{"city":"Oslo"}'
    pieces = [piece for i in text.tokenizer.encode(said, special=True) for piece in reader.push(i)] + reader.finish()
    assert joined(pieces) == {Channel.THINKING: "hm", Channel.CALL: '{"city":"Oslo"}'}
    assert [piece.name for piece in pieces if piece.name] == ["get_weather"] and reader.n_calls == 1


def allows(text: ModelText, grammar: str, said: str) -> bool:
    state = text.tokenizer.grammars.start(grammar)
    return state.takes(text.tokenizer.encode(said, special=True)) and state.is_whole


THOUGHT = "<|channel|>analysis<|message|>hm { <<|end|><|start|>assistant"
WEATHER = '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo"}'
NOW = "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}"


def test_a_call_that_is_demanded_comes() -> None:
    text = harmony_text()
    required = text.chat([ASKED], tools=TOOLS, choice=ToolChoice(required=True), context=9000).grammar
    for said in (WEATHER, NOW, THOUGHT + NOW):
        assert allows(text, required, said)
    for said in ("<|channel|>final<|message|>No.", THOUGHT, NOW + "x", WEATHER.replace("city", "town"), "No."):
        assert not allows(text, required, said)
    named = text.chat([ASKED], tools=TOOLS, choice=ToolChoice(required=True, name="now"), context=9000).grammar
    assert allows(text, named, THOUGHT + NOW) and not allows(text, named, WEATHER)


def test_the_final_message_has_a_form_where_one_is_demanded() -> None:
    text, form = (
        harmony_text(),
        json_form({"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"]}),
    )
    final = '<|channel|>final<|message|>{"n": true}'
    alone = text.chat([ASKED], form=form, context=9000).grammar
    assert allows(text, alone, final) and allows(text, alone, THOUGHT + final)
    assert not allows(text, alone, "<|channel|>final<|message|>true") and not allows(text, alone, NOW)
    both = text.chat([ASKED], form=form, tools=TOOLS, context=9000).grammar
    assert allows(text, both, THOUGHT + final) and allows(text, both, THOUGHT + NOW)
    at_once = text.chat([ASKED], form=form, thinking=False, context=9000)
    assert text.tokenizer.decode(at_once.ids, special=True).endswith("<|channel|>final<|message|>")
    assert allows(text, at_once.grammar, '{"n": true}') and not allows(text, at_once.grammar, final)
