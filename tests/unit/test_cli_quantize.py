"""`swarm quantize` from the shell: the file, its name, and one line for what cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli.main import main
from swarm.cli.quantize import stem_of
from swarm.store.gguf import open_gguf
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tiny = wide(TINY["llama"])
    return write_tiny(tmp_path / "Tiny-F32.gguf", tiny, make_weights(tiny))


def test_a_file_of_the_type_lies_beside_its_source(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(source), "Q4_K_M"]) == 0
    path = source.with_name("Tiny-Q4_K_M.gguf")
    assert capsys.readouterr().out.startswith(f"{path}: ")
    with open_gguf(path) as model:
        assert model.tensors["blk.0.attn_q.weight"].quant.name == "Q4_K"


def test_a_second_run_says_that_the_file_is_there(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = ["-o", str(source.with_name("x.gguf"))]
    assert main(["quantize", str(source), "Q8_0", *target]) == 0
    assert main(["quantize", str(source), "Q8_0", *target]) != 0
    assert "x.gguf is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Qwen3-8B-BF16.gguf", "Qwen3-8B"),
        ("model.Q4_K_M.gguf", "model"),
        ("gpt-oss-20b-MXFP4.gguf", "gpt-oss-20b"),
        ("Air-F16-00001-of-00002.gguf", "Air"),
        ("F16.gguf", "F16"),
        ("plain.gguf", "plain"),
    ],
)
def test_the_type_is_no_part_of_a_name(name: str, stem: str) -> None:
    assert stem_of(Path(name)) == stem
