"""The table of families: the engine against transformers and against itself, in three quants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.families import CHUNKS, MIXES, Row, in_steps, measure, open_decoder, random_ids
from tests.helpers.numpy_decoder import NumpyDecoder
from tests.helpers.tiny import TINY, make_tiny


@pytest.mark.oracle
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", TINY)
def test_engine_computes_what_transformers_does(name: str, mix: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: `make oracles`")
    pytest.importorskip("transformers", reason="transformers is not installed: `make oracles`")
    row: Row = measure(name, mix, tmp_path)
    assert row.within_bounds, row


@pytest.mark.oracle
def test_experts_in_mxfp4_compute_what_transformers_does(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: `make oracles`")
    pytest.importorskip("transformers", reason="transformers is not installed: `make oracles`")
    row: Row = measure("gpt-oss", "MXFP4", tmp_path)
    assert row.within_bounds, row


@pytest.mark.parametrize("name", ["gpt-oss", "gpt-oss-near", "flash", "mistral3", "llama"])
def test_contexts_of_more_than_a_segment_give_the_same_bits_in_any_steps(name: str, tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", name)
    decoder = open_decoder(path, context=1200, kv="f32")
    ids = np.random.default_rng(5).integers(0, decoder.spec.vocab, 1100).tolist()
    prefilled = decoder.logits(ids)
    assert np.array_equal(in_steps(decoder, ids, (1000, *(1,) * 30, 70)), prefilled)
    expected = NumpyDecoder.open(path, exact=True).logits(ids)
    # Here and there a sum is rounded to its other side, a step away: 2.7e-4 at most.
    assert np.abs(prefilled - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["llama", "glm4", "glm355b-wide", "gpt-oss", "flash"])
def test_int8_kv_cache_gives_the_same_bits_in_any_chunks(name: str, tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", name, mix="Q8_0")
    decoder = open_decoder(path, kv="q8_0")
    ids = random_ids(decoder.spec.vocab, seed=3)
    prefilled = decoder.logits(ids)
    assert np.array_equal(in_steps(decoder, ids, (1,) * len(ids)), prefilled)
    assert np.array_equal(in_steps(decoder, ids, CHUNKS), prefilled)
    # Eight bits for keys and values cost little beside sixteen.
    assert np.median(np.abs(prefilled - open_decoder(path).logits(ids))) < 0.02 * np.abs(prefilled).max()
