"""Grammars: from the ids so far to the tokens that may come; a function of nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from swarm.errors import FormDeadEnd, TextError
from swarm.limits import MAX_GRAMMAR_BYTES
from swarm.text.forms import Form, Speaker, grammar_of, json_form
from swarm.text.tokenizer import Tokenizer
from swarm.text.tools import AUTO, Tools
from tests.helpers.tiny_text import text_metadata

TOKENIZER = Tokenizer.from_metadata(text_metadata("llama"))
GRAMMARS = TOKENIZER.grammars
N_VOCAB = len(TOKENIZER) + 5  # rows that only fill up the output matrix
ENDLESS = json.dumps(
    {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"], "additionalProperties": False}
)
PLAIN = Speaker(None, inside_thought=False, may_think=False)


def grammar(form: Form) -> str:
    return grammar_of(form, Tools(()), AUTO, PLAIN)


YES_OR_NO = grammar(Form("choice", '["yes", "no"]'))
NOWHERE = grammar(Form("lark", 'start: "a" more\nmore: more'))  # after "a" nothing may come, and it is no end
POINT = grammar(json_form({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}))


def spelled(allowed: np.ndarray) -> set[str]:
    return {TOKENIZER.token_name(int(i)) for i in np.flatnonzero(allowed)}


def test_only_what_the_grammar_spells_may_come() -> None:
    state = GRAMMARS.start(YES_OR_NO)
    assert spelled(state.allowed([], N_VOCAB)) == {"y", "n"}
    y = TOKENIZER.encode("y")
    assert spelled(state.allowed(y, N_VOCAB)) == {"es"}  # as the tokenizer itself would spell it
    assert state.allowed(y, N_VOCAB).shape == (N_VOCAB,)


def test_what_must_come_is_told_as_the_tokenizer_spells_it() -> None:
    state = GRAMMARS.start(POINT)
    text = '{"x": '
    ids: list[int] = []
    while forced := state.forced(ids):
        ids += forced
    assert TOKENIZER.decode(ids) == text and ids == TOKENIZER.encode(text)
    assert GRAMMARS.start(YES_OR_NO).forced([]) == []
    assert TOKENIZER.decode(GRAMMARS.start(YES_OR_NO).forced(TOKENIZER.encode("y"))) == "es"
    assert state.forced(TOKENIZER.encode("maybe")) == [], "what breaks the form is no answer of it"


def test_an_answer_that_is_whole_can_only_end() -> None:
    ended = GRAMMARS.start(YES_OR_NO).allowed(TOKENIZER.encode("no"), N_VOCAB)
    assert set(np.flatnonzero(ended)) == set(TOKENIZER.end_tokens)


def test_the_state_is_a_function_of_the_grammar_and_the_ids() -> None:
    ids = TOKENIZER.encode('{"x": 12')
    state = GRAMMARS.start(POINT)
    along = [state.allowed(ids[:n], N_VOCAB) for n in range(len(ids) + 1)]
    for n in (0, 3, len(ids), 1, 2):  # back and forth, and anew as on another device
        assert np.array_equal(state.allowed(ids[:n], N_VOCAB), along[n])
        assert np.array_equal(GRAMMARS.start(POINT).allowed(ids[:n], N_VOCAB), along[n])


def test_ids_that_break_the_grammar_are_an_error() -> None:
    state = GRAMMARS.start(YES_OR_NO)
    with pytest.raises(TextError, match="breaks the form"):
        state.allowed(TOKENIZER.encode("maybe"), N_VOCAB)
    assert spelled(state.allowed([], N_VOCAB)) == {"y", "n"}


@pytest.mark.parametrize(
    "form",
    [
        Form("regex", "("),
        Form("gbnf", "root ::= nothing"),
        Form("lark", "start: x"),
        json_form({"type": "number", "not": {}}),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused_in_one_line(form: Form) -> None:
    with pytest.raises(TextError, match="the form of the answer") as caught:
        GRAMMARS.check(grammar(form))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_form_by_which_no_answer_can_begin_is_refused_before_any_device_is_asked() -> None:
    with pytest.raises(TextError, match="cannot be kept"):
        GRAMMARS.check(grammar(Form("json_schema", '{"$ref": "#"}')))


def test_a_form_that_leads_nowhere_is_told_from_an_answer_that_breaks_it() -> None:
    GRAMMARS.check(NOWHERE)  # an answer can begin
    a = TOKENIZER.encode("a")
    state = GRAMMARS.start(NOWHERE)
    assert state.takes(a) and not state.is_whole and state.forced(a) == []
    for _ in range(2):
        with pytest.raises(FormDeadEnd, match="cannot be kept: nothing may come next by it"):
            state.allowed(a, N_VOCAB)
    with pytest.raises(FormDeadEnd):
        GRAMMARS.check_goes_on(NOWHERE, a)
    GRAMMARS.check_goes_on(YES_OR_NO, TOKENIZER.encode("y"))


def test_a_form_without_an_end_is_at_fault_itself() -> None:
    """The package gives up on the text that it asks for, without an end, and a token that it asked for is not taken."""
    state = GRAMMARS.start(grammar(Form("json_schema", ENDLESS)))
    state.allowed((), N_VOCAB)
    with pytest.raises(FormDeadEnd, match="cannot be kept"):
        state.allowed(TOKENIZER.encode("{"), N_VOCAB)
    assert state.forced(TOKENIZER.encode("{")) == []


def test_a_grammar_that_is_too_long_to_travel_is_refused() -> None:
    with pytest.raises(TextError, match="bytes; the most is"):
        GRAMMARS.check(grammar(Form("choice", json.dumps(["a" * MAX_GRAMMAR_BYTES]))))
