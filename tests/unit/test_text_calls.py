"""Calls are read out of recorded answers of every family, however their text is cut."""

from __future__ import annotations

import json
from random import Random

import pytest

from swarm.answers import Channel, Piece
from swarm.text.call_formats import CallFormat
from swarm.text.calls import call_reader
from swarm.text.tools import Tools

TOOLS = Tools(
    [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string"},
                        "days": {"type": "integer"},
                        "exact": {"type": "boolean"},
                        "where": {"type": "object"},
                    },
                },
            },
        },
        {"name": "now"},
    ]
)
PARIS = ("get_weather", {"city": "Paris", "days": 3})
OSLO = ("get_weather", {"city": 'Oslo </tool> {"x"}', "days": 12})
NOW = ("now", {})
F = CallFormat
# Written as the models were trained to write: their chat templates show the form.
ANSWERS: dict[str, tuple[CallFormat, str, str, list[tuple[str, object]]]] = {
    "Qwen 3": (
        F.HERMES,
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>',
        "",
        [PARIS],
    ),
    "Qwen 3, two after some words": (
        F.HERMES,
        'Let me see.\n\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo </tool> {\\"x\\"}", "days": 12}}\n'
        "</tool_call>",
        "Let me see.",
        [PARIS, OSLO],
    ),
    "Hermes, arguments first": (F.HERMES, '<tool_call>{"arguments": {}, "name": "now"}</tool_call>', "", [NOW]),
    "arguments as a text": (
        F.HERMES,
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\", \\"days\\": 3}"}</tool_call>',
        "",
        [PARIS],
    ),
    "no arguments": (F.HERMES, '<tool_call>{"name": "now"}</tool_call> ', "", [NOW]),
    "no JSON": (F.HERMES, "<tool_call>what?</tool_call>", "<tool_call>what?</tool_call>", []),
    "words only": (F.HERMES, "It is <b>sunny</b>.\n", "It is <b>sunny</b>.", []),
    "GLM-4.5": (
        F.KEY_TAGS,
        "\nI look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        "\nI look.",
        [PARIS],
    ),
    "GLM-4.7, without lines": (
        F.KEY_TAGS,
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value><arg_key>days</arg_key><arg_value>3</arg_value></tool_call>",
        "",
        [PARIS],
    ),
    "GLM-4.5, no arguments": (F.KEY_TAGS, "<tool_call>now\n</tool_call><tool_call>now</tool_call>", "", [NOW, NOW]),
    "INTELLECT-3": (
        F.FUNCTION_TAGS,
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>",
        "",
        [PARIS],
    ),
    "a value of many lines": (
        F.FUNCTION_TAGS,
        "<tool_call>\n<function=get_weather>\n<parameter=city>\na\n\nb\n</parameter>\n<parameter=exact>\nTrue\n</parameter>\n"
        '<parameter=where>\n{"x": [1]}\n</parameter>\n</function>\n</tool_call>',
        "",
        [("get_weather", {"city": "a\n\nb", "exact": True, "where": {"x": [1]}})],
    ),
    "a text that looks like a number": (
        F.FUNCTION_TAGS,
        "<tool_call><function=get_weather><parameter=city>75001</parameter></function></tool_call>",
        "",
        [("get_weather", {"city": "75001"})],
    ),
    "GLM-4": (F.FIRST_LINE, '\nget_weather\n{"city": "Paris", "days": 3}', "", [PARIS]),
    "GLM-4, two": (F.FIRST_LINE, 'now\n{}get_weather\n{"city": "Paris", "days": 3}', "", [NOW, PARIS]),
    "GLM-4, words": (
        F.FIRST_LINE,
        "now is the time\nget_weather is a function\n",
        "now is the time\nget_weather is a function\n",
        [],
    ),
    "GLM-4, a name and no object": (F.FIRST_LINE, "now\nthen", "now\nthen", []),
    "Llama 3": (F.BARE_JSON, '{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}', "", [PARIS]),
    "Llama 3, two": (
        F.BARE_JSON,
        '{"name": "now", "parameters": {}}; {"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}',
        "",
        [NOW, PARIS],
    ),
    "Llama 3, with a type": (F.BARE_JSON, '{"type": "function", "name": "now", "parameters": {}}', "", [NOW]),
    "JSON that is no call": (
        F.BARE_JSON,
        '{"name": "Ada", "parameters": {"born": 1815}}',
        '{"name": "Ada", "parameters": {"born": 1815}}',
        [],
    ),
    "other JSON": (F.BARE_JSON, '{"names": []}', '{"names": []}', []),
    "an answer": (F.BARE_JSON, "Sunny {today}.", "Sunny {today}.", []),
}


