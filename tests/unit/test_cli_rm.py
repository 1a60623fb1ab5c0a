"""`swarm rm` where no node runs; tests/swarm has the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli import main as cli
from swarm.cli import rm
from swarm.local.model import packed_dir, packed_key
from swarm.store.gguf import open_gguf
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny


@pytest.fixture
def model(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = own_home / "models" / "x-Q4_K_M.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF" * 2000)
    monkeypatch.setenv("SWARM_MODELS_DIR", str(path.parent))
    return path


def test_a_model_is_deleted_and_says_what_that_gained(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rm", "X-q4_k_m"]) == 0
    assert capsys.readouterr().out == "x-Q4_K_M is deleted here (8 KiB gained)\n"
    assert list(model.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["y"], 1, "no model called 'y' is in"),
        (["x-Q4_K_M", "--everywhere"], 2, "--everywhere needs the node of this device"),
    ],
)
def test_what_cannot_be_deleted_is_said_in_one_line(
    model: Path, words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["rm", *words]) == code
    assert says in capsys.readouterr().err and model.exists()


def test_somebody_at_a_terminal_is_asked(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rm, "confirmed", lambda what, args: False)
    assert cli.main(["rm", "x-Q4_K_M"]) == 1
    assert "nothing was deleted" in capsys.readouterr().out and model.exists()


def test_what_runs_kept_of_the_model_goes_along(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model.with_name("tiny.gguf")
    tiny = wide(TINY["qwen3"])
    write_tiny(path, tiny, make_weights(tiny), "Q4_0")
    with open_gguf(path) as gguf:
        key = packed_key(gguf)
    for name in (f"{key}-abc.packed", f"{key}.experts/layer0000-x.experts", "other-abc.packed", "other.experts/y"):
        (packed_dir() / name).parent.mkdir(parents=True, exist_ok=True)
        (packed_dir() / name).write_bytes(b"x" * 4096)
    assert cli.main(["rm", "tiny"]) == 0
    assert "tiny is deleted here" in capsys.readouterr().out
    assert sorted(file.name for file in packed_dir().iterdir()) == ["other-abc.packed", "other.experts"]
