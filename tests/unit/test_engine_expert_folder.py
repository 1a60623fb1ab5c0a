"""Files of experts: written once, found again, and room made for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm.engine import expert_folder
from swarm.engine.weights import load_weights
from swarm.errors import DiskFull
from swarm.models import spec_from_gguf
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from tests.helpers import mixtures


def load(path: Path, told: list[tuple[int, int]] | None = None) -> None:
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        progress = None if told is None else lambda done, total: told.append((done, total))
        weights = load_weights(
            model, spec, all_parts(spec.n_layers), experts=mixtures.expert_folder(path), progress=progress
        )
    assert sorted(weights.expert_files) == [1, 2]
    assert not weights.experts


def test_experts_are_written_once(tmp_path: Path) -> None:
    path = mixtures.write_mixture(tmp_path)
    told: list[tuple[int, int]] = []
    load(path, told)
    files = sorted(mixtures.expert_folder(path).path.glob("layer*"))
    assert len(files) == 2 and told[-1][0] == told[-1][1]
    stamps = [file.stat().st_mtime_ns for file in files]
    load(path, told)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    files[0].unlink()
    load(path)
    assert files[0].exists() and files[1].stat().st_mtime_ns == stamps[1], "only what is missing"


def test_a_full_disk_says_so_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mixtures.write_mixture(tmp_path)
    monkeypatch.setattr("swarm.files.spare_bytes", lambda directory: 1000)
    monkeypatch.setattr(expert_folder, "spare_bytes", lambda directory: 1000)
    with pytest.raises(DiskFull, match="kept there a second time, packed: free some space"):
        load(path)
    assert not mixtures.expert_folder(path).path.exists()


def test_experts_of_the_model_used_longest_ago_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate(("old", "older", "new")):
        folder = tmp_path / f"{name}.experts"
        folder.mkdir()
        os.utime(folder, (1000 - 10 * (name == "older") + 100 * (name == "new"), 1000 + i * (name != "older")))
    os.utime(tmp_path / "older.experts", (1, 1))
    room = iter([0, 0, 5000, 5000, 5000])
    monkeypatch.setattr(expert_folder, "spare_bytes", lambda directory: next(room))
    monkeypatch.setattr(expert_folder, "check_space", lambda *of: None)
    expert_folder.ExpertFolder(tmp_path / "mine").make_room(5000)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["new.experts"]
