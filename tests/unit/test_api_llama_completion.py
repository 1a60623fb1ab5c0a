"""llama-server's own completions."""

from __future__ import annotations

import pytest

from swarm.answers import EndReason, Piece
from swarm.api.errors import BadRequest
from swarm.api.llama_completion import parse_infill, parse_llama_completion
from swarm.api.ollama import parse_generate
from swarm.api.openai_completions import parse_completion
from swarm.node.answer import Reading
from swarm.text.forms import Form
from swarm.text.infill import Infill
from tests.helpers.played_answer import PlayedAnswer, events_in, streamed, whole

ASKED = {"prompt": "Once"}


def test_fields_arrive() -> None:
    body = {**ASKED, "n_predict": -1, "stop": ["x"], "top_k": 7, "grammar": 'root ::= "a"', "cache_prompt": True}
    (question,) = parse_llama_completion(body).questions
    assert (question.prompt, question.max_tokens, question.stop, question.params.top_k) == ("Once", None, ["x"], 7)
    assert question.form == Form("gbnf", 'root ::= "a"')
    assert parse_llama_completion({"prompt": [1, 2], "n_predict": 0}).questions[0].max_tokens == 0


@pytest.mark.parametrize(("field", "value"), [("n_probs", 3), ("prompt", ["a", "b"]), ("prompt", 5), ("n_predict", -2)])
def test_a_field_that_cannot_be_used_is_named(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_llama_completion({**ASKED, field: value})
    assert caught.value.param == field


def test_a_stream_ends_with_the_figures_and_says_why() -> None:
    answer = PlayedAnswer(Reading(5, 9), Piece(" upon"), Piece(" a"))
    events = [value for _, value in events_in(streamed(parse_llama_completion(ASKED).dialect, answer))]
    assert "".join(event["content"] for event in events) == " upon a"
    assert [event["stop"] for event in events] == [False, False, True]
    assert events[-1]["stop_type"] == "eos" and events[-1]["timings"]["predicted_n"] == 3
    asked = parse_llama_completion({**ASKED, "return_progress": True})
    assert events_in(streamed(asked.dialect, answer))[0][1]["prompt_progress"]["processed"] == 5


@pytest.mark.parametrize(
    ("reason", "word", "told"),
    [(EndReason.STOP, None, "eos"), (EndReason.STOP, "x", "word"), (EndReason.CONTEXT, None, "limit")],
)
def test_a_whole_reply_says_how_it_ended(reason: EndReason, word: str | None, told: str) -> None:
    answer = PlayedAnswer(Piece("a"), reason=reason)
    answer.stop_string = word
    reply = whole(parse_llama_completion(ASKED).dialect, answer)
    assert (reply["content"], reply["stop_type"], reply["stopping_word"]) == ("a", told, word or "")


def test_a_gap_is_filled_in_with_what_stands_around_it() -> None:
    body = {
        "input_prefix": "a = ",
        "input_suffix": "\n",
        "prompt": "1 +",
        "n_predict": 5,
        "stop": ["x"],
        "stream": True,
    }
    extra = [{"filename": "one.py", "text": "x = 1"}, {"text": "y"}]
    wanted = parse_infill({**body, "input_extra": extra})
    (question,) = wanted.questions
    assert question.infill == Infill("a = 1 +", "\n", (("one.py", "x = 1"), ("file", "y")))
    assert (question.max_tokens, question.stop, wanted.stream) == (5, ["x"], True)
    for wrong in (
        {"input_suffix": None},
        {"input_extra": [{"filename": "a"}]},
        {"grammar": 'root ::= "a"'},
        {"lora": [1]},
    ):
        with pytest.raises(BadRequest) as caught:
            parse_infill({**body, **wrong})
        assert caught.value.param == next(iter(wrong)), wrong


def test_other_dialects_fill_in_too() -> None:
    (question,) = parse_completion({"prompt": "a", "suffix": "b"}).questions
    assert question.infill == Infill("a", "b")
    (question,) = parse_generate({"model": "m", "prompt": "a", "suffix": "b"}).questions
    assert question.infill == Infill("a", "b")
    assert parse_completion({"prompt": "a", "suffix": ""}).questions[0].infill is None
    for parse, body in (
        (parse_completion, {"prompt": [1, 2], "suffix": "b"}),
        (parse_completion, {"prompt": "a", "suffix": "b", "echo": True}),
        (parse_generate, {"prompt": "a", "suffix": "b", "system": "c"}),
    ):
        with pytest.raises(BadRequest) as caught:
            parse(body)
        assert caught.value.param == "suffix"
