"""The list of models: the swarm's, the files here, and the default one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm import config
from swarm.node.answerable import Answerable, AnswerableModels
from swarm.node.library import Entry
from swarm.wire.ids import ModelId
from tests.helpers.tiny import make_tiny

ID = ModelId("ab" * 32)


def models_of(
    folder: Path, *entries: Entry, model: str = "smollm2-135m", source: Path | None = None
) -> AnswerableModels:
    library: Any = SimpleNamespace(entries=lambda: list(entries), known={})
    chunks = SimpleNamespace(source=SimpleNamespace(path=source)) if source else None
    store: Any = SimpleNamespace(model=lambda model: chunks)
    settings = config.load({"models_dir": str(folder), "model": model, "context": 64})
    return AnswerableModels(library, store, settings)


def listed(folder: Path, *entries: Entry, **options: Any) -> list[Answerable]:
    return models_of(folder, *entries, **options).listed()


def test_a_fresh_node_lists_the_default_model_though_it_is_not_here_yet(tmp_path: Path) -> None:
    (model,) = listed(tmp_path)
    assert (model.name, model.is_default, model.size_bytes) == ("smollm2-135m", True, 98_362_432)


def test_files_are_listed_by_name_with_what_their_header_tells(tmp_path: Path) -> None:
    make_tiny(tmp_path / "My Model.Q8.gguf", "llama")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    default, model = listed(tmp_path)
    assert default.is_default and not model.is_default
    assert (model.name, model.context, model.family) == ("my-model.q8", 64, "llama")
    assert model.parameters > 1000 and model.quant == "F32" and model.template


def test_a_model_of_the_swarm_is_listed_once_by_its_file_s_name(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "mine.gguf", "llama")
    entry = Entry(ID, "what-the-file-calls-itself", 100, 1)
    assert models_of(tmp_path, entry, model="mine", source=path).names() == ["mine"]
    assert [m.name for m in listed(tmp_path / "none", entry, model="x")] == ["what-the-file-calls-itself"]


def test_what_another_device_calls_like_the_default_is_told_apart_and_not_the_default(tmp_path: Path) -> None:
    hijack = Entry(ID, "smollm2-135m", 100, 1, base_name="smollm2-135m")
    default, other = listed(tmp_path / "none", hijack, model="smollm2-135m")
    assert (default.name, default.is_default, default.id) == ("smollm2-135m", True, "")
    assert (other.name, other.is_default) == (f"smollm2-135m-{ID[:6]}", False)


def test_the_default_may_lie_elsewhere(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "else.gguf", "llama")
    (model,) = listed(tmp_path / "none", model=str(path))
    assert (model.name, model.is_default) == ("else", True)


@pytest.mark.parametrize(
    ("n", "text"), [(135_000_000, "135M"), (8_030_000_000, "8.0B"), (106_000_000_000, "106B"), (900, "900")]
)
def test_parameters_are_said_as_people_say_them(n: int, text: str) -> None:
    assert Answerable("m", 1, parameters=n).parameters_text == text
