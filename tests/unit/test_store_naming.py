"""What a person calls a model, and what is meant."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from swarm import config
from swarm.errors import ModelNotFound
from swarm.store import naming
from swarm.store.fetching import SMOLLM2
from swarm.store.model_table import NamedModel
from swarm.store.naming import meaning_of, slug
from swarm.store.origins import Origin, record
from swarm.wire.ids import ModelId

CONTENT = b"GGUF"


def settings(tmp_path: Path, **values: Any) -> config.Settings:
    return replace(config.defaults(), models_dir=str(tmp_path / "models"), **values)


def test_a_path_is_itself_and_a_kept_file_is_found_by_name(tmp_path: Path) -> None:
    kept = tmp_path / "models" / "My-Model.gguf"
    kept.parent.mkdir()
    kept.write_bytes(CONTENT)
    for name in (str(kept), "My-Model.gguf", "My-Model"):
        assert naming.resolve(name, settings=settings(tmp_path)) == kept
    assert naming.resolve(None, settings=settings(tmp_path, model="My-Model")) == kept


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smolm2-135m", "there is no model 'smolm2-135m' (did you mean smollm2-135m?)"),
        (
            "zzz",
            "there is no model 'zzz'; give the path of a GGUF file, a name that `swarm pull` lists, or hf.co/USER/REPO",
        ),
        ("u/r", "u/r is not on this device; `swarm pull u/r` fetches it"),
        ("glm4:9b", "'glm4:9b' may be glm-4-9b"),
        ("./none.gguf", "there is no file ./none.gguf"),
        ("..", "is a directory; name one GGUF file"),
        ("", "is a directory"),
        ("../../etc/none.gguf", "there is no file"),
        ("x" * 5000, "is not a path that can be read (File name too long)"),
        ("~nobody-of-that-name/x.gguf", "is not a path that can be read"),
    ],
)
def test_a_name_that_means_nothing_gives_one_line_that_helps(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        naming.resolve(name, settings=settings(tmp_path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_with_the_default_model_on_disk_nothing_asks_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was asked")

    target = tmp_path / "models" / SMOLLM2.file_name
    target.parent.mkdir()
    with target.open("wb") as file:
        file.truncate(SMOLLM2.size_bytes)
    monkeypatch.setattr("swarm.store.fetching.is_right", lambda model, path: True)  # zeros in the place of 98 MB
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("subprocess.Popen.__init__", refuse)
    assert naming.resolve(None, settings=settings(tmp_path)) == target


@dataclass(frozen=True)
class Offer:
    """A model of the swarm."""

    name: str
    id: ModelId
    n_whole: int = 1
    origin: Origin | None = None
    is_ours: bool = False
    files: tuple[str, ...] = ()

    @property
    def base_name(self) -> str:
        return self.name.removesuffix(f"-{self.id[:6]}")


def offer(name: str, digit: str, n_whole: int = 1, *, is_ours: bool = False) -> Offer:
    return Offer(name, ModelId(digit * 64), n_whole, None, is_ours)


def keep(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "models"
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(CONTENT)
    return folder


def test_case_and_punctuation_do_not_matter_with_and_without_a_swarm(tmp_path: Path) -> None:
    folder = keep(tmp_path, "GLM-4-9B.Q4_K_M.gguf")
    for text in ("glm-4-9b.q4_k_m", "GLM 4 9B Q4 K M", "glm49b-q4km.gguf"):
        assert meaning_of(text, folder) == folder / "GLM-4-9B.Q4_K_M.gguf", text
    assert meaning_of("Glm 4 9b", tmp_path, [offer("glm-4-9b", "b")]) == "b" * 64


def test_the_beginning_of_a_name_is_enough_when_it_is_the_beginning_of_one_only(tmp_path: Path) -> None:
    folder = keep(tmp_path, "GLM-4-9B.gguf", "GLM-4-32B.gguf", "Qwen3.gguf")
    assert meaning_of("qwen", folder) == folder / "Qwen3.gguf"
    assert meaning_of("glm", folder) is None
    assert meaning_of("glm", folder, [offer("glm-5", "5")]) == "5" * 64


def test_of_two_names_the_one_that_was_written_exactly_is_meant(tmp_path: Path) -> None:
    folder = keep(tmp_path, "GLM-4.gguf", "glm-4.gguf", "GLM-4-9B.gguf")
    assert meaning_of("GLM-4", folder) == folder / "GLM-4.gguf"
    assert meaning_of("glm-45", tmp_path, [offer("glm-4.5", "a"), offer("glm-45", "b")]) == "b" * 64


def test_a_model_is_meant_by_what_its_file_is_called_elsewhere(tmp_path: Path) -> None:
    there = [Offer("some-general-name", ModelId("a" * 64), files=("kitchen", "kitchen")), offer("other", "b")]
    for text in ("kitchen", "Kitchen.gguf"):
        assert meaning_of(text, tmp_path, there) == "a" * 64, text
    assert meaning_of("kit", tmp_path, there) is None
    folder = keep(tmp_path, "Kitchen.gguf")
    assert meaning_of("kitchen", folder, there) == folder / "Kitchen.gguf"
    assert naming.offered_model("kitchen", there) == "a" * 64


def test_a_file_name_of_others_never_stands_for_a_name_that_means_something(tmp_path: Path) -> None:
    hijack = Offer("x", ModelId("a" * 64), files=("glm-4-9b", "other"))
    assert isinstance(meaning_of("glm-4-9b", tmp_path, [hijack]), NamedModel)
    assert meaning_of("other", tmp_path, [hijack, offer("other", "b")]) == "b" * 64
    with pytest.raises(ModelNotFound, match="several models of other devices"):
        meaning_of("kitchen", tmp_path, [Offer(n, ModelId(n * 64), files=("kitchen",)) for n in "ab"])
    with pytest.raises(ModelNotFound, match="another one that is called so is there"):
        meaning_of("kitchen", tmp_path, [Offer("x", ModelId("a" * 64), files=("kitchen",))], chosen="c" * 64)


def test_what_this_device_has_is_meant_before_what_others_call_so(tmp_path: Path) -> None:
    folder = keep(tmp_path, "GLM-4-9B.gguf")
    assert meaning_of("glm-4-9b", folder, [offer("glm-4-9b", "b")]) == folder / "GLM-4-9B.gguf"
    assert meaning_of("glm-4-9b", folder, [offer("glm-4-9b", "b", is_ours=True)]) == "b" * 64
    both = [offer("glm-4-9b-aaaaaa", "a", 9), offer("glm-4-9b-bbbbbb", "b", is_ours=True)]
    assert meaning_of("glm-4-9b-bbbbbb", tmp_path, both) == "b" * 64


def test_a_name_that_others_use_for_two_models_is_said_with_both(tmp_path: Path) -> None:
    both = [offer("glm-4-9b-aaaaaa", "a"), offer("glm-4-9b-bbbbbb", "b", 0)]
    with pytest.raises(ModelNotFound, match="say which one, glm-4-9b-aaaaaa, glm-4-9b-bbbbbb"):
        meaning_of("glm-4-9b", tmp_path, both)
    assert meaning_of("glm-4-9b-bbbbbb", tmp_path, both) == "b" * 64
    assert meaning_of("bbbbbb", tmp_path, both) == "b" * 64


def test_a_name_goes_on_meaning_what_it_meant(tmp_path: Path) -> None:
    both = [offer("glm-4-9b-aaaaaa", "a"), offer("glm-4-9b-bbbbbb", "b")]
    assert meaning_of("glm-4-9b", tmp_path, both, "b" * 64) == "b" * 64
    with pytest.raises(ModelNotFound, match=r"meant model bbbbbb so far.* say aaaaaa for that"):
        meaning_of("glm-4-9b", tmp_path, [offer("glm-4-9b", "a")], "b" * 64)


def test_the_default_model_is_its_hash_and_not_what_others_call_so(tmp_path: Path) -> None:
    hijack, real = offer("smollm2-135m", "a", 99), Offer("smollm2-135m-8k", SMOLLM2.manifest)
    assert meaning_of(SMOLLM2.name, tmp_path, [hijack]) is SMOLLM2
    assert meaning_of(SMOLLM2.name, tmp_path, [hijack, real]) == SMOLLM2.manifest


def test_a_file_of_that_very_name_is_meant_before_another_that_begins_so(tmp_path: Path) -> None:
    folder = keep(tmp_path, "GLM-4-9B.gguf")
    assert meaning_of("GLM-4-9B", folder, [offer("glm-4-9b-chat", "c")]) == folder / "GLM-4-9B.gguf"


def test_nothing_is_downloaded_that_is_here_or_in_the_swarm(tmp_path: Path) -> None:
    assert meaning_of("SmolLM2-135M", tmp_path) is SMOLLM2
    assert meaning_of(SMOLLM2.name, tmp_path, [Offer("smollm2", SMOLLM2.manifest)]) == SMOLLM2.manifest
    folder = keep(tmp_path, "smollm2-135m.gguf")
    assert meaning_of(SMOLLM2.name, folder) == folder / "smollm2-135m.gguf", "somebody's own file of that name"


def test_a_download_that_was_cut_off_is_fetched_again(tmp_path: Path) -> None:
    folder = keep(tmp_path, SMOLLM2.file_name)
    assert meaning_of(SMOLLM2.name, folder) is SMOLLM2


def test_a_path_is_no_name(tmp_path: Path) -> None:
    folder = keep(tmp_path, "GLM-4-9B.gguf")
    for text in ("./GLM-4-9B", "..", "", "../GLM-4-9B.gguf"):
        assert meaning_of(text, folder, [offer("glm-4-9b", "b")]) is None


def test_a_directory_that_happens_to_be_called_so_does_not_hide_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = keep(tmp_path, "glm-4.gguf")
    (tmp_path / "glm-4").mkdir()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert naming.resolve("glm-4", settings=settings(tmp_path)) == folder / "glm-4.gguf"
    with pytest.raises(ModelNotFound, match="empty is a directory"):
        naming.resolve("empty", settings=settings(tmp_path))


@pytest.mark.parametrize(
    ("name", "word"), [("SmolLM2 135M", "smollm2-135m"), ("GLM-4.5 Air", "glm-4.5-air"), ("  ", "model"), ("../x", "x")]
)
def test_a_models_name_becomes_one_word(name: str, word: str) -> None:
    assert slug(name) == word


def test_a_name_of_the_table_means_the_swarms_model_of_that_row_and_no_other_that_begins_so(tmp_path: Path) -> None:
    offered = [offer("glm-4-9b-0414", "a"), offer("glm-4-9b-chat", "b")]
    assert meaning_of("glm-4-9b", tmp_path, offered) == "a" * 64
    assert str(meaning_of("glm-4-9b", tmp_path, offered[1:])) == "glm-4-9b"
    assert meaning_of("llama-3.1-8b", tmp_path, [offer("meta-llama-3.1-8b-instruct", "c")]) == "c" * 64


def test_what_came_from_a_repository_is_found_by_it_here_and_in_the_swarm(tmp_path: Path) -> None:
    origin = Origin("u/Tiny-GGUF", "Tiny-Q4_0.gguf", len(CONTENT), "a" * 64, "1" * 40)
    for text in ("u/Tiny-GGUF", "hf.co/u/tiny-gguf:q4_0", "u/Tiny-GGUF:Tiny-Q4_0.gguf"):
        assert meaning_of(text, tmp_path, [Offer("tiny", ModelId("d" * 64), origin=origin)]) == "d" * 64, text
    assert str(meaning_of("u/Tiny-GGUF:Q8_0", tmp_path, [Offer("tiny", ModelId("d" * 64), origin=origin)])) == (
        "u/Tiny-GGUF:Q8_0"
    )
    folder = keep(tmp_path, "other-name.gguf")
    record(folder / "other-name.gguf", origin)
    assert meaning_of("u/Tiny-GGUF:Q4_0", folder) == folder / "other-name.gguf"


def test_a_kept_file_of_another_row_is_not_meant_because_its_name_begins_so(tmp_path: Path) -> None:
    folder = keep(tmp_path, "glm-4-9b-chat-Q4_K_M.gguf")
    assert str(meaning_of("glm-4-9b", folder)) == "glm-4-9b"
    keep(tmp_path, "GLM-4-9B-0414-Q4_K_M.gguf")
    assert meaning_of("glm-4-9b", folder) == folder / "GLM-4-9B-0414-Q4_K_M.gguf"
