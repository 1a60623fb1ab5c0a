"""`swarm verify`: right, damaged, and nothing to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli import main as cli
from swarm.store.chunks import ChunkStore
from swarm.store.fetching import file_sha256
from swarm.store.origins import Origin, record
from tests.helpers.tiny import make_tiny


@pytest.fixture
def model(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (own_home / "models").mkdir()
    path = make_tiny(own_home / "models" / "x-Q8_0.gguf", "llama", "Q8_0")
    record(path, Origin("u/r", path.name, path.stat().st_size, file_sha256(path), "1" * 40))
    monkeypatch.setenv("SWARM_MODELS_DIR", str(path.parent))
    return path


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_a_right_model_is_ok_and_a_damaged_one_says_what_to_do(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify"]) == 0
    assert capsys.readouterr().out == "ok   x-Q8_0 is what came from u/r at 111111111111\n"
    damage(model)
    assert cli.main(["verify", "x-q8_0"]) == 1
    assert "!!   x-Q8_0 is damaged (x-Q8_0.gguf): `swarm rm x-Q8_0`, then pull" in capsys.readouterr().out


def test_without_a_record_the_header_is_looked_at(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.with_name(f".{model.name}.origin").unlink()
    assert cli.main(["verify"]) == 0
    assert "has a sound header; there is no hash to compare the rest with" in capsys.readouterr().out
    model.write_bytes(model.read_bytes()[:-500])
    assert cli.main(["verify"]) == 1


def test_chunks_that_are_kept_for_the_swarm_are_compared_too(
    model: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ChunkStore(own_home / "home" / "store")
    store.import_gguf(model)
    store.close()
    assert cli.main(["verify", "--home", str(own_home / "home")]) == 0
    assert "chunks for the swarm are right" in capsys.readouterr().out


def test_a_name_that_is_not_there_is_said(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "y"]) == 1
    assert "no model called 'y'" in capsys.readouterr().err
