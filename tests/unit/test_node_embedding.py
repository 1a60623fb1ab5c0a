"""Which hidden state stands for a text, and how it is made a vector."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from swarm.errors import ConfigError, SwarmNetworkError
from swarm.node.answer import Embedding
from swarm.node.embedding import FIRST, LAST, check_embedding, embedding_prompt, pooling_of, unit_vector
from swarm.text.model_text import ModelText
from swarm.text.tokenizer import Tokenizer
from tests.helpers.tiny_text import VOCAB, text_metadata


def model_of(**more: object) -> Any:
    """A model whose file says more."""
    metadata = {"general.architecture": "qwen3", **text_metadata("qwen3"), **more}
    text = ModelText("tiny", Tokenizer.from_metadata(metadata), None, len(VOCAB))
    return SimpleNamespace(
        name="tiny", source=SimpleNamespace(metadata=metadata), text=text, spec=SimpleNamespace(hidden=64)
    )


@pytest.mark.parametrize(
    ("said", "pooling"), [({}, LAST), ({"qwen3.pooling_type": 3}, LAST), ({"qwen3.pooling_type": 2}, FIRST)]
)
def test_the_last_token_stands_for_a_text_unless_the_file_says_the_first(said: dict[str, object], pooling: int) -> None:
    model = model_of(**said)
    assert pooling_of(model) == pooling
    ids = embedding_prompt(model, [5, 6, 7], 100, cuts=False).ids
    assert ids == ([5, 6, 7] if pooling == LAST else [5])


@pytest.mark.parametrize(
    ("kind", "words"), [(0, "each token"), (1, "the mean"), (4, "a rank"), (9, "unknown"), ("x", "unknown")]
)
def test_other_ways_are_refused_by_name(kind: object, words: str) -> None:
    with pytest.raises(
        ConfigError, match=f"tiny makes its vectors with pooling_type .*{words}.*which is not done here"
    ):
        pooling_of(model_of(**{"qwen3.pooling_type": kind}))


def test_no_more_dimensions_than_there_are() -> None:
    check_embedding(Embedding(64), model_of())
    for wrong in (0, -1, 65):
        with pytest.raises(ConfigError, match=f"dimensions is {wrong}; tiny makes vectors of 1 to 64"):
            check_embedding(Embedding(wrong), model_of())


def test_a_vector_has_length_one_whole_or_cut() -> None:
    state = np.random.default_rng(1).normal(size=64).astype(np.float32)
    for n in (None, 7):
        want = state[:n] / np.linalg.norm(state[:n].astype(np.float64))
        assert np.allclose(unit_vector(state.tobytes(), n), want, atol=1e-7)
    assert unit_vector(np.full(4, 1e30, np.float32).tobytes()).tolist() == [0.5] * 4, "its square is no float32"
    for none in ([0, 0], [1, np.inf], [np.nan], []):
        with pytest.raises(SwarmNetworkError, match="a vector that is none"):
            unit_vector(np.array(none, np.float32).tobytes())
