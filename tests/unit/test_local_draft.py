"""A draft follows the ids of the model that it guesses for, and must speak of the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from swarm.errors import ConfigError
from swarm.local.draft import DraftModel, check_vocabulary
from swarm.text.tokenizer import Tokenizer
from tests.helpers.fake_decoder import FakeDecoder
from tests.helpers.tiny_text import text_metadata


def likeliest(logits: np.ndarray, ids: Sequence[int]) -> int:
    return int(np.argmax(logits))


def alone(ids: list[int], n: int) -> list[int]:
    """What the model of the draft says after these."""
    decoder, found = FakeDecoder(), list(ids)
    for _ in range(n):
        found.append(likeliest(decoder.logits(np.array(found, np.int32))[-1], found))
    return found[len(ids) :]


def test_it_says_what_it_would_answer_and_computes_only_what_is_new() -> None:
    decoder = FakeDecoder()
    draft = DraftModel(decoder, vocab=50)
    assert draft.propose([1, 2, 3], 3, likeliest) == alone([1, 2, 3], 3)
    assert [len(step) for step in decoder.steps] == [3, 1, 1]
    came = [1, 2, 3, alone([1, 2, 3], 1)[0], 9]  # the first one came, then another token
    decoder.steps.clear()
    assert draft.propose(came, 2, likeliest) == alone(came, 2)
    assert [len(step) for step in decoder.steps] == [1, 1]


def test_it_chooses_with_what_came_and_what_it_said_itself() -> None:
    seen: list[list[int]] = []

    def choose(logits: np.ndarray, ids: Sequence[int]) -> int:
        seen.append(list(ids))
        return 7

    assert DraftModel(FakeDecoder(), vocab=50).propose([1, 2], 2, choose) == [7, 7]
    assert seen == [[1, 2], [1, 2, 7]]


def test_a_token_that_the_model_does_not_have_ends_it() -> None:
    script = {2: 5, 3: 40}
    assert DraftModel(FakeDecoder(script=script), vocab=40).propose([1, 2], 3, likeliest) == [5]


def test_beyond_its_own_context_it_says_nothing() -> None:
    draft = DraftModel(FakeDecoder(context=6), vocab=50)
    assert len(draft.propose([1, 2, 3], 3, likeliest)) == 3
    assert draft.propose([1, 2, 3, 4], 3, likeliest) == []


def tokenizer(**changes: object) -> Tokenizer:
    return Tokenizer.from_metadata({**text_metadata("glm4"), **changes})


def test_the_same_tokens_are_needed_and_those_that_only_fill_up_do_not_matter() -> None:
    ours = tokenizer()
    check_vocabulary(ours, tokenizer(), "small.gguf")
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
