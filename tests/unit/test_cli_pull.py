"""`swarm pull`, and the same words where a model is taken, against a hub of our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.cli import machine
from swarm.cli import main as cli
from swarm.cli.machine import SystemMemory
from swarm.store import model_table
from swarm.store.model_table import TableModel
from swarm.store.origins import origin_of
from tests.helpers.hub import TOKEN, Repo, StandInHub
from tests.helpers.repositories import air_file, tiny_files
from tests.helpers.tiny import make_tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return tiny_files(tmp_path_factory.mktemp("repo"), "Q8_0", "Q4_0")


@pytest.fixture
def hub(files: dict[str, bytes], own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with StandInHub.of({"u/Tiny-GGUF": files, "web/files": files}) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("SWARM_MODELS_DIR", str(own_home / "models"))
        yield server


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> TableModel:
    """A row of the table that the stand-in hub has."""
    made = TableModel("tiny-llama", "u/Tiny", "llama", ("u/gone", "u/Tiny-GGUF"), 10**6, 512, "MIT", "made here")
    monkeypatch.setattr(model_table, "TABLE", (*model_table.TABLE, made))
    return made


def models(own_home: Path) -> list[str]:
    return sorted(path.name for path in (own_home / "models").glob("*.gguf"))


def test_a_repository_is_pulled_and_says_what_it_chose_and_what_else_there_is(
    hub: StandInHub, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["pull", "hf.co/u/Tiny-GGUF"]) == 0
    out, err = capsys.readouterr()
    path = own_home / "models" / "Tiny-Q8_0.gguf"
    assert f"is here and verified: {path}" in out
    assert "Q8_0" in err and "u/Tiny-GGUF at 111111111111" in err and "the best that fits" in err
    assert "there is also Q4_0" in err and "write u/Tiny-GGUF:Q4_0" in err
    assert origin_of(path) is not None


def test_the_same_words_mean_the_file_once_it_is_here(
    hub: StandInHub, row: TableModel, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["pull", "tiny-llama:q4_0"]) == 0
    n_requests = len(hub.requests)
    for words in ("tiny-llama", "tiny-llama:Q4_0", "u/Tiny-GGUF", "hf.co/u/Tiny-GGUF:Q4_0", "Tiny-Q4_0"):
        assert cli.main(["show", words]) == 0, words
        assert str(own_home / "models" / "Tiny-Q4_0.gguf") in capsys.readouterr().out
    assert len(hub.requests) == n_requests, "what is here is not asked for"


def test_run_fetches_what_is_not_here_and_answers(
    hub: StandInHub, row: TableModel, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "tiny-llama", "--raw", "a", "--max-tokens", "3", "--alone"]) == 0
    assert models(own_home) == ["Tiny-Q8_0.gguf"]


def test_show_and_plan_read_the_header_alone(
    hub: StandInHub, own_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["show", "u/Tiny-GGUF:Q4_0"]) == 0
    out = capsys.readouterr().out
    assert "at           u/Tiny-GGUF" in out and "to fetch" in out and "llama" in out
    assert cli.main(["plan", "u/Tiny-GGUF:Q4_0", "--add", "pi5:8GiB", "--context", "256"]) == 0
    out = capsys.readouterr().out
    assert "to fetch: " in out and "from u/Tiny-GGUF" in out and "tok/s" in out
    assert not models(own_home)


def test_an_address_is_pulled_too(hub: StandInHub, own_home: Path) -> None:
    assert cli.main(["pull", f"{hub.endpoint}/web/Tiny-Q4_0.gguf"]) == 1, "an address of the mirror is the hub's"
    address = f"http://localhost:{hub.port}/web/Tiny-Q4_0.gguf"
    assert cli.main(["pull", address]) == 0
    assert models(own_home) == ["Tiny-Q4_0.gguf"]


def test_a_gated_model_comes_with_the_token_only(
    hub: StandInHub, own_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["u/Tiny-GGUF"].gated = True
    assert cli.main(["pull", "u/Tiny-GGUF"]) == 1
    assert "then set HF_TOKEN to a token of yours" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert cli.main(["pull", "u/Tiny-GGUF"]) == 0
    assert all(not request.token for request in hub.requests if request.host == "localhost")
    assert any(request.token for request in hub.requests if request.host == "127.0.0.1")


def test_offline_says_so_and_asks_nobody(
    hub: StandInHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.main(["pull", "u/Tiny-GGUF"]) == 1
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    assert hub.requests == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["u/none"], 1, "the hub has no repository u/none"),
        (["u/Tiny-GGUF:Q5_K_M"], 1, "u/Tiny-GGUF has no Q5_K_M; there is Q4_0"),
        (["glm4:9b"], 1, "may be glm-4-9b ("),
        (["qwen3-9b"], 1, "there is no model 'qwen3-9b' (did you mean qwen3-8b?)"),
        (["glm-4-9b", "--revision", "abc"], 2, "--revision needs a repository"),
        (["u/Tiny-GGUF", "--revision", "abc"], 1, "u/Tiny-GGUF has no revision abc"),
        (["/etc/hostname"], 1, "not hostname: /etc/hostname: magic"),
    ],
)
def test_what_cannot_be_pulled_is_one_line(
    hub: StandInHub, words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["pull", *words]) == code
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_a_file_and_a_stick_are_pulled_as_import_does(
    own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stick" / "more").mkdir(parents=True)
    make_tiny(tmp_path / "stick" / "kitchen.gguf", "llama-tied")
    make_tiny(tmp_path / "stick" / "more" / "garden.gguf", "qwen3")
    assert cli.main(["pull", str(tmp_path / "stick" / "kitchen.gguf")]) == 0
    assert "kitchen is here: " in capsys.readouterr().out
    assert cli.main(["pull", str(tmp_path / "stick")]) == 0
    assert "garden is here: " in capsys.readouterr().out
    assert cli.main(["pull", f"{tmp_path}/"]) == 0 and cli.main(["pull", f"{tmp_path}/nothing"]) == 1
    assert "there is no " in capsys.readouterr().err


def test_what_does_not_fit_is_told_before_a_byte_and_comes_when_it_is_named(
    hub: StandInHub, own_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: SystemMemory(10**8, 10**8, False))
    assert cli.main(["pull", "u/Tiny-GGUF"]) == 1
    assert "nothing fits this device, which has 95.4 MiB of memory for it" in capsys.readouterr().err
    assert cli.main(["pull", "u/Tiny-GGUF:Q4_0"]) == 0
    assert "it runs where more devices take part" in capsys.readouterr().err


def test_without_a_name_the_table_is_shown(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pull"]) == 0
    out = capsys.readouterr().out
    for name in model_table.NAMES:
        assert name in out


def test_a_private_repository_of_ours_is_found_with_the_token(
    hub: StandInHub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["me/mine"] = Repo(dict(files), private=True)
    assert cli.main(["pull", "me/mine"]) == 1
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert cli.main(["pull", "me/mine"]) == 0


def test_a_model_of_real_size_is_planned_from_some_mb_with_no_node_and_no_file(
    hub: StandInHub, own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    air = air_file(tmp_path / "air.header")
    hub.repos["u/Air-GGUF"] = Repo({"GLM-4.5-Air-Q4_K_M.gguf": air})  # type: ignore[dict-item]
    assert len(air) > 60 * 2**30
    assert cli.main(["plan", "hf.co/u/Air-GGUF:Q4_K_M", "--add", "pi5:16GiBx5"]) == 0
    out = capsys.readouterr().out
    assert "glm-4.5-air: 46 layers" in out and "tok/s" in out and "to fetch: 71.8 GiB from u/Air-GGUF" in out
    assert hub.sent_bytes() < 40 * 2**20
    assert cli.main(["show", "hf.co/u/Air-GGUF"]) == 0
    assert "128 experts, 8 a token" in capsys.readouterr().out
    assert not models(own_home)


@pytest.mark.parametrize("mix", ["IQ2_XXS", "IQ3_XXS"])
def test_small_uploads_of_a_large_model_run_on_eight_devices_of_8_gib(
    mix: str, hub: StandInHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    air = air_file(tmp_path / "air.header", mix)
    hub.repos["u/Air-GGUF"] = Repo({f"GLM-4.5-Air-{mix}.gguf": air})  # type: ignore[dict-item]
    assert cli.main(["plan", f"hf.co/u/Air-GGUF:{mix}", "--add", "pi5:8GiBx8"]) == 0
    out = capsys.readouterr().out
    assert "tok/s" in out and "first token after" in out, out
