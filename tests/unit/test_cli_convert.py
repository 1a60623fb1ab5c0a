"""`swarm convert` from the shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli.main import main
from swarm.store.gguf import open_gguf
from tests.helpers.checkpoints import write_checkpoint
from tests.helpers.hub import StandInHub
from tests.helpers.tiny import TINY


def test_a_folder_becomes_a_file_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "Tiny-1B", TINY["granite"], dtype="BF16")
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(folder), "Q8_0"]) == 0
    assert "Tiny-1B-Q8_0.gguf: " in capsys.readouterr().out
    with open_gguf(tmp_path / "Tiny-1B-Q8_0.gguf") as model:
        assert model.metadata["general.name"] == "Tiny-1B"
        assert model.metadata["granite.residual_scale"] == pytest.approx(0.22)


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path), "Q8_0"]) != 0
    error = capsys.readouterr().err
    assert "there is no config.json" in error and error.count("\n") == 1


def test_a_repository_of_the_hub_is_fetched_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "origin", TINY["qwen3"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWARM_MODELS_DIR", str(tmp_path / "models"))
    with StandInHub.of({"u/Tiny-Qwen3": {file.name: file.read_bytes() for file in folder.iterdir()}}) as hub:
        for key, value in hub.env().items():
            monkeypatch.setenv(key, value)
        assert main(["convert", "u/Tiny-Qwen3", "F16"]) == 0
        assert main(["convert", "u/Nothing", "F16"]) != 0
    with open_gguf(tmp_path / "Tiny-Qwen3-F16.gguf") as model:
        assert model.metadata["general.name"] == "Tiny-Qwen3"
    assert "the hub has no repository u/Nothing" in capsys.readouterr().err
