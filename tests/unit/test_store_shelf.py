"""The directory of models as a shelf."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.limits import PIECE_BYTES
from swarm.store import shelf
from swarm.store.fetching import file_sha256
from swarm.store.kept_pieces import KeptPieces
from swarm.store.origins import Origin, record


def put(folder: Path, name: str, content: bytes = b"GGUF", origin_name: str = "") -> Path:
    path = folder / name
    path.write_bytes(content)
    if origin_name:
        record(path, Origin("u/r", name, len(content), file_sha256(path), "1" * 40, origin_name))
    return path


def quiet(done: int, total: int) -> None:
    pass


def test_whole_models_are_told_by_the_names_that_people_know(tmp_path: Path) -> None:
    put(tmp_path, "THUDM_GLM-4-9B-0414-Q4_K_M.gguf", origin_name="glm-4-9b")
    put(tmp_path, "mine.gguf")
    for number in (1, 2):
        put(tmp_path, f"big-Q4_0-{number:05d}-of-00002.gguf")
    put(tmp_path, "broken-00001-of-00002.gguf")
    found = shelf.kept(tmp_path)
    assert [model.name for model in found] == ["glm-4-9b:Q4_K_M", "big-Q4_0", "mine"]
    assert [len(model.files) for model in found] == [1, 2, 1]
    assert shelf.kept(tmp_path / "nowhere") == []


def test_a_model_is_found_by_its_name_with_and_without_its_quant(tmp_path: Path) -> None:
    q4 = put(tmp_path, "x-Q4_K_M.gguf", origin_name="glm-4-9b")
    models = shelf.kept(tmp_path)
    for text in ("glm-4-9b", "GLM-4-9B:q4_k_m", "x-Q4_K_M.gguf", "x-q4_k_m"):
        found = shelf.find(text, models)
        assert found is not None and found.path == q4, text
    put(tmp_path, "x-Q8_0.gguf", origin_name="glm-4-9b")
    assert shelf.find("glm-4-9b", shelf.kept(tmp_path)) is None, "two quants: say which"
    assert shelf.find("glm-4-9b:q8_0", shelf.kept(tmp_path)) is not None


def test_what_is_on_its_way_is_told_with_how_much_has_come(tmp_path: Path) -> None:
    names = [tmp_path / f"y-Q4_0-{number:05d}-of-00002.gguf" for number in (1, 2)]
    pieces = [KeptPieces(path, 3 * PIECE_BYTES, "a") for path in names]
    pieces[0].put(1, bytes(PIECE_BYTES))
    for each in pieces:
        each.close()
    (found,) = shelf.coming(tmp_path)
    assert (found.name, found.kept_bytes, found.n_bytes) == ("y-Q4_0", PIECE_BYTES, 6 * PIECE_BYTES)
    assert shelf.take_off(found.files) >= PIECE_BYTES
    assert list(tmp_path.iterdir()) == [] and shelf.coming(tmp_path) == []


def test_what_is_taken_off_leaves_nothing_behind(tmp_path: Path) -> None:
    put(tmp_path, "x-Q4_K_M.gguf", b"GGUF" * 10_000, "glm-4-9b")
    (tmp_path / ".x-Q4_K_M.gguf.lock").touch()
    put(tmp_path, "other.gguf")
    (model,) = [model for model in shelf.kept(tmp_path) if model.name != "other"]
    assert shelf.take_off(model.files) >= 40_000
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    path = put(tmp_path, "x-Q4_K_M.gguf", b"GGUF" * 1000, "glm-4-9b")
    (model,) = shelf.kept(tmp_path)
    assert shelf.damaged(model, quiet) == []
    data = bytearray(path.read_bytes())
    data[1234] ^= 1
    path.write_bytes(data)
    assert shelf.damaged(model, quiet) == [path]


def test_without_a_record_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    put(tmp_path, "x.gguf")
    assert shelf.damaged(shelf.kept(tmp_path)[0], quiet) is None


@pytest.mark.parametrize("text", ["", "nothing"])
def test_what_is_not_there_is_said_with_what_is(tmp_path: Path, text: str) -> None:
    assert "there is none" in str(shelf.not_on_it(text, tmp_path))
    put(tmp_path, "x.gguf")
    assert "there is x" in str(shelf.not_on_it(text, tmp_path))
