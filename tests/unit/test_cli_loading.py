"""A model is the swarm's where a node runs here, with the draft that was asked for."""

from __future__ import annotations

import argparse
import gc
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm import config
from swarm.cli import loading, local, pulling
from swarm.errors import ModelNotFound
from tests.helpers.tiny import make_tiny


class Node:
    """What the command tells it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []

    def post(self, path: str, body: dict[str, object], timeout_s: float) -> dict[str, object]:
        self.told.append((path, body))
        return {}


@pytest.mark.parametrize("draft", ["small", "mtp", ""])
def test_a_node_is_told_of_the_small_model_or_the_block_that_guesses(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, draft: str
) -> None:
    node: Any = Node()
    monkeypatch.setattr(local, "find", lambda settings: node)
    monkeypatch.setattr(pulling, "ensure", lambda node, model, settings: "the id")
    monkeypatch.setattr("swarm.cli.remote.RemoteModel", lambda *args, guess: SimpleNamespace(name="m"))
    small = make_tiny(tmp_path / "small.gguf", "llama")
    path = str(small) if draft == "small" else draft
    args = argparse.Namespace(alone=False, model="m", draft=path or None)
    assert loading.open_model(args, config.load())[1] == "m"
    assert node.told == ([("/swarm/draft", {"path": path, "model": "the id"})] if draft else [])


@pytest.mark.parametrize("is_here", [True, False])
def test_what_answers_is_imported_beside_the_look_at_a_file_that_is_here(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, *, is_here: bool
) -> None:
    began, collects = threading.Event(), gc.isenabled()
    found = threading.Event()
    monkeypatch.setattr(loading, "_get_ready", lambda: began.set() or found.wait(10))
    find = loading.find_model
    monkeypatch.setattr(loading, "find_model", lambda *args: (find(*args), found.set())[0])

    def load(path: Path, *_: object) -> Path:
        assert not any(thread.name == "imports" for thread in threading.enumerate()), "two threads import"
        return path

    monkeypatch.setattr(loading, "load_model", load)
    here = make_tiny(tmp_path / "here.gguf", "llama")
    args = argparse.Namespace(alone=True, model=str(here) if is_here else "nothing-is-called-so", draft=None)
    if is_here:
        assert loading.open_model(args, config.load()) == (here, str(here))
        assert began.wait(10)
    else:
        with pytest.raises(ModelNotFound):
            loading.open_model(args, config.load())
        assert not began.is_set()
    assert gc.isenabled() == collects
