"""Whether a text follows a grammar, over a vocabulary of bytes."""

from __future__ import annotations

import numpy as np

from swarm.errors import TextError
from swarm.text.tokenizer import Tokenizer
from tests.helpers.tiny_text import text_metadata

TOKENIZER = Tokenizer.from_metadata(text_metadata("llama"))


def follows(grammar: str, text: str) -> bool:
    """Whether `text` is a whole answer: all of it may come, and then it may end."""
    state = TOKENIZER.grammars.start(grammar)
    try:
        allowed = state.allowed(TOKENIZER.encode(text), len(TOKENIZER))
    except TextError:
        return False
    return bool(set(map(int, np.flatnonzero(allowed))) & TOKENIZER.end_tokens)
