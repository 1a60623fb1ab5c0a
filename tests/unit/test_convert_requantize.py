"""A GGUF file in other types: the model it is, and the types it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.convert.requantize import quantize_model
from swarm.errors import ConfigError
from swarm.store.gguf import open_gguf
from tests.helpers.families import open_decoder
from tests.helpers.tiny import TINY, make_tiny, make_weights, wide, write_tiny

IDS = np.random.default_rng(3).integers(0, 300, 30).tolist()


def quantized(tmp_path: Path, name: str, mix: str) -> tuple[Path, Path]:
    tiny = wide(TINY[name])
    source = write_tiny(tmp_path / "source.gguf", tiny, make_weights(tiny))
    path = tmp_path / f"{mix}.gguf"
    with open_gguf(source) as model:
        quantize_model(model, mix, path, threads=2)
    return source, path


@pytest.mark.parametrize(("mix", "bound"), [("F16", 2e-3), ("BF16", 2e-2), ("Q8_0", 0.05), ("Q4_K_M", 0.4)])
@pytest.mark.parametrize("name", ["llama", "chatglm", "flash", "gpt-oss"])
def test_a_model_computes_nearly_the_same(tmp_path: Path, name: str, mix: str, bound: float) -> None:
    source, path = quantized(tmp_path, name, mix)
    expected, found = (open_decoder(p).logits(IDS) for p in (source, path))
    assert np.median(np.abs(found - expected).max(axis=1)) <= bound * np.abs(expected).max()


def test_metadata_stays_but_for_the_kind_of_file(tmp_path: Path) -> None:
    source, path = quantized(tmp_path, "llama", "Q4_0")
    with open_gguf(source) as before, open_gguf(path) as after:
        assert after.metadata["general.file_type"] == 2
        for key in before.metadata:
            assert np.array_equal(before.metadata[key], after.metadata[key]), key
        assert {t.quant.name for t in after.tensors.values()} == {"F32", "Q4_0", "Q6_K"}


@pytest.mark.parametrize(("name", "embedding"), [("llama", "Q4_K"), ("llama-tied", "Q6_K")])
def test_the_model_as_a_whole_says_which_tensors_have_more_bits(tmp_path: Path, name: str, embedding: str) -> None:
    _, path = quantized(tmp_path, name, "Q4_K_M")
    with open_gguf(path) as after:
        values = [after.tensors[f"blk.{layer}.attn_v.weight"].quant.name for layer in range(3)]
        assert values == ["Q4_K", "Q4_K", "Q6_K"], "of three layers, the last"
        assert after.tensors["token_embd.weight"].quant.name == embedding, "where it is the LM head, too"


def test_tensors_of_the_wanted_type_are_copied(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "source.gguf", "llama", mix="Q8_0")
    with open_gguf(source) as model:
        quantize_model(model, "Q8_0", tmp_path / "again.gguf")
    with open_gguf(source) as before, open_gguf(tmp_path / "again.gguf") as after:
        assert all(np.array_equal(before.raw(name), after.raw(name)) for name in before.tensors)


def test_what_was_trained_in_few_bits_stays_in_them(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "source.gguf", "gpt-oss", mix="MXFP4")
    with open_gguf(source) as model:
        quantize_model(model, "Q8_0", tmp_path / "q.gguf")
    with open_gguf(tmp_path / "q.gguf") as after:
        assert after.tensors["blk.0.ffn_down_exps.weight"].quant.name == "MXFP4"


def test_rounding_twice_must_be_asked_for(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "source.gguf", "llama", mix="Q4_0")
    with open_gguf(source) as model:
        with pytest.raises(ConfigError, match=r"is mostly Q4_0: .*--again"):
            quantize_model(model, "Q8_0", tmp_path / "q.gguf")
        quantize_model(model, "Q8_0", tmp_path / "q.gguf", again=True)
    assert (tmp_path / "q.gguf").exists()
