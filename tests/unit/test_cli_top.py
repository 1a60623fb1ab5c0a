"""`swarm top`: what fits on a terminal, and what is heard from a node."""

from __future__ import annotations

import argparse
import io
import json
import threading
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from swarm.cli import local, top
from swarm.errors import ConfigError

PATIENCE_S = 10.0


def device(name: str, *, health: str = "alive", shards: int = 1, **state: object) -> dict[str, Any]:
    held = [{"first": 10 * i, "end": 10 * i + 10, "embed": not i, "head": False, "model": "m"} for i in range(shards)]
    usual = {"memory_free_bytes": 1e9, "busy": 0.5, "tokens_per_s": 3.0, "fetching": 1.0, "shard_ready": True}
    return {
        "peer": name,
        "name": name,
        "health": health,
        "excluded": "",
        "lost_why": "its link broke" if health == "lost" else "",
        "rtt_s": 0.0012,
        "capabilities": {"memory_bytes": 4e9, "read_bytes_per_s": 1e10},
        "state": usual | state,
        "shards": held,
    }


def view_of(*devices: dict[str, Any], n_events: int = 50, chats: int = 1) -> dict[str, Any]:
    chat = {"phase": "running", "tokens": 118, "devices": ["attic", "a-device-with-a-very-long-name" * 3], "notice": ""}
    events = [{"at": 1e9 + i, "event": "joined", "name": f"n{i}", "why": "w" * 100} for i in range(n_events)]
    return {"name": "attic", "devices": list(devices), "chats": [chat] * chats, "events": events, "models": []}


def shown(
    view: dict[str, Any] | None, width: int = 80, height: int = 24, rates: tuple[float, ...] = (1.0, 2.0)
) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height).print(top.screen(view, deque(rates), width, height))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (100, 12)])
def test_it_fills_the_terminal_and_no_more(width: int, height: int) -> None:
    lines = shown(view_of(device("attic", health="here"), device("kitchen"), device("shed")), width, height)
    assert len(lines) <= height and max(map(len, lines)) <= width
    assert lines[0].startswith("swarm  attic  3 devices  2.0 tok/s")
    assert any("answer running: 118 tokens on attic >" in line for line in lines) and lines[-1].startswith("q leaves")


def test_events_take_the_room_that_is_left() -> None:
    lines = shown(view_of(device("attic"), n_events=50), height=40)
    assert "n49" in "\n".join(lines) and "n0 " not in "\n".join(lines) and len(lines) >= 38


def test_a_device_that_is_gone_says_why_and_holds_nothing() -> None:
    lines = shown(view_of(device("attic"), device("shed", health="lost"), chats=0))
    (line,) = [line for line in lines if line.strip().startswith("shed")]
    assert "gone: its link broke" in line and "0-9" not in line and "tok/s" not in line
    assert lines[0].startswith("swarm  attic  1 device ")


def test_layers_of_two_models_say_whose_they_are() -> None:
    two = device("attic", shards=2)
    two["shards"][1]["model"] = "n" * 64
    models = [{"id": "m", "name": "GLM 4 9B"}, {"id": "n" * 64, "name": "A model of a very long name"}]
    lines = "\n".join(shown(view_of(two) | {"models": models}, width=120))
    assert "GLM 4 9B: embed 0-9" in lines and "A model of …: 10-19" in lines
    assert "GLM" not in "\n".join(shown(view_of(device("attic")) | {"models": models}, width=120)), "one needs no name"


def test_a_node_that_does_not_answer_is_told() -> None:
    assert "does not answer" in shown(None)[0]


def test_names_of_devices_cannot_move_the_cursor() -> None:
    assert "\x1b" not in "\n".join(shown(view_of(device("a\x1b[2Jb"), n_events=0)))


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "········"), (0.5, "████····"), (1.0, "████████"), (9.0, "████████"), (0.03, "▎·······")]
)
def test_a_bar_is_as_long_as_its_share(share: float, text: str) -> None:
    assert top.bar(share) == text


def test_the_curve_ends_with_the_newest_rate() -> None:
    assert top.curve([0.0, 5.0, 10.0], 80) == "▁▅█"
    assert top.curve([1.0] * 200, 80) == "█" * 79
    assert top.curve([0.0, 0.0], 80) == "▁▁" and top.curve([], 80) == ""


def test_what_passes_all_devices_counts_once() -> None:
    view = view_of(
        device("a", tokens_per_s=4.0), device("b", tokens_per_s=5.0), device("c", health="lost", tokens_per_s=9.0)
    )
    assert top.rate_of(view) == 5.0


class PlayedNode:
    """Gives one state, then breaks off; at the second time there is nobody."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.went_on = threading.Event()
        self.was_away = threading.Event()

    def connect(self, timeout_s: float) -> Any:
        self.asked += 1
        if self.asked > 1:
            self.was_away.set()
            raise ConnectionRefusedError
        return SimpleNamespace(request=lambda *_, **__: None, getresponse=self.lines, close=lambda: None)

    def lines(self) -> Iterator[bytes]:
        yield from (
            b": still here\n",
            b"\n",
            b"event: state\n",
            f"data: {json.dumps({'name': 'attic'})}\n".encode(),
            b"\n",
        )
        self.went_on.wait(PATIENCE_S)


def test_the_newest_state_is_heard_and_a_node_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "AGAIN_S", 0.001)
    node: Any = PlayedNode()
    with top.Watch(node) as watch:
        while watch.view is None:
            assert not node.was_away.is_set()
        assert watch.view == {"name": "attic"}
        node.went_on.set()
        assert node.was_away.wait(PATIENCE_S)
        assert watch.view is None


def test_a_pipe_is_told_what_to_use_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "need", lambda settings: None)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    with pytest.raises(ConfigError, match="swarm status"):
        top.run(argparse.Namespace(home=None))
