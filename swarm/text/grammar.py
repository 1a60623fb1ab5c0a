"""Grammars that an answer must follow, on the `llguidance` package: from the ids so far to the tokens that may come.

A grammar is llguidance's own JSON in ASCII; forms.py makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from swarm.errors import FormDeadEnd, TextError
from swarm.limits import MAX_GRAMMAR_BYTES

if TYPE_CHECKING:
    from llguidance import LLMatcher  # slow to import, and few answers have a form

Bits = npt.NDArray[np.bool_]
SILENT = 0  # llguidance's log level
NOWHERE = "NoExtensionBias"  # its word for a place from which no token leads on
MAX_LEXER_STATES = 50_000  # 1 to 2 kB each


class Spelling(Protocol):
    """What a grammar needs to know of a tokenizer."""

    end_tokens: frozenset[int]

    def __len__(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def token_bytes(self, token: int) -> bytes: ...
    def hidden_tokens(self) -> Iterable[int]: ...


class Grammars:
    """The grammars of one vocabulary; safe to use from several threads."""

    def __init__(self, spelling: Spelling) -> None:
        """TextError when nothing ends an answer."""
        if not spelling.end_tokens:
            raise TextError("the model has no token that ends an answer, so it cannot be held to a form")
        from llguidance import LLTokenizer, TokenizerWrapper

        # It holds the interpreter: 0.17 s for 100,000 tokens on a laptop, and twice that with the package's slices.
        vocabulary = TokenizerWrapper(_Vocabulary(spelling))
        self._n_tokens = len(spelling)
        self._tokenizer = LLTokenizer(vocabulary, eos_token=sorted(spelling.end_tokens), slices=[])

    def check(self, grammar: str) -> None:
        """Raise TextError for a grammar that cannot be followed, or by which no answer can begin."""
        if len(grammar) > MAX_GRAMMAR_BYTES:
            raise TextError(f"the form of the answer takes {len(grammar)} bytes; the most is {MAX_GRAMMAR_BYTES}")
        self.start(grammar).allowed((), self._n_tokens)

    def start(self, grammar: str) -> GrammarState:
        """The state before the first token; TextError for a grammar that cannot be followed."""
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=SILENT, limits=limits)
        if matcher.is_error():
            raise TextError(f"the form of the answer cannot be kept: {_line(matcher.get_error())}")
        return GrammarState(matcher)

    def check_goes_on(self, grammar: str, ids: Sequence[int]) -> None:
        """Raise FormDeadEnd where somewhere in an answer, or after it, no token may come; slow.

        Step by step as whoever samples goes, for what a state takes to tell adds up. `allowed` first: where much is
        still to be told, `forced` holds the interpreter for a second.
        """
        state = self.start(grammar)
        for n in range(len(ids) + 1):
            state.allowed(ids[:n], self._n_tokens)
            state.forced(ids[:n])


class GrammarState:
    """Where an answer is within its grammar: a function of the grammar and the ids."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._ids: tuple[int, ...] = ()

    def allowed(self, ids: Sequence[int], n_vocab: int) -> Bits:
        """bool (n_vocab,): the tokens that may come after `ids`, the whole answer so far; at least one.

        Raise FormDeadEnd where none may come, TextError where `ids` break the grammar.
        """
        if not self.takes(ids):
            raise TextError("the answer so far breaks the form that it must have")
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        bits = np.unpackbits(packed, count=min(8 * len(packed), n_vocab), bitorder="little").astype(np.bool_)
        if self._matcher.is_error() or not bits.any():
            raise self._dead_end()
        return np.pad(bits, (0, n_vocab - len(bits)))

    def forced(self, ids: Sequence[int]) -> list[int]:
        """The tokens that must come after `ids`, the whole answer so far; none where there is a choice.

        They are spelled as the tokenizer would, and another spelling may be allowed, too.
        """
        try:
            return self._matcher.compute_ff_tokens() if self.takes(ids) else []
        except FormDeadEnd:
            return []

    def takes(self, ids: Sequence[int]) -> bool:
        """Whether `ids`, an answer so far, keep to the grammar; quick, for one that has made no step to go back.

        Raise FormDeadEnd where that cannot be told, which is the grammar's fault.
        """
        return self._go_to(tuple(ids))

    @property
    def is_whole(self) -> bool:
        """Whether the ids that it has taken may be the whole answer."""
        return self._matcher.is_accepting()

    def _go_to(self, ids: tuple[int, ...]) -> bool:
        if ids[: len(self._ids)] != self._ids:
            self._matcher.reset()
            self._ids = ()
        new = list(ids[len(self._ids) :])
        taken = self._matcher.try_consume_tokens(new) if new else 0
        self._ids = ids[: len(self._ids) + taken]
        if self._matcher.is_error():  # it stays so, whatever it is asked
            raise self._dead_end()
        return taken == len(new)

    def _dead_end(self) -> FormDeadEnd:
        return FormDeadEnd(f"the form of the answer cannot be kept: {_line(self._matcher.get_error())}")


class _Vocabulary:
    """A tokenizer as the package wants to see it."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self.eos_token_id = min(spelling.end_tokens)
        self.bos_token_id = None
        self.tokens = [spelling.token_bytes(i) for i in range(len(spelling))]
        self.special_token_ids = list(spelling.hidden_tokens())

    def __call__(self, text: str | bytes) -> list[int]:
        return self._spelling.encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _line(text: str) -> str:
    text = " ".join(text.replace("<non-verbose/>", "").split())[:300]
    return text if text not in ("", NOWHERE) else "nothing may come next by it; ask for a form that has an end"
