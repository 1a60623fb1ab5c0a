"""From a GGUF file to a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import ModelNotFound
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from swarm.store.importing import manifest_of
from tests.helpers.chunked import write_model


def test_import_tells_how_far_it_is(tmp_path: Path, chunked_model: Path) -> None:
    told: list[tuple[int, int]] = []
    store = ChunkStore(tmp_path / "s")
    manifest = store.import_gguf(chunked_model, progress=lambda done, total: told.append((done, total)))
    store.close()
    assert told[-1] == (manifest.total_bytes, manifest.total_bytes) and len(told) == len(manifest.tensors) + 1


def test_importing_a_missing_or_broken_file_says_so(seeder, tmp_path: Path) -> None:
    source, _ = seeder
    with pytest.raises(ModelNotFound, match="there is no such file"):
        source.import_gguf(tmp_path / "absent.gguf")


def test_the_same_file_under_another_name_has_the_same_id(chunked_model: Path, seeder, tmp_path: Path) -> None:
    _, manifest = seeder
    copy = tmp_path / "other name.gguf"
    copy.write_bytes(chunked_model.read_bytes())
    with open_gguf(copy) as file:
        assert manifest_of(file).id == manifest.id
    with open_gguf(write_model(tmp_path / "b.gguf", seed=1)) as file:
        assert manifest_of(file).id != manifest.id
