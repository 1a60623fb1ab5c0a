"""A checkpoint of every family becomes the file that it should be: the same bits as one written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swarm.convert.checkpoint import open_checkpoint
from swarm.convert.checkpoint_tensors import mxfp4
from swarm.convert.convert import convert_checkpoint
from swarm.errors import UnsupportedModel
from swarm.store.gguf import open_gguf
from tests.helpers.checkpoints import split_experts, write_checkpoint, write_safetensors
from tests.helpers.families import open_decoder
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

IDS = list(range(40, 80))
# With rope sections the file has rows of queries in another order, which only llama.cpp's kernels need.
NAMES = [name for name in TINY if not TINY[name].sections]


def converted(tmp_path: Path, folder: Path, mix: str) -> Path:
    path = tmp_path / f"{mix}.gguf"
    convert_checkpoint(open_checkpoint(folder), mix, path, threads=2)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_the_file_computes_the_same_bits_as_one_written_by_hand(tmp_path: Path, name: str) -> None:
    path = converted(tmp_path, write_checkpoint(tmp_path / name, TINY[name]), "F32")
    expected = write_tiny(tmp_path / "hand.gguf", TINY[name], make_weights(TINY[name]))
    assert np.array_equal(open_decoder(path).logits(IDS), open_decoder(expected).logits(IDS))


@pytest.mark.parametrize("mix", ["F16", "BF16", "Q8_0"])
def test_bytes_are_those_of_the_gguf_package(tmp_path: Path, mix: str) -> None:
    path = converted(tmp_path, write_checkpoint(tmp_path / "tiny", TINY["air"]), mix)
    by_hand = write_tiny(tmp_path / "hand.gguf", TINY["air"], make_weights(TINY["air"]), mix)
    with open_gguf(path) as found, open_gguf(by_hand) as expected:
        for name, tensor in found.tensors.items():
            assert tensor.quant == expected.tensors[name].quant and tensor.shape == expected.tensors[name].shape
            assert np.array_equal(found.raw(name), expected.raw(name)), name


def test_keys_of_the_model_are_those_of_a_file_written_by_hand(tmp_path: Path) -> None:
    path = converted(tmp_path, write_checkpoint(tmp_path / "tiny", TINY["flash"]), "F16")
    by_hand = write_tiny(tmp_path / "hand.gguf", replace(TINY["flash"], mtp="none"), make_weights(TINY["flash"]))
    with open_gguf(path) as found, open_gguf(by_hand) as expected:
        for key in expected.metadata:
            if key.startswith("deepseek2.") or key in ("tokenizer.ggml.tokens", "tokenizer.ggml.pre"):
                assert found.metadata[key] == pytest.approx(expected.metadata[key]), key
        assert found.metadata["tokenizer.chat_template"] == "{{ messages }}"
        assert found.metadata["general.file_type"] == 1


def test_a_mix_is_made_at_once(tmp_path: Path) -> None:
    tiny = wide(TINY["qwen3"])
    path = converted(tmp_path, write_checkpoint(tmp_path / "tiny", tiny, dtype="BF16"), "Q4_K_M")
    with open_gguf(path) as model:
        assert {t.quant.name for t in model.tensors.values()} == {"F32", "Q4_K", "Q6_K"}
    logits = open_decoder(path).logits(IDS)
    expected = open_decoder(write_tiny(tmp_path / "hand.gguf", tiny, make_weights(tiny))).logits(IDS)
    assert np.median(np.abs(logits - expected).max(axis=1)) < 0.4 * np.abs(expected).max()


def test_experts_that_lie_one_by_one_become_one_tensor(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TINY["qwen3moe"])
    split_experts(folder)
    path = converted(tmp_path, folder, "F32")
    expected = write_tiny(tmp_path / "hand.gguf", TINY["qwen3moe"], make_weights(TINY["qwen3moe"]))
    assert np.array_equal(open_decoder(path).logits(IDS), open_decoder(expected).logits(IDS))


def test_what_the_family_does_not_know_is_refused_before_the_first_byte(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TINY["llama"])
    write_safetensors(folder / "more.safetensors", {"model.layers.0.self_attn.o_proj.bias": np.ones(64)}, "F32")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(UnsupportedModel, match=r"attn_output\.bias"):
        converted(tmp_path, folder, "F32")
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*"))


def test_a_gpt_oss_checkpoint_keeps_the_blocks_that_it_was_trained_in(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TINY["gpt-oss"])
    state = {name: tensor.floats() for name, tensor in open_checkpoint(folder).tensors.items()}
    rng = np.random.default_rng(1)
    for name in [n for n in state if n.endswith(("gate_up_proj", "experts.down_proj"))]:
        n_experts, columns, rows = state.pop(name).shape
        state[f"{name}_blocks"] = rng.integers(0, 256, (n_experts, rows, columns // 32, 16), np.uint8)
        state[f"{name}_scales"] = rng.integers(120, 124, (n_experts, rows, columns // 32), np.uint8)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    write_safetensors(folder / "model.safetensors", state, "F32")
    with open_gguf(converted(tmp_path, folder, "Q8_0")) as model:
        name = "model.layers.1.mlp.experts.gate_up_proj"
        for part, first in (("gate", 0), ("up", 1)):
            tensor = f"blk.1.ffn_{part}_exps.weight"
            assert model.tensors[tensor].quant.name == "MXFP4"
            expected = mxfp4(state[f"{name}_blocks"][2, first::2], state[f"{name}_scales"][2, first::2])
            assert np.array_equal(model.raw(tensor)[2], expected)
        assert np.isfinite(open_decoder(tmp_path / "Q8_0.gguf").logits(IDS)).all()
