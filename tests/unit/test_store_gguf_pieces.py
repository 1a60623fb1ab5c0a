"""Files that were cut by bytes are called so, and those that were put one behind the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.errors import BadModelFile
from swarm.store.gguf import open_gguf
from swarm.store.gguf_pieces import what_piece
from tests.helpers.gguf_writer import write_gguf, write_split_gguf
from tests.helpers.tiny import make_tiny

METADATA = {"general.architecture": "llama", "general.name": "x"}
TENSORS = {f"blk.{i}.x": (np.ones((3, 40), np.float32), "F32") for i in range(4)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.Q4_1.gguf.part1of2", "piece 1 of 2 .*: cat a.Q4_1.gguf.part1of2 a.Q4_1.gguf.part2of2 > a.Q4_1.gguf$"),
        ("a.gguf.part2of2", "piece 2 of 2 .*: cat a.gguf.part1of2 a.gguf.part2of2 > a.gguf$"),
        ("a.gguf.part03of12", "piece 3 of 12 .*a.gguf.part8of12 ... > a.gguf$"),
        ("a.gguf-split-b", "a piece of .*: cat a.gguf-split-[*] > a.gguf$"),
        ("a.gguf.part-aa", "a piece of .*: cat a.gguf.part-[*] > a.gguf$"),
        ("a.gguf.001", "a piece of .*: cat a.gguf.[*] > a.gguf$"),
    ],
)
def test_a_piece_of_a_file_says_how_to_join_it(name: str, message: str, tmp_path: Path) -> None:
    data = make_tiny(tmp_path / "whole.gguf", "llama").read_bytes()
    for part in (data[: len(data) // 2], data[len(data) // 2 :]):
        (tmp_path / name).write_bytes(part)
        with pytest.raises(BadModelFile, match=message) as error:
            open_gguf(tmp_path / name)
        assert "fetch it again" not in str(error.value)


def test_a_whole_file_may_be_called_as_a_piece_is(tmp_path: Path) -> None:
    data = make_tiny(tmp_path / "whole.gguf", "llama").read_bytes()
    (tmp_path / "a.gguf.001").write_bytes(data)
    with open_gguf(tmp_path / "a.gguf.001") as model:
        assert model.tensors


@pytest.mark.parametrize("name", ["a.gguf", "a.gguf.bak", "a.part1of2", "a-00001-of-00002.gguf", "a.gguf.part1of"])
def test_other_names_are_of_no_piece(name: str) -> None:
    assert what_piece(Path(name)) == ""


@pytest.mark.parametrize("n_files", [2, 3])
@pytest.mark.parametrize("tensors", [TENSORS, {}])
def test_files_of_a_split_model_that_cat_joined_are_called_so(tensors: dict, n_files: int, tmp_path: Path) -> None:
    parts = write_split_gguf(tmp_path / "m", METADATA, tensors or TENSORS, n_files)
    if not tensors:  # as some publishers do it, the first file has the metadata alone
        write_gguf(parts[0], {**METADATA, "split.no": np.uint16(0), "split.count": np.uint16(n_files)}, {})
    (tmp_path / "joined.gguf").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(BadModelFile, match="one behind the other, as `cat` joins them; give the files themselves"):
        open_gguf(tmp_path / "joined.gguf")


def test_bytes_behind_a_whole_file_are_no_other_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", METADATA, TENSORS)
    with path.open("ab") as file:
        file.write(b"GGUF is not there, nor a file behind this one")
    with open_gguf(path) as model:
        assert len(model.tensors) == len(TENSORS)
