"""Every family: what its declaration says, run by NumPy, gives the logits of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.numpy_decoder import NumpyDecoder
from tests.helpers.tiny import TINY, after_storage, make_weights, wide, write_tiny
from tests.helpers.transformers_oracle import transformers_hidden, transformers_logits

pytest.importorskip("torch", reason="torch is not installed: `make oracles`")
pytest.importorskip("transformers", reason="transformers is not installed: `make oracles`")

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("mix", ["F32", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("name", TINY)
def test_declared_model_computes_what_transformers_does(name: str, mix: str, tmp_path: Path) -> None:
    # 352 columns are no multiple of 256: a mixture of K-quants falls back to others there.
    tiny = wide(TINY[name], ffn=352) if mix == "Q4_K" else TINY[name]
    weights = make_weights(tiny, seed=1)
    path = write_tiny(tmp_path / "tiny.gguf", tiny, weights, mix)
    ids = np.random.default_rng(2).integers(0, tiny.vocab, 130).tolist()
    found = NumpyDecoder.open(path).logits(ids)
    expected = transformers_logits(tiny, after_storage(tiny, weights, mix), ids)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("name", ["llama", "glm4", "qwen3", "granite"])
def test_what_embeddings_are_made_of_is_the_last_hidden_state_of_transformers(name: str, tmp_path: Path) -> None:
    tiny = TINY[name]
    weights = make_weights(tiny, seed=1)
    path = write_tiny(tmp_path / "tiny.gguf", tiny, weights, "F32")
    ids = np.random.default_rng(2).integers(0, tiny.vocab, 40).tolist()
    found, expected = NumpyDecoder.open(path).hidden(ids), transformers_hidden(tiny, weights, ids)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
