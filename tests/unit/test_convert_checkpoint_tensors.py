"""Tensors of a checkpoint and those of a file: which rows, and what is missing or cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.convert.checkpoint import open_checkpoint
from swarm.convert.checkpoint_tensors import mxfp4, output_tensors
from swarm.errors import BadModelFile, UnsupportedModel
from swarm.kernels.quants import dequantize, quant_by_name
from tests.helpers.checkpoints import split_experts, write_checkpoint, write_safetensors
from tests.helpers.tiny import TINY


def with_more(folder: Path, name: str, shape: tuple[int, ...]) -> Path:
    """The folder with one more tensor."""
    (folder / "model.safetensors.index.json").unlink()
    write_safetensors(folder / "more.safetensors", {name: np.ones(shape)}, "F32")
    return folder


@pytest.mark.parametrize("name", ["llama", "flash", "gpt-oss"])
def test_tensors_outside_layers_come_first_and_each_has_all_its_rows(tmp_path: Path, name: str) -> None:
    tensors = output_tensors(open_checkpoint(write_checkpoint(tmp_path / name, TINY[name])), "F32")
    assert [t.name.startswith("blk.") for t in tensors] == sorted(t.name.startswith("blk.") for t in tensors)
    for tensor in tensors:
        rows = np.concatenate([np.atleast_1d(piece()) for piece in tensor.pieces])
        assert rows.size == np.prod(tensor.shape), tensor.name


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TINY["qwen3moe"])
    split_experts(folder, left_out=3)
    with pytest.raises(BadModelFile, match=r"experts\.\w+_proj\.weight: the checkpoint has 7 of 8 experts"):
        output_tensors(open_checkpoint(folder), "F32")


def test_a_tensor_that_no_table_knows_is_named(tmp_path: Path) -> None:
    folder = with_more(write_checkpoint(tmp_path / "tiny", TINY["llama"]), "model.layers.0.adapter.weight", (4, 4))
    with pytest.raises(UnsupportedModel, match=r"'model\.layers\.0\.adapter\.weight' of the checkpoint"):
        output_tensors(open_checkpoint(folder), "F32")


def test_parts_that_see_and_tables_of_rotation_are_left_out(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TINY["llama"])
    count = len(output_tensors(open_checkpoint(folder), "F32"))
    with_more(folder, "model.layers.0.self_attn.rotary_emb.inv_freq", (16,))
    write_safetensors(folder / "sees.safetensors", {"vision_tower.x.weight": np.ones((2, 2))}, "F32")
    assert len(output_tensors(open_checkpoint(folder), "F32")) == count


def test_latents_of_other_heads_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TINY["flash"])
    config = (folder / "config.json").read_text().replace('"v_head_dim": 32', '"v_head_dim": 48')
    (folder / "config.json").write_text(config)
    with pytest.raises(BadModelFile, match="not 4 heads of 64 and 48"):
        output_tensors(open_checkpoint(folder), "F32")


def test_nibbles_of_gpt_oss_stand_for_the_same_values_in_a_file() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (5, 3, 16), np.uint8)
    scales = rng.integers(120, 130, (5, 3), np.uint8)
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    columns = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(5, 3, 32)
    expected = (levels[columns] * 2.0 ** (scales[..., None].astype(int) - 127)).reshape(5, 96)
    np.testing.assert_array_equal(dequantize(quant_by_name("MXFP4"), mxfp4(blocks, scales)), expected)
