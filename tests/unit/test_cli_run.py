"""`swarm run` with a tiny model of random weights: what it says is noise, how it says it is not."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.answers import ExpertUse, Stats
from swarm.cli import main as cli
from swarm.cli import run
from swarm.cli.answers import Answered, figures
from swarm.errors import ConfigError
from tests.helpers.mixtures import write_mixture
from tests.helpers.tiny import make_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama")


@pytest.mark.parametrize(
    ("words", "piped", "prompt"),
    [
        (["Why", "is", "the", "sky", "blue?"], "", "Why is the sky blue?"),
        (["-"], "from a pipe\n", "from a pipe"),
        ([], "from a pipe\n", "from a pipe"),
        (["Summarise", "this:", "-"], "one\ntwo\n", "Summarise this:\n\none\ntwo"),
        (["Before", "-", "after"], "x", "Before\n\nx\n\nafter"),
    ],
)
def test_the_prompt_comes_from_words_and_standard_input(
    monkeypatch: pytest.MonkeyPatch, words: list[str], piped: str, prompt: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(piped))
    assert run.read_prompt(words) == prompt


@pytest.mark.parametrize("words", [[], ["-"], [""], [" "]])
def test_an_empty_prompt_is_an_error(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    with pytest.raises(ConfigError, match="the prompt is empty"):
        run.read_prompt(words)


def test_without_a_prompt_on_a_terminal_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(ConfigError, match="there is no prompt; write it in quotes"):
        run.read_prompt([])


def test_an_endless_pipe_is_refused_and_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            assert size is not None and 0 < size < 100_000_000
            return "x" * size

    monkeypatch.setattr("sys.stdin", Endless())
    with pytest.raises(ConfigError, match="standard input is longer than 4 MiB"):
        run.read_prompt(["-"])


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = cli.main(["run", *arguments])
    out, err = capsys.readouterr()
    assert (code, err) == (0, ""), err
    return out


def test_the_same_seed_gives_the_same_answer_and_another_another(
    tiny: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = (str(tiny), "hello", "--max-tokens", "12", "--temp", "2", "--top-k", "0", "--top-p", "1", "--min-p", "0")
    first = answer(capsys, *ask, "--seed", "1")
    assert answer(capsys, *ask, "--seed", "1") == first
    assert answer(capsys, *ask, "--seed", "2") != first


def test_json_has_the_text_and_the_figures(tiny: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = (str(tiny), "hello", "--max-tokens", "5", "--temp", "0")
    reply = json.loads(answer(capsys, *ask, "--json"))
    assert reply["finish_reason"] == "length"
    assert (reply["generated_tokens"], reply["guessed_tokens"]) == (5, 0)  # too few to know what a row takes
    assert reply["prompt_tokens"] > 5
    assert reply["first_token_s"] > 0 and reply["tokens_per_s"] > 0
    assert reply["model"] == str(tiny)


def test_a_mixture_that_is_larger_than_its_memory_says_the_same_from_disk(
    tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_mixture(tmp_path, "qwen3moe", "Q4_0")
    ask = (str(path), "hello", "--max-tokens", "12", "--temp", "0", "--json", "--context", "256")
    whole = json.loads(answer(capsys, *ask))
    assert "experts" not in whole
    monkeypatch.setattr("swarm.local.memory.SPARE_BYTES", 0)  # larger than a model of a test
    monkeypatch.setattr("swarm.local.memory.buffer_bytes", lambda *_: 0)
    monkeypatch.setattr("swarm.local.model._free_bytes", lambda settings: path.stat().st_size // 2)
    told = json.loads(answer(capsys, *ask))
    assert told["text"] == whole["text"] and told["generated_tokens"] > 1
    assert told["experts"]["hits"] and told["experts"]["misses"] and told["experts"]["read_bytes"]
    assert len(list(own_home.rglob("layer*.experts"))) == 3


def test_the_line_of_figures_says_how_experts_were_found() -> None:
    use = ExpertUse(hits=81, misses=19, read_bytes=700 * 2**20)
    stats = Stats(generated_tokens=42, first_token_s=3.2, decode_s=41 / 5.1, experts=use)
    line = figures(Answered("", "stop", stats))
    assert line == "42 tokens, 5.1 tok/s, first after 3.20 s; 81 % of experts in memory, 700 MiB read"


def test_the_figures_say_how_many_tokens_were_guessed() -> None:
    stats = Stats(generated_tokens=42, guessed_tokens=12, guesses=20, first_token_s=3.2, decode_s=41 / 5.1)
    assert figures(Answered("", "stop", stats)) == "42 tokens, 12 guessed, 5.1 tok/s, first after 3.20 s"


def test_a_draft_changes_no_word_and_must_fit_the_model(
    tiny: Path, tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = (str(tiny), "hello", "--max-tokens", "40", "--seed", "3")
    small = str(make_tiny(tmp_path / "small.gguf", "llama", seed=2))
    assert answer(capsys, *ask) == answer(capsys, *ask, "--draft", small) == answer(capsys, *ask, "--draft", str(tiny))
    other = tmp_path / "other.gguf"
    other.write_bytes(Path(small).read_bytes().replace(b"<|user|>", b"<|uber|>"))
    refused = ((("--draft", str(other)), "another vocabulary"), (("--draft", small, "--no-guess"), "leave one"))
    for words, says in refused:
        assert cli.main(["run", *ask, *words]) == 2
        assert says in capsys.readouterr().err


def test_raw_leaves_the_chat_template_out(tiny: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = (str(tiny), "hello", "--max-tokens", "1", "--json")
    raw, chat = (json.loads(answer(capsys, *ask, *more))["prompt_tokens"] for more in (["--raw"], []))
    assert raw < chat


def test_a_system_text_reaches_the_model(tiny: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = (str(tiny), "hello", "--max-tokens", "1", "--json")
    without = json.loads(answer(capsys, *ask))["prompt_tokens"]
    assert json.loads(answer(capsys, *ask, "--system", "Be very brief."))["prompt_tokens"] > without


def test_raw_with_a_system_text_is_refused(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "m", "p", "--raw", "--system", "x"]) == 2
    assert "--system needs the chat template" in capsys.readouterr().err


def test_a_prompt_longer_than_the_context_is_one_line(
    tiny: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(tiny), "word " * 500, "--context", "64"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("swarm: the conversation has ") and "context holds 64" in err
    assert err.count("\n") == 1


def test_a_file_that_is_no_model_is_one_line(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_home / "page.gguf").write_text("<html>404</html>")
    assert cli.main(["run", str(own_home / "page.gguf"), "hi"]) == 1
    assert "it is a web page, not a model" in capsys.readouterr().err


def test_ctrl_c_ends_run_with_130_and_no_traceback(tiny: Path, own_home: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from swarm.cli import answers, main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a test run in the background ignores it
        "answers._Printer.write = lambda *a: os.kill(os.getpid(), signal.SIGINT)\n"
        f"sys.exit(main.main(['run', {str(tiny)!r}, 'hi', '--max-tokens', '50', '--temp', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (130, "")