def read(kind: CallFormat, parts: list[str]) -> tuple[str, list[tuple[str, str]]]:
    reader = call_reader(kind, TOOLS)
    pieces: list[Piece] = [piece for part in parts for piece in reader.push(part)]
    pieces += reader.finish()
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        if piece.channel is Channel.CALL:
            if piece.name:
                assert piece.call == len(calls)
                calls.append((piece.name, ""))
            calls[piece.call] = (calls[piece.call][0], calls[piece.call][1] + piece.text)
    assert reader.n_calls == len(calls)
    return "".join(piece.text for piece in pieces if piece.channel is Channel.ANSWER), calls


@pytest.mark.parametrize("name", ANSWERS)
def test_calls_are_told_from_the_answer_wherever_the_text_is_cut(name: str) -> None:
    kind, text, answer, expected = ANSWERS[name]
    for seed in range(12):
        random = Random(seed)
        cuts = sorted(random.sample(range(len(text) + 1), min(len(text), random.choice([0, 1, 4, len(text)]))))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        said, calls = read(kind, parts)
        assert said.rstrip() == answer.rstrip()
        assert [(each, json.loads(arguments)) for each, arguments in calls] == expected


def test_arguments_are_given_out_before_the_call_is_whole() -> None:
    reader = call_reader(CallFormat.HERMES, TOOLS)
    assert reader.push('<tool_call>\n{"name": "now", "arguments": {"a": "b') == [
        Piece("", Channel.CALL, 0, "now"),
        Piece('{"a": "b', Channel.CALL, 0),
    ]
    assert reader.push(' c"}') == [Piece(' c"}', Channel.CALL, 0)]


def test_blank_space_before_a_call_is_held_back_and_other_text_is_not() -> None:
    reader = call_reader(CallFormat.KEY_TAGS, TOOLS)
    assert reader.push("Well, ") == [Piece("Well,")]
    assert reader.push("then.\n\n<to") == [Piece(" then.")]
    assert reader.push("ad>") == [Piece("\n\n<toad>")]


@pytest.mark.parametrize("kind", [F.HERMES, F.KEY_TAGS])
def test_an_answer_that_ends_like_a_call_begins_is_whole(kind: CallFormat) -> None:
    assert read(kind, ["a ", "<tool"]) == ("a <tool", [])
    assert read(kind, ["a", "\n\n"]) == ("a", []), "blank space at the end is no answer"


def test_a_call_that_is_cut_off_is_given_out_as_far_as_it_came() -> None:
    said, calls = read(CallFormat.HERMES, ['<tool_call>{"name": "now", "arguments": {"a": 1'])
    assert (said, calls) == ("", [("now", '{"a": 1')])
    assert read(CallFormat.HERMES, ['<tool_call>{"na']) == ('<tool_call>{"na', [])
    assert read(CallFormat.FIRST_LINE, ["now\n", '{"a": 1'])[1] == [("now", '{"a": 1')]
    assert read(CallFormat.BARE_JSON, ['{"name": "now", "parameters": {"a": 1'])[1] == [("now", '{"a": 1')]
