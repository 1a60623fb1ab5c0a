"""A checkpoint's folder: what is read, and what is not believed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from swarm.convert.checkpoint import open_checkpoint
from swarm.errors import BadModelFile, ModelError, ModelNotFound
from tests.helpers.checkpoints import write_checkpoint, write_safetensors
from tests.helpers.tiny import TINY

VALUES = np.random.default_rng(2).standard_normal((6, 8)).astype(np.float32)


def folder_with(tmp_path: Path, raw: bytes) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(raw)
    return tmp_path


def file_of(table: object, data: bytes = b"") -> bytes:
    head = json.dumps(table).encode()
    return len(head).to_bytes(8, "little") + head + data


@pytest.mark.parametrize(("dtype", "loss"), [("F32", 0.0), ("F16", 1e-3), ("BF16", 1e-2)])
def test_values_come_back_as_floats(tmp_path: Path, dtype: str, loss: float) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_safetensors(tmp_path / "model.safetensors", {"a": VALUES, "b": VALUES[0]}, dtype)
    tensors = open_checkpoint(tmp_path).tensors
    np.testing.assert_allclose(tensors["a"].floats(), VALUES, rtol=loss)
    np.testing.assert_allclose(tensors["a"].floats(slice(1, 3)), VALUES[1:3], rtol=loss)
    np.testing.assert_allclose(tensors["a"].floats(np.array([5, 0])), VALUES[[5, 0]], rtol=loss)
    assert tensors["b"].shape == (8,)


def test_other_programs_write_the_same_files(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed: `make oracles`")
    (tmp_path / "config.json").write_text("{}")
    package.save_file({"a": VALUES}, tmp_path / "model.safetensors")
    assert np.array_equal(open_checkpoint(tmp_path).tensors["a"].floats(), VALUES)


def test_a_file_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TINY["llama"])
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"model-00002-of-00003\.safetensors is missing"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "it has 0 bytes"),
        (b"\xff" * 100, "header would have"),
        (file_of([]), "no JSON object"),
        (b"\x05\0\0\0\0\0\0\0{nope", "it is no JSON"),
        (file_of({"a": 1}), "makes no sense"),
        (file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}), "does not lie in the file"),
        (file_of({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)), "does not lie in the file"),
        (file_of({"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}, bytes(8)), "does not lie"),
        (file_of({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)), "is F8_E4M3"),
    ],
)
def test_broken_files_give_one_line(tmp_path: Path, raw: bytes, why: str) -> None:
    with pytest.raises(ModelError, match=why) as error:
        open_checkpoint(folder_with(tmp_path, raw))
    assert "\n" not in str(error.value)


def test_a_folder_without_a_checkpoint_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no such folder"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelNotFound, match=r"pytorch_model\.bin is of an older kind"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in ("a.safetensors", "b.safetensors"):
        write_safetensors(tmp_path / name, {"t": VALUES}, "F32")
    with pytest.raises(BadModelFile, match="is in another file, too"):
        open_checkpoint(tmp_path)
