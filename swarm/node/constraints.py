"""Which tokens may come next in answers that must follow a grammar, where their tokens are sampled.

The state of a grammar is a function of the grammar and the answer's ids. What is kept here between tokens only saves
the way there: another device, or this one after a restart, makes the same state from the same ids.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from swarm.cluster.effects import SessionRows
from swarm.errors import FormDeadEnd
from swarm.limits import MAX_GRAMMAR_STATES, MAX_GUESSES
from swarm.text.grammar import GrammarState
from swarm.text.tokenizer import Tokenizer
from swarm.wire.ids import ModelId, SessionId

Bits = npt.NDArray[np.bool_]
TokenizerOf = Callable[[ModelId], Tokenizer]


class Constraints:
    """On the compute thread; the states of the sessions that were heard of last."""

    def __init__(self, tokenizer_of: TokenizerOf) -> None:
        self._tokenizer_of = tokenizer_of
        self._states: dict[SessionId, tuple[str, GrammarState]] = {}

    def allowed(self, model: ModelId, rows: SessionRows, n_vocab: int) -> Bits:
        """bool (n_vocab,): the tokens that may follow the answer so far; TextError for ids that break the grammar.

        Where none may follow the answer ends. That is no failure of who samples: the device that has asked sees by its
        own state that the grammar led nowhere, and says so.
        """
        try:
            return self._state(model, rows).allowed(rows.answer, n_vocab)
        except FormDeadEnd:
            self._states.pop(rows.session, None)  # of no use any more
            ends = np.zeros(n_vocab, np.bool_)
            ends[[end for end in self._tokenizer_of(model).end_tokens if end < n_vocab]] = True
            return ends

    def forced(self, model: ModelId, rows: SessionRows) -> tuple[int, ...]:
        """The tokens that must follow the answer so far, at most MAX_GUESSES; none where there is a choice."""
        return tuple(self._state(model, rows).forced(rows.answer)[:MAX_GUESSES])

    def _state(self, model: ModelId, rows: SessionRows) -> GrammarState:
        grammar = rows.sampling.grammar
        before, state = self._states.pop(rows.session, ("", None))
        if state is None or before != grammar:
            state = self._tokenizer_of(model).grammars.start(grammar)
        self._states[rows.session] = (grammar, state)  # the one that was used last comes last
        while len(self._states) > MAX_GRAMMAR_STATES:
            del self._states[next(iter(self._states))]
        return state
