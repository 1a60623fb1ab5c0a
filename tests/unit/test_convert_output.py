"""A file that is written tensor by tensor: what readers see, and what a run that was cut off leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest

from swarm.convert import output
from swarm.convert.output import OutputTensor, Piece, rows_of, write_model
from swarm.errors import ConfigError, DiskFull
from swarm.files import partial_of
from swarm.kernels.quants import quant_by_name
from swarm.store.gguf import open_gguf

VALUES = np.random.default_rng(1).standard_normal((6, 96, 64)).astype(np.float32)
METADATA = {
    "general.architecture": "llama",
    "a.text": "größe",
    "a.flag": True,
    "a.whole": 7,
    "a.below": -7,
    "a.large": 1 << 40,
    "a.real": 0.5,
    "a.texts": ["x", ""],
    "a.numbers": np.array([1, -2], np.int32),
    "a.flags": np.array([True, False]),
}


class Cut(Exception):
    """What ends a run in the middle."""


def tensors(cut_at: int = -1) -> list[OutputTensor]:
    """Six matrices; reading number `cut_at` raises Cut."""
    return [OutputTensor(f"t{i}", (96, 64), quant_by_name("F32"), pieces(i, i == cut_at)) for i in range(6)]


def pieces(i: int, is_cut: bool) -> Sequence[Piece]:
    def read(start: int, end: int) -> np.ndarray:
        if is_cut:
            raise Cut
        return VALUES[i, start:end]

    return list(rows_of(read, 96, 256, 256 * 32))


def test_two_readers_see_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    assert write_model(path, METADATA, tensors(), "here", threads=2) == 0
    with open_gguf(path) as model:
        for key, value in METADATA.items():
            assert np.array_equal(model.metadata[key], value), key
        for i in range(6):
            assert np.array_equal(model.raw(f"t{i}").view(np.float32), VALUES[i])
    reader = gguf.GGUFReader(path)
    assert {key: field.contents() for key, field in reader.fields.items() if key.startswith("a.t")} == {
        "a.text": "größe",
        "a.texts": ["x", ""],
    }
    assert all(np.array_equal(tensor.data, VALUES[i]) for i, tensor in enumerate(reader.tensors))
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def test_a_second_run_goes_on_where_the_first_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(Cut):
        write_model(path, METADATA, tensors(cut_at=4), "here")
    assert not path.exists()
    read: list[int] = []
    counted = [
        OutputTensor(t.name, t.shape, t.quant, [lambda i=i, p=p: (read.append(i), p())[1] for p in t.pieces])
        for i, t in enumerate(tensors())
    ]
    assert write_model(path, METADATA, counted, "here") > 4 * 96 * 256
    assert set(read) == {4, 5}
    with open_gguf(path) as model:
        assert all(np.array_equal(model.raw(f"t{i}").view(np.float32), VALUES[i]) for i in range(6))


@pytest.mark.parametrize("damage", ["other source", "short file", "torn note", "no note", "foolish note"])
def test_what_is_not_surely_the_same_is_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(Cut):
        write_model(path, METADATA, tensors(cut_at=4), "here")
    note = partial_of(path).with_suffix(".note")
    if damage == "short file":
        partial_of(path).write_bytes(b"GGUF")
    elif damage == "torn note":
        note.write_bytes(note.read_bytes()[:-5])
    elif damage == "no note":
        note.unlink()
    elif damage == "foolish note":
        note.write_text(json.dumps({**json.loads(note.read_text()), "tensors": "all"}))
    source = "there" if damage == "other source" else "here"
    assert write_model(path, METADATA, tensors(), source) == 0
    with open_gguf(path) as model:
        assert all(np.array_equal(model.raw(f"t{i}").view(np.float32), VALUES[i]) for i in range(6))


def test_a_file_that_is_there_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="is there already"):
        write_model(path, METADATA, tensors(), "here")
    assert path.read_bytes() == b"mine"


def test_a_disk_without_room_is_said_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.files.spare_bytes", lambda _: 1000)
    with pytest.raises(DiskFull, match="are needed"):
        write_model(tmp_path / "m.gguf", METADATA, tensors(), "here")
    assert partial_of(tmp_path / "m.gguf").stat().st_size == 0


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with output._Output(path, b"x", "x"), pytest.raises(ConfigError, match="being written by another process"):
        write_model(path, METADATA, tensors(), "here")
