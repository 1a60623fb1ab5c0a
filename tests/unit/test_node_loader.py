"""Weights come into memory part by part; what was given up is not loaded."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.engine.weights import Weights
from swarm.models import spec_from_gguf
from swarm.node import loader as loaders
from swarm.node.loader import Loader, Loading
from swarm.parts import EMBED, LM_HEAD, Part
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from swarm.store.stored_model import StoredModel
from swarm.wire.ids import ModelId
from tests.helpers.tiny import TINY, make_weights, write_tiny

MODEL = ModelId("ab" * 32)


class Play:
    """A loader, and what it posts: the test is the loop."""

    def __init__(self, path: Path) -> None:
        self.file = open_gguf(path)
        self.spec = spec_from_gguf(self.file.metadata, self.file.tensors)
        self.posted: queue.Queue[Callable[[], object]] = queue.Queue()
        self.installed: list[Part] = []
        self.weights: dict[Part, Weights] = {}
        self.ended: list[Loading] = []
        self.on_installed: Callable[[Loading], object] = lambda loading: None
        post: Any = lambda function, *args: self.posted.put(lambda: function(*args))  # noqa: E731
        self.loader = Loader(post, self._install, self.ended.append, threads=1)

    def _install(self, loading: Loading, part: Part, _: object, weights: Weights) -> None:
        self.installed.append(part)
        self.weights[part] = weights
        self.on_installed(loading)

    def load(self, parts: set[Part], source: StoredModel | None = None, **weight_bytes: int) -> Loading:
        loading = Loading(1, MODEL, parts, weight_bytes=dict.fromkeys(parts, weight_bytes.get("each", 0)))
        self.loader.load(loading, source or self.file, lambda cut: self.spec)
        while not self.ended:
            self.posted.get(timeout=10)()
        self.loader.stop()
        self.file.close()
        return self.ended.pop()


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(write_tiny(tmp_path / "tiny.gguf", TINY["llama"], make_weights(TINY["llama"]), "Q8_0"))


def test_parts_are_installed_in_order(play: Play) -> None:
    loading = play.load({LM_HEAD, Part(1), EMBED})
    assert play.installed == [EMBED, Part(1), LM_HEAD] and not loading.error


def test_an_end_comes_also_when_nothing_is_wanted_any_more(play: Play) -> None:
    assert not play.load(set()).error and not play.installed


def test_weights_that_do_not_fit_the_free_memory_are_not_loaded(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "free_memory_bytes", lambda: loaders.SPARE_BYTES + 10)
    loading = play.load({Part(0)}, each=11)
    assert "of weights do not fit" in loading.error and not play.installed


def test_the_embedding_of_a_model_in_the_store_stays_on_the_disk(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaders, "free_memory_bytes", lambda: 0)
    store = ChunkStore(tmp_path / "store")
    loading = play.load({EMBED}, store.open(store.import_gguf(tmp_path / "tiny.gguf").id))
    store.close()
    weights = play.weights[EMBED]
    assert not loading.error and weights.table is not None
    assert not weights.matrices and weights.n_bytes == weights.table.n_bytes
