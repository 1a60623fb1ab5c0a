"""Which tokens may come next, for the sessions of a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from swarm.cluster.effects import SessionRows
from swarm.errors import TextError
from swarm.limits import MAX_GRAMMAR_STATES
from swarm.node.constraints import Constraints
from swarm.wire.ids import ModelId, SessionId
from swarm.wire.records import Sampling
from tests.helpers.grammars import TOKENIZER
from tests.unit.test_text_grammar import N_VOCAB, NOWHERE, POINT, YES_OR_NO

MODEL = ModelId("ab" * 32)


def rows(text: str, grammar: str = YES_OR_NO, session: int = 1) -> SessionRows:
    sampling = Sampling(grammar=grammar, answer_at=3)
    key = SessionId(f"{session:0{2 * SessionId.N_BYTES}x}")
    return SessionRows(key, 0, (1,), True, sampling=sampling, answer=tuple(TOKENIZER.encode(text)))


def constraints() -> tuple[Constraints, list[ModelId]]:
    asked: list[ModelId] = []

    def tokenizer_of(model: ModelId) -> Any:
        asked.append(model)
        return TOKENIZER

    return Constraints(tokenizer_of), asked


def test_a_session_keeps_its_state_and_another_device_comes_to_the_same() -> None:
    held, asked = constraints()
    for text in ("", "n", "no"):
        along = held.allowed(MODEL, rows(text), N_VOCAB)
        assert np.array_equal(constraints()[0].allowed(MODEL, rows(text), N_VOCAB), along)
    assert asked == [MODEL]


def test_a_session_s_next_turn_may_have_another_grammar() -> None:
    held, _ = constraints()
    held.allowed(MODEL, rows("no"), N_VOCAB)
    assert np.array_equal(
        held.allowed(MODEL, rows("{", POINT), N_VOCAB), constraints()[0].allowed(MODEL, rows("{", POINT), N_VOCAB)
    )


def test_what_the_grammar_asks_for_next_is_told() -> None:
    held, _ = constraints()
    assert TOKENIZER.decode(held.forced(MODEL, rows("y"))) == "es"
    assert held.forced(MODEL, rows("")) == ()


def test_only_so_many_states_are_kept() -> None:
    held, asked = constraints()
    for session in range(MAX_GRAMMAR_STATES + 1):
        held.allowed(MODEL, rows("", session=session), N_VOCAB)
    held.allowed(MODEL, rows("n", session=MAX_GRAMMAR_STATES), N_VOCAB)
    assert len(asked) == MAX_GRAMMAR_STATES + 1
    held.allowed(MODEL, rows("n", session=0), N_VOCAB)
    assert len(asked) == MAX_GRAMMAR_STATES + 2


def test_an_answer_ends_where_its_form_leads_nowhere() -> None:
    """It is not the device that failed; and the session's next turn has nothing to do with that."""
    held, _ = constraints()
    assert held.allowed(MODEL, rows("", NOWHERE), N_VOCAB).sum() == 1
    for _ in range(2):
        ends = held.allowed(MODEL, rows("a", NOWHERE), N_VOCAB)
        assert set(np.flatnonzero(ends)) == set(TOKENIZER.end_tokens) and ends.shape == (N_VOCAB,)
    assert held.forced(MODEL, rows("a", NOWHERE)) == ()
    assert held.allowed(MODEL, rows("", NOWHERE), N_VOCAB).sum() == 1


def test_ids_that_break_the_grammar_fail_and_leave_others_alone() -> None:
    held, _ = constraints()
    with pytest.raises(TextError):
        held.allowed(MODEL, rows("maybe"), N_VOCAB)
    assert held.allowed(MODEL, rows("n"), N_VOCAB).any()
