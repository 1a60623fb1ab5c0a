"""Model files on this device."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import ModelNotFound
from swarm.store.keeping import file_at, kept_models


def test_the_directory_of_models_may_hold_other_things_or_not_be_there(tmp_path: Path) -> None:
    assert kept_models(tmp_path / "none") == []
    for name in ("b.gguf", "a.gguf", "notes.txt", ".a.gguf.lock"):
        (tmp_path / name).touch()
    assert kept_models(tmp_path) == [tmp_path / "a.gguf", tmp_path / "b.gguf"]


def test_a_file_is_found_at_its_path_also_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert file_at(str(path)) == path == file_at("~/model.gguf")
    assert file_at("model.gguf") == Path("model.gguf")


def test_what_may_be_a_name_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert file_at("glm-4-9b") is None and file_at("folder") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [("./none.gguf", "there is no file"), (".", "is a directory"), ("./x/", "holds model.gguf")],
)
def test_a_path_to_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "model.gguf").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound, match=says):
        file_at(text)
