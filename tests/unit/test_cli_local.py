"""The node of this device, as commands reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swarm import config
from swarm.cli import local
from swarm.cli.local import LocalNode
from swarm.errors import ConfigError, ModelNotFound, SwarmNetworkError
from swarm.node.home import Home, Running


class FakeNode:
    """Remembers which files it was offered."""

    def __init__(self) -> None:
        self.offered: list[str] = []

    def post(self, path: str, body: dict[str, str], timeout_s: float) -> dict[str, object]:
        self.offered.append(body["path"])
        return {"id": "a" * 64}


def test_a_file_is_offered_to_the_swarm_and_a_name_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").touch()
    (tmp_path / "glm").mkdir()
    monkeypatch.chdir(tmp_path)
    node: Any = FakeNode()
    assert local.name_of_model(node, "m.gguf") == "a" * 64 and node.offered == [str(tmp_path / "m.gguf")]
    assert [local.name_of_model(node, text) for text in ("glm-4-9b", "glm", "", None)] == ["glm-4-9b", "glm", "", ""]
    assert len(node.offered) == 1


def test_a_path_to_nothing_is_told_as_without_a_node(tmp_path: Path) -> None:
    node: Any = FakeNode()
    with pytest.raises(ModelNotFound, match="there is no file"):
        local.name_of_model(node, str(tmp_path / "none.gguf"))


def test_without_a_node_commands_that_need_one_say_how_to_start_it(own_home: Path) -> None:
    assert local.find(config.load()) is None
    with pytest.raises(ConfigError, match="`swarm join` starts one"):
        local.need(config.load())


def test_a_node_that_was_killed_is_not_taken_for_one_that_runs(own_home: Path) -> None:
    settings = config.load()
    home = Home(settings.home_path)
    home.make()
    home.say_running(Running(1, "ab", "gone", 1, 1, "token"))  # nobody listens on port 1
    assert local.find(settings) is None


def test_a_node_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(SwarmNetworkError, match="the node on this device does not answer"):
        LocalNode(1, "ab", "gone", 1, "token").get("/health", 1.0)


@pytest.mark.parametrize("value", [None, {}, {"error": "x"}, {"error": {"message": 1}}, []])
def test_an_error_that_makes_no_sense_is_told_so(value: object) -> None:
    assert local.error_text({"error": {"message": "no such model"}}) == "no such model"
    assert "makes no sense" in local.error_text(value)
