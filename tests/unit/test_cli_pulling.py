"""Fetching a model for a command: where it will run, and what the swarm has already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from swarm import config
from swarm.cli import pulling
from swarm.cli.local import LocalNode
from swarm.errors import ModelNotFound
from tests.helpers.hub import StandInHub
from tests.helpers.repositories import tiny_files


class FakeNode:
    """A node whose swarm has the model `has`."""

    def __init__(self, has: str = "") -> None:
        self.has = has
        self.offered: list[str] = []

    def get(self, path: str) -> dict[str, object]:
        devices = [("here", 5 * 10**9), ("alive", 7 * 10**9), ("lost", 100 * 10**9)]
        return {"devices": [{"health": health, "capabilities": {"memory_bytes": n}} for health, n in devices]}

    def post(self, path: str, body: dict[str, object], timeout_s: float = 0) -> dict[str, object]:
        if path == "/swarm/pull":
            return {"alone": True}
        if path == "/swarm/models":
            self.offered.append(str(body["path"]))
            return {"id": "offered", "name": "offered"}
        if body["model"] != self.has:
            raise ModelNotFound("no device here has it")
        return {"id": f"id of {self.has}"}


@pytest.fixture
def settings(own_home: Path) -> config.Settings:
    return config.load({"models_dir": str(own_home / "models")})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with StandInHub.of({"u/Tiny-GGUF": tiny_files(tmp_path / "repo", "Q4_0")}) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


def node_that(monkeypatch: pytest.MonkeyPatch, has: str = "") -> FakeNode:
    node = FakeNode(has)
    monkeypatch.setattr("swarm.cli.local.find", lambda settings: node)
    return node


def test_the_swarms_memory_is_that_of_its_living_devices(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_that(monkeypatch)
    room = pulling.room_of(settings)
    assert (room.memory_bytes, room.where) == (12 * 10**9, "the 2 devices of the swarm")


def test_the_swarm_is_asked_before_the_internet(
    hub: StandInHub, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = node_that(monkeypatch, "u/Tiny-GGUF")
    assert pulling.ensure(cast(LocalNode, node), "u/Tiny-GGUF", settings) == "id of u/Tiny-GGUF"
    assert hub.requests == []


def test_what_no_device_has_is_fetched_and_offered(
    hub: StandInHub, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = node_that(monkeypatch)
    assert pulling.ensure(cast(LocalNode, node), "u/Tiny-GGUF", settings) == "offered"
    assert node.offered == [str(settings.models_path / "Tiny-Q4_0.gguf")]


def test_a_name_that_means_nothing_is_not_asked_of_the_internet(
    hub: StandInHub, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelNotFound, match="no device here has it"):
        pulling.ensure(cast(LocalNode, node_that(monkeypatch)), "kitchen", settings)
    assert hub.requests == []
