"""A draft follows the ids of the model that it guesses for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from swarm.engine.draft import READ_TOKENS, DraftModel
from tests.helpers.fake_decoder import FakeDecoder


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
    assert [len(step) for step in decoder.steps] == [2, 1, 1, 1]
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


def test_a_prompt_is_read_piece_by_piece_as_long_as_nobody_else_waits() -> None:
    decoder = FakeDecoder(context=1000)
    draft, asked = DraftModel(decoder, vocab=50), [True, True, False]
    ids = [i % 40 for i in range(300)]
    assert not draft.read(ids, lambda: asked.pop(0))
    assert [len(step) for step in decoder.steps] == [READ_TOKENS, READ_TOKENS]
    assert draft.read(ids) and [len(step) for step in decoder.steps] == [
        READ_TOKENS,
        READ_TOKENS,
        300 - 2 * READ_TOKENS,
    ]
    assert not draft.read(list(range(1001))), "there is no room"


def test_what_was_interrupted_is_read_anew() -> None:
    decoder = FakeDecoder()
    draft = DraftModel(decoder, vocab=50)

    def fail(logits: np.ndarray, ids: Sequence[int]) -> int:
        decoder.forward = broken  # type: ignore[method-assign]
        return 7

    def broken(*args: object) -> np.ndarray:
        raise KeyboardInterrupt

    right = decoder.forward
    with pytest.raises(KeyboardInterrupt):
        draft.propose([1, 2, 3], 2, fail)
    decoder.forward = right  # type: ignore[method-assign]
    decoder.steps.clear()
    assert draft.propose([1, 2, 3], 1, likeliest) == alone([1, 2, 3], 1)
    assert [len(step) for step in decoder.steps] == [2, 1]
