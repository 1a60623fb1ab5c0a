"""Models by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm.models.registry import spec_from_gguf
from swarm.models.slices import cut_model
from swarm.node.library import KnownModel, Library
from swarm.node.model_cost import model_cost
from swarm.parts import parts_of
from swarm.store import manifest as manifest_module
from swarm.store.chunks import ChunkStore
from swarm.wire.ids import ModelId
from swarm.wire.records import ModelHolding
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny


def holding(name: str, digit: str, have: int = 4) -> ModelHolding:
    return ModelHolding(ModelId(digit * 64), name, 4, have, 1000)


def library(*holdings: ModelHolding) -> Library:
    around: Any = SimpleNamespace(
        store=SimpleNamespace(model=lambda model: None, holdings=lambda: list(holdings), origin_of=lambda model: None),
        run_io=None,
    )
    return Library(around, None)  # type: ignore[arg-type]


def test_a_model_is_found_by_its_name_or_a_beginning_of_it() -> None:
    books = library(holding("SmolLM2 135M Instruct", "a"), holding("GLM 4 9B", "b"), holding("GLM 4 32B", "c"))
    for text in ("smollm2-135m-instruct", "SmolLM2 135M", "smollm2", "a" * 64, "aaaaaaaa"):
        assert books.find(text) == "a" * 64, text
    assert books.find("glm-4-9b") == "b" * 64
    assert books.find("glm") is None, "several"
    assert books.find("llama") is None and books.find("") is None and books.find("aaa") is None
    assert "did you mean glm-4-9b?" in str(books.not_found("glm-4-9"))
    assert "there is glm-4-32b, glm-4-9b, smollm2-135m-instruct" in str(books.not_found("xxxxxx"))
    assert "there is a file" in str(books.not_found("xxxxxx", ["a file"]))
    assert "there is none" in str(books.not_found("xxxxxx", []))
    assert str(books.not_found("xxxxxx", [f"m{i}" for i in range(20)])).endswith(
        "there is m0, m1, m2, m3, m4, m5, m6, m7, ..."
    )


def test_a_whole_copy_is_meant_before_a_broken_one_of_the_same_name() -> None:
    books = library(holding("M", "a", 2), holding("M", "b", 4), holding("M", "c", 0))
    assert books.find("m") == "b" * 64
    assert [entry.n_whole for entry in books.entries()] == [0, 1]


def test_a_slice_needs_its_own_chunks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "CHUNK_BYTES", 8192)  # several to each of these small tensors
    tiny = wide(TINY["llama"])
    store = ChunkStore(tmp_path / "store")
    manifest = store.import_gguf(write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0"))
    source = store.open(manifest.id)
    spec = spec_from_gguf(source.metadata, source.tensors)
    known_model = KnownModel(source, spec, model_cost("tiny", spec, source.tensors))
    whole = set(known_model.chunks_of(parts_of(0, spec.n_layers, spec.n_layers)))
    slices = [
        set(known_model.chunks_of(parts_of(0, spec.n_layers, spec.n_layers, bounds)))
        for bounds in cut_model(spec, source.tensors, (1.0, 2.0))
    ]
    assert slices[0] | slices[1] == whole
    assert all(len(chunks) < 0.8 * len(whole) for chunks in slices)
    assert known_model.spec_of(()) is spec
    store.close()
