"""`swarm list`: what is here, what is on its way, and what the swarm has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.cli import list as command
from swarm.cli import main as cli
from swarm.cli.list import Row
from swarm.limits import PIECE_BYTES
from swarm.store.kept_pieces import KeptPieces
from swarm.store.origins import Origin, record


@pytest.fixture
def folder(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = own_home / "models"
    folder.mkdir()
    monkeypatch.setenv("SWARM_MODELS_DIR", str(folder))
    return folder


def test_an_empty_shelf_says_how_to_fill_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert "there is no model in" in capsys.readouterr().out


def test_files_and_what_is_on_its_way_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "x-Q4_K_M.gguf"
    path.write_bytes(b"GGUF")
    record(path, Origin("u/r", path.name, 4, "a" * 64, "1" * 40, "glm-4-9b"))
    pieces = KeptPieces(folder / "y-Q8_0.gguf", 4 * PIECE_BYTES, "a")
    pieces.put(0, bytes(PIECE_BYTES))
    pieces.close()
    assert cli.main(["list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["glm-4-9b:Q4_K_M", "4", "B"] and "from u/r at 111111111111" in first
    assert "y-Q8_0" in second and "on its way: 1/4 MiB have come; the same `swarm pull` goes on" in second
    assert cli.main(["list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["glm-4-9b:Q4_K_M", "y-Q8_0"]


def test_the_swarm_tells_on_which_devices_a_model_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    rows = [Row("x", 10, path=str(path))]

    def holding(model: str, n_have: int) -> dict[str, object]:
        return {"model": model, "name": f"name of {model}", "n_have": n_have, "n_chunks": 4, "total_bytes": 20}

    status = {
        "devices": [
            {"name": "a", "health": "here", "models": [holding("1", 4), holding("2", 0)]},
            {"name": "b", "health": "alive", "models": [holding("1", 4), holding("3", 2)]},
            {"name": "c", "health": "lost", "models": [holding("3", 4)]},
        ]
    }
    command.add_swarm(rows, status, {"files": {"1": str(path.resolve())}, "names": {"3": "three"}})
    assert [(row.name, row.n_bytes, row.whole_on, row.part_on) for row in rows] == [
        ("x", 10, ["a", "b"], []),
        ("three", 20, [], ["b"]),
    ]
    assert "whole on 2 devices: a, b" in command.lines(rows, tmp_path)[0]
    assert "parts on b" in command.lines(rows, tmp_path)[1]
