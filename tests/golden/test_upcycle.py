"""A dense model and the mixture of experts made of it say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.engine.decoder import Decoder
from swarm.kernels import _native
from swarm.kernels.reference_experts import FAST_HALF_LIFE, SLOW_HALF_LIFE, fading
from swarm.models import spec_from_gguf
from swarm.store.gguf import open_gguf
from tests.helpers.families import open_decoder, random_ids
from tests.helpers.mixtures import cached_experts, from_disk
from tests.helpers.numpy_decoder import NumpyDecoder
from tests.helpers.routing import belady_hit_rate, lru_hit_rate
from tests.helpers.tiny import make_tiny
from tools.upcycle import upcycle

N_SAID = 60


@pytest.mark.parametrize("mix", ["F32", "Q8_0"])
def test_mixture_computes_what_the_dense_model_does(mix: str, tmp_path: Path) -> None:
    dense = make_tiny(tmp_path / "dense.gguf", "llama-tied-wide", mix)
    upcycle(dense, tmp_path / "mixture.gguf", copies=4)
    expected, found = NumpyDecoder.open(dense), NumpyDecoder.open(tmp_path / "mixture.gguf")
    assert found.spec.family == "glm4moe"
    ids = random_ids(expected.spec.vocab, seed=5)
    logits = expected.logits(ids)
    assert np.abs(found.logits(ids) - logits).max() <= 1e-4 * np.abs(logits).max()


def test_routing_depends_on_the_token_and_takes_all_slices_of_one_copy(tmp_path: Path) -> None:
    dense = make_tiny(tmp_path / "dense.gguf", "llama-tied-wide")
    upcycle(dense, tmp_path / "mixture.gguf", copies=4)
    decoder = NumpyDecoder.open(tmp_path / "mixture.gguf")
    decoder.logits(random_ids(decoder.spec.vocab, seed=5))
    copies = np.concatenate(decoder.chosen) // 7
    assert (copies == copies[:, :1]).all()
    assert len(np.unique(copies)) == 4


def test_mixture_of_a_real_model_speaks_as_the_dense_one(real_model: Path, tmp_path: Path) -> None:
    upcycle(real_model, tmp_path / "mixture.gguf", copies=2)
    with open_gguf(tmp_path / "mixture.gguf") as model:
        moe = spec_from_gguf(model.metadata, model.tensors).layers[1].moe
        assert moe is not None
        assert (moe.n_experts, moe.top_k, moe.gating, moe.correction_bias) == (14, 7, "sigmoid", True)
    ids = [504, 5345, 282, 4649, 314]  # "The capital of France is" in SmolLM2's vocabulary
    dense, mixture = open_decoder(real_model), open_decoder(tmp_path / "mixture.gguf")
    said = greedy(dense, ids, 24)
    expected, found = dense.logits(ids + said), mixture.logits(ids + said)
    lost = expected.max(axis=1) - np.take_along_axis(expected, found.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert lost.max() < 0.5, lost  # the next word differs at near ties only: logits span about 40
    # Sums in another order tip roundings to int8; the dense model is as far from its own float32 logits (0.003).
    assert divergence(expected, found).mean() < 0.01


def test_it_says_the_same_with_a_quarter_of_its_experts_in_memory(real_model: Path, tmp_path: Path) -> None:
    upcycle(real_model, tmp_path / "mixture.gguf")  # 8 copies: 56 experts of each of 29 layers
    ids, whole = [504, 5345, 282, 4649, 314], open_decoder(tmp_path / "mixture.gguf")
    said = greedy(whole, ids, N_SAID)
    d = from_disk(tmp_path / "mixture.gguf", 29 * 56 // 4)
    assert greedy(d, ids, N_SAID) == said
    kv, traced, before = d.new_kv(), [], cached_experts(d).residents.scores()[0]
    cold = cached_experts(d).use()
    for token in said:
        d.forward([token], kv)
        after = cached_experts(d).residents.scores()[0]
        traced.append([np.flatnonzero(row) for row in after != before])
        before = after
    trace, use = np.array(traced, np.int32), cached_experts(d).use() - cold
    assert use.hits + use.misses == trace.size
    residents = _native.Residents(29, 56, 29 * 56 // 4, fading(FAST_HALF_LIFE), fading(SLOW_HALF_LIFE))
    found = float(np.mean(residents.replay(trace) == _native.HIT))
    best, lru = (rate(trace, 29 * 56 // 4) for rate in (belady_hit_rate, lru_hit_rate))
    print(f"from nothing {100 * found:.1f} % are found; Belady {100 * best:.1f} %, LRU {100 * lru:.1f} %")
    assert max(lru, 0.9 * best) < found <= best


def greedy(decoder: Decoder, ids: list[int], count: int) -> list[int]:
    """The `count` most probable tokens, one after the other."""
    kv = decoder.new_kv(len(ids) + count)
    said = [int(decoder.forward(ids, kv).argmax())]
    while len(said) < count:
        said.append(int(decoder.forward(said[-1:], kv).argmax()))
    return said


def divergence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence in nats, by position, of the distributions of two arrays of logits."""
    log_a, log_b = (x - np.logaddexp.reduce(x.astype(np.float64), axis=1, keepdims=True) for x in (a, b))
    return (np.exp(log_a) * (log_a - log_b)).sum(axis=1)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_model_that_cannot_be_turned_is_refused(name: str, tmp_path: Path) -> None:
    dense = make_tiny(tmp_path / "dense.gguf", name)
    with pytest.raises(SystemExit, match="not a dense llama model"):
        upcycle(dense, tmp_path / "mixture.gguf")


def test_ffn_that_does_not_make_eight_slices_is_refused(tmp_path: Path) -> None:
    dense = make_tiny(tmp_path / "dense.gguf", "llama-tied", "Q8_0")
    with pytest.raises(SystemExit, match="96 columns in blocks of 32"):
        upcycle(dense, tmp_path / "mixture.gguf")
