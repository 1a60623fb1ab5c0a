"""`swarm verify`: right, damaged, and nothing to compare with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from swarm.cli import main as cli
from swarm.engine.expert_file import ExpertShape, write_experts
from swarm.engine.packed import PackedFile
from swarm.kernels.quants import quant_by_name
from swarm.local.model import packed_dir
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
    assert cli.main(["verify"]) == 0
    assert "x-Q8_0 is what it was when it was first read" in capsys.readouterr().out
    time = model.stat().st_mtime_ns
    damage(model)
    os.utime(model, ns=(time, time))
    assert cli.main(["verify"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("!!   x-Q8_0 is damaged since it was first read (") and "fetch or copy" in out
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


def test_packed_weights_that_are_damaged_are_deleted(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed_dir().mkdir(parents=True)
    path = packed_dir() / "some-all.packed"
    new = PackedFile.open(packed_dir(), "some", 5000, "all", always=True)
    assert new is not None
    new.take(5000)[:] = 7
    new._keep()
    experts = packed_dir() / "mix.experts" / "layer0001-x.experts"
    experts.parent.mkdir()
    q4_0 = quant_by_name("Q4_0")
    shape = ExpertShape(2, ((q4_0.id, 96, 64), (q4_0.id, 96, 64), (q4_0.id, 64, 96)))
    rows = [np.zeros((rows, q4_0.row_bytes(cols)), np.uint8) for _, rows, cols in shape.matrices]
    write_experts(experts, shape, [rows, rows])
    (packed_dir() / "foreign.experts").mkdir()
    assert cli.main(["verify"]) == 0
    assert "2 files of packed weights are right" in capsys.readouterr().out
    for file in (path, experts):
        damage(file)
        assert cli.main(["verify"]) == 1
        assert f"{file} was damaged: it is packed anew" in capsys.readouterr().out
        assert not file.exists()
    assert cli.main(["verify"]) == 0
