"""`swarm show`: what it prints, as text and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swarm.cli import machine, show
from swarm.cli import main as cli
from swarm.cli.loading import SeenModel
from swarm.cluster.expert_hits import expected_hit_rate
from swarm.engine.expert_cache import HITS_FILE
from swarm.engine.expert_folder import ExpertFolder
from swarm.engine.weights import load_weights
from swarm.local.model import packed_dir, packed_key
from swarm.models import spec_from_gguf
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from swarm.units import size_text
from tests.helpers.tiny import TINY, make_tiny, make_weights, write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "air.gguf", "air", "Q8_0")


def summarise(path: Path, kv: str) -> show.Summary:
    with open_gguf(path) as file:
        return show.summarise(SeenModel(file), kv)


def test_the_default_model_is_described(real_model: Path) -> None:
    summary = summarise(real_model, "f16")
    assert (summary.family, summary.layers, summary.hidden, summary.heads) == ("llama", 30, 576, 9)
    assert (summary.kv_heads, summary.head_dim, summary.ffn, summary.context) == (3, 64, 1536, 8192)
    assert summary.parameters == 134_515_008
    assert summary.file_bytes == real_model.stat().st_size
    assert summary.kv_bytes_per_token == {"f16": 30 * 2 * 3 * 64 * 2, "q8_0": 30 * 2 * 3 * 2 * 34}
    assert sum(summary.quants.values()) == summary.weights_bytes
    assert next(iter(summary.quants)) == "Q4_1"


def test_a_mixture_of_experts_shows_them(mixture: Path) -> None:
    text = "\n".join(show.lines(summarise(mixture, "f16"), "f16"))
    assert "8 experts, 3 a token" in text
    assert "Q8_0 88.1 %, F32 11.9 %" in text


def test_how_often_experts_are_found_is_said_as_runs_here_used_them(
    mixture: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = summarise(mixture, "f16").least_bytes
    monkeypatch.setattr(machine, "memory", lambda: machine.SystemMemory(2 * least, least, False))
    default = summarise(mixture, "f16")
    assert default.own_hits == {} and default.available_hits == expected_hit_rate(default.available_share)
    assert "as runs here used them" not in "\n".join(show.lines(default, "f16"))
    with open_gguf(mixture) as file:
        notes = ExpertFolder(packed_dir() / packed_key(file)).path
    notes.mkdir(parents=True)
    (notes / HITS_FILE).write_bytes(np.array([800, 100, 50, 50, 0, 0, 0, 0], "<f8").tobytes())
    own = summarise(mixture, "f16")
    assert (own.own_hits[10], own.own_hits[50]) == (pytest.approx(0.64), 1.0)
    assert own.available_share == default.available_share and own.available_hits != default.available_hits
    lines = show.lines(own, "f16")
    found = "19, 38, 64, 86, 92, 100, 100 % would be found, as runs here used them"
    assert f"    with 3, 6, 10, 20, 30, 50, 70 % in memory, {found}" in lines
    assert f"and {100 * own.available_hits:.0f} % of their uses found there" in "\n".join(lines)


def test_a_block_that_predicts_further_tokens_is_said_to_be_there(mixture: Path, tmp_path: Path) -> None:
    assert any(
        "predict further tokens (MTP): loaded with --draft mtp only" in line
        for line in show.lines(summarise(mixture, "f16"), "f16")
    )
    without = make_tiny(tmp_path / "intellect3.gguf", "intellect3")
    assert not any("MTP" in line for line in show.lines(summarise(without, "f16"), "f16"))


def test_what_is_larger_in_memory_than_in_the_file_is_said_and_counted(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", "llama-wide", "IQ2_S")
    summary = summarise(path, "f16")
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        loaded = load_weights(file, spec, all_parts(spec.n_layers)).n_bytes
    matrices = sum(size for name, size in summary.quants.items() if name != "F32")
    packed = summary.weights_bytes - summary.quants["F32"]
    assert 0 <= loaded - packed < 64 * len(file.tensors)  # each matrix begins on a line of the cache
    assert packed > 1.2 * matrices
    text = "\n".join(show.lines(summary, "f16"))
    assert f"in memory    {size_text(summary.weights_bytes)}: types below 4 bits" in text
    other = summarise(make_tiny(tmp_path / "q.gguf", "llama", "Q8_0"), "f16")
    assert "in memory" not in "\n".join(show.lines(other, "f16"))


def test_memory_grows_with_the_context_and_shrinks_with_q8_0(real_model: Path) -> None:
    f16, q8_0 = (summarise(real_model, kv).ram_bytes for kv in ("f16", "q8_0"))
    assert f16[8192] - f16[2048] == 6144 * 23040
    assert q8_0[8192] < f16[8192]


def test_heads_that_are_no_whole_blocks_are_refused_in_one_line(
    tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", "llama-tied", "Q8_0")
    assert set(summarise(path, "f16").kv_bytes_per_token) == {"f16"}
    for command in (["show", str(path)], ["run", str(path), "hi", "--alone"]):
        assert cli.main([*command, "--kv", "q8_0"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "heads of 16; keep them as f16" in error


def test_what_does_not_fit_says_by_how_much(real_model: Path) -> None:
    summary = replace(summarise(real_model, "f16"), available_bytes=300_000_000)
    text = "\n".join(show.lines(summary, "f16"))
    assert "context   2,048:  280 MiB  fits" in text
    assert "context   8,192:  415 MiB  129 MiB too much" in text


def test_json_is_the_same_summary(mixture: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(mixture), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["experts"] == 8 and data["quants"]["Q8_0"] > 0 and data["path"] == str(mixture)


def test_a_name_with_control_characters_does_not_reach_the_terminal(mixture: Path) -> None:
    summary = replace(summarise(mixture, "f16"), name="\x1b[2Jevil")
    assert show.lines(summary, "f16")[0].startswith("[2Jevil: glm4moe")


PEAK = """
import re, sys, swarm
model = swarm.load(sys.argv[1], context=2048)
answer = model.chat([{"role": "user", "content": "Tell me a story. " * 200}], max_tokens=8, temperature=0)
answer.text
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())  # getrusage would count the parent's
print(int(peak[1]) * 1024, answer.stats.prompt_tokens)
"""


def test_peak_memory_is_what_show_says_at_most(real_model: Path) -> None:
    command = [sys.executable, "-c", PEAK, str(real_model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120)
    peak_bytes, prompt_tokens = map(int, done.stdout.split())
    summary = summarise(real_model, "f16")
    assert prompt_tokens > 900
    kv_bytes = (prompt_tokens + 8) * summary.kv_bytes_per_token["f16"]
    assert peak_bytes <= summary.file_bytes + kv_bytes + 150_000_000


def test_how_words_are_cut_is_said_where_the_file_does_not_say(tmp_path: Path) -> None:
    tiny = TINY["llama-tied"]
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), more={"tokenizer.ggml.pre": ""})
    summary = summarise(path, "f16")
    assert summary.words == "cut as glm4, by its tokens: it has no tokenizer.ggml.pre"
    assert f"  words        {summary.words}" in show.lines(summary, "f16")
    assert summarise(make_tiny(tmp_path / "said.gguf", "llama-tied"), "f16").words == ""
