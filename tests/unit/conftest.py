"""Fixtures of the unit tests: a model of chunks, the device that has the file, and one that fetches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.store.chunks import ChunkStore
from swarm.store.manifest import Manifest
from tests.helpers.chunked import write_model


@pytest.fixture(scope="module")
def chunked_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture
def seeder(tmp_path: Path, chunked_model: Path) -> Iterator[tuple[ChunkStore, Manifest]]:
    """The store of the device that has the file."""
    store = ChunkStore(tmp_path / "seeder")
    yield store, store.import_gguf(chunked_model, threads=2)
    store.close()


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., ChunkStore]]:
    """Opens the store of another device, again and again."""
    opened: list[ChunkStore] = []

    def open_it(quota_bytes: int | None = None) -> ChunkStore:
        while opened:
            opened.pop().close()
        opened.append(ChunkStore(tmp_path / "leecher", quota_bytes))
        return opened[-1]

    yield open_it
    while opened:
        opened.pop().close()
