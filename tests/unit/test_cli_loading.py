"""A model is the swarm's where a node runs here, with the draft that was asked for."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm import config
from swarm.cli import loading, local, pulling
from tests.helpers.tiny import make_tiny


class Node:
    """What the command tells it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []

    def post(self, path: str, body: dict[str, object], timeout_s: float) -> dict[str, object]:
        self.told.append((path, body))
        return {}


@pytest.mark.parametrize("has_draft", [True, False])
def test_a_node_is_told_of_the_small_model_that_guesses(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, *, has_draft: bool
) -> None:
    node: Any = Node()
    monkeypatch.setattr(local, "find", lambda settings: node)
    monkeypatch.setattr(pulling, "ensure", lambda node, model, settings: "the id")
    monkeypatch.setattr("swarm.cli.remote.RemoteModel", lambda *args, guess: SimpleNamespace(name="m"))
    small = make_tiny(tmp_path / "small.gguf", "llama")
    args = argparse.Namespace(alone=False, model="m", draft=str(small) if has_draft else None)
    assert loading.open_model(args, config.load())[1] == "m"
    assert node.told == ([("/swarm/draft", {"path": str(small), "model": "the id"})] if has_draft else [])
