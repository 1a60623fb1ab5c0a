"""`swarm import`: from a folder that stands for a stick."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli import main as cli
from swarm.store import copying
from tests.helpers.tiny import make_tiny


@pytest.fixture
def stick(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = own_home / "stick"
    folder.mkdir()
    make_tiny(folder / "Tiny-Q8_0.gguf", "llama", "Q8_0")
    (folder / "page.gguf").write_bytes(b"<html>")
    monkeypatch.setenv("SWARM_MODELS_DIR", str(own_home / "models"))
    return folder


def test_all_models_of_a_stick_come_and_what_is_none_is_named(
    stick: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", str(stick)]) == 1
    out, err = capsys.readouterr()
    assert f"Tiny-Q8_0 is here: {own_home / 'models' / 'Tiny-Q8_0.gguf'}" in out
    assert "swarm: not page.gguf:" in err and "a web page" in err
    assert cli.main(["show", "Tiny-Q8_0"]) == 0


def test_without_a_path_what_is_plugged_in_is_looked_at(
    stick: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "plugged_in", list)
    assert cli.main(["import"]) == 1
    assert "nothing is plugged in here" in capsys.readouterr().err
    (stick / "page.gguf").unlink()
    monkeypatch.setattr(copying, "plugged_in", lambda: [stick])
    assert cli.main(["import"]) == 0


def test_a_folder_without_models_says_so(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_home / "empty").mkdir()
    assert cli.main(["import", str(own_home / "empty")]) == 1
    assert "there is no GGUF model in" in capsys.readouterr().err
