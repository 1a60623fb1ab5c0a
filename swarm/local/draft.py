"""A small model of the same vocabulary that says what may come next, for a large one to check."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.errors import ConfigError
from swarm.local.session import Choose, LocalSession, Steps
from swarm.text.tokenizer import Tokenizer

MAX_PADDING = 1024  # tokens that only one of two sizes of a family has, behind those that both have


class DraftModel:
    """For one conversation: its KV cache follows the ids of the large model."""

    def __init__(self, decoder: Steps, vocab: int) -> None:
        """`vocab`: of the large model; no token beyond it is said."""
        self._session = LocalSession(decoder)
        self._vocab = vocab

    def propose(self, ids: Sequence[int], n: int, choose: Choose) -> list[int]:
        """At most n tokens that may come after `ids`."""
        if len(ids) + n > self._session.decoder.context:
            return []
        *_, logits = self._session.prefill(ids)
        found: list[int] = []
        while (token := choose(logits, [*ids, *found])) < self._vocab:
            found.append(token)
            if len(found) == n:
                break
            logits = self._session.append([token])
        return found


def check_vocabulary(model: Tokenizer, draft: Tokenizer, name: str) -> None:
    """Raise ConfigError unless all tokens that both have are the same ones."""
    ours, theirs = model.vocabulary.tokens, draft.vocabulary.tokens
    n = min(len(ours), len(theirs))
    is_same = ours[:n] == theirs[:n] and max(len(ours), len(theirs)) - n <= MAX_PADDING
    if is_same and model.end_tokens == draft.end_tokens:
        return
    raise ConfigError(f"{name} has another vocabulary than the model: a draft must be of the same family")
