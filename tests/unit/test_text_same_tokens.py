"""Two models guess for each other where they speak of the same tokens."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.errors import ConfigError
from swarm.text.same_tokens import check_vocabulary, have_same_tokens
from swarm.text.tokenizer import Tokenizer
from tests.helpers.tiny_text import text_metadata


def tokenizer(**changes: object) -> Tokenizer:
    return Tokenizer.from_metadata({**text_metadata("glm4"), **changes})


def test_the_same_tokens_are_needed_and_those_that_only_fill_up_do_not_matter() -> None:
    ours = tokenizer()
    check_vocabulary(ours, tokenizer(), "small.gguf")
    assert have_same_tokens(ours, tokenizer())
    tokens, types = text_metadata("glm4")["tokenizer.ggml.tokens"], text_metadata("glm4")["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list) and isinstance(types, np.ndarray)
    longer = {"tokenizer.ggml.tokens": [*tokens, "<pad>"], "tokenizer.ggml.token_type": np.append(types, types[:1])}
    check_vocabulary(ours, tokenizer(**longer), "small.gguf")
    swapped = {
        "tokenizer.ggml.tokens": [*tokens[:40], tokens[41], tokens[40], *tokens[42:]],
        "tokenizer.ggml.merges": [],
    }
    other_end = {"tokenizer.ggml.eos_token_id": 5}
    for changes in (swapped, other_end):
        with pytest.raises(ConfigError, match=r"small\.gguf has another vocabulary"):
            check_vocabulary(ours, tokenizer(**changes), "small.gguf")
