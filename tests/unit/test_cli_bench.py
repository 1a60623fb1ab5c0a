"""`swarm bench`: what it measures and prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.cli import bench
from swarm.cli import main as cli
from tests.helpers.tiny import make_tiny


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "air.gguf", "air", "Q8_0")


def test_bench_measures_and_reports(mixture: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["bench", str(mixture), "--prompt", "16", "--gen", "4", "--repeat", "1", "--threads", "1", "--json"]
    assert cli.main(asked) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["prompt_tokens"], data["generated_tokens"], data["threads"]) == (16, 4, 1)
    assert data["prefill_tokens_per_s"] > 0 and data["decode_tokens_per_s"] > 0
    assert data["read_bandwidth"] > 1e8
    share = data["bytes_per_token"] * data["decode_tokens_per_s"] / data["read_bandwidth"]
    assert data["bandwidth_share"] == pytest.approx(share)
    assert "decode" in "\n".join(bench.lines(bench.BenchResult(**data)))


def test_bench_refuses_more_tokens_than_the_context(
    mixture: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", str(mixture), "--prompt", "512", "--gen", "4"]) == 2
    assert "512 + 4 tokens are more than the model's context of 512" in capsys.readouterr().err
