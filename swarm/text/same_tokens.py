"""Whether two models speak of the same tokens, so that one can guess for the other."""

from __future__ import annotations

from swarm.errors import ConfigError
from swarm.text.tokenizer import Tokenizer

MAX_PADDING = 1024  # tokens that only one of two sizes of a family has, behind those that both have


def have_same_tokens(model: Tokenizer, draft: Tokenizer) -> bool:
    """True when all tokens that both have are the same ones, and the same ones end an answer."""
    ours, theirs = model.vocabulary.tokens, draft.vocabulary.tokens
    n = min(len(ours), len(theirs))
    is_same = ours[:n] == theirs[:n] and max(len(ours), len(theirs)) - n <= MAX_PADDING
    return is_same and model.end_tokens == draft.end_tokens


def check_vocabulary(model: Tokenizer, draft: Tokenizer, name: str) -> None:
    """Raise ConfigError unless the two have the same tokens; `name` is the draft's."""
    if not have_same_tokens(model, draft):
        raise ConfigError(f"{name} has another vocabulary than the model: a draft must be of the same family")
