"""Where a model file here came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.store.hub_names import HubName, WebAddress
from swarm.store.model_table import named_model
from swarm.store.origins import Origin, forget, kept_from, origin_of, record

ORIGIN = Origin(
    "bartowski/THUDM_GLM-4-9B-0414-GGUF", "THUDM_GLM-4-9B-0414-Q4_K_M.gguf", 4, "a" * 64, "1" * 40, "glm-4-9b"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "THUDM_GLM-4-9B-0414-Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    record(file, ORIGIN)
    return file


def test_what_is_recorded_is_read_again_and_gone_when_forgotten(path: Path) -> None:
    assert origin_of(path) == ORIGIN
    forget(path)
    assert origin_of(path) is None
    forget(path)


def test_a_record_of_another_file_does_not_count(path: Path) -> None:
    path.write_bytes(b"GGUF and more")
    assert origin_of(path) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"place": 1}', "x" * 100_000])
def test_a_record_that_makes_no_sense_is_none(path: Path, text: str) -> None:
    path.with_name(f".{path.name}.origin").write_text(text)
    assert origin_of(path) is None


def test_a_file_is_known_by_every_word_for_where_it_came_from(path: Path) -> None:
    owner, _, repo = ORIGIN.place.partition("/")
    for quant in ("", "q4_k_m", "Q4_K_M"):
        assert kept_from(HubName(owner, repo, quant), [path]) == path
        named = named_model(f"glm-4-9b:{quant}" if quant else "glm-4-9b")
        assert named is not None and kept_from(named, [path]) == path
    assert kept_from(HubName(owner, repo, file=ORIGIN.path), [path]) == path
    assert kept_from(HubName(owner, repo, "Q8_0"), [path]) is None
    assert kept_from(HubName("unsloth", repo), [path]) is None
    assert kept_from(WebAddress("https://example.org/x.gguf"), [path]) is None
