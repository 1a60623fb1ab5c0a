"""No request, of any kind and size, holds a node up: neither its loop nor its interpreter; and signals are heard."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.costly_requests import TEMPLATES, all_kinds, play
from tests.helpers.gguf_template import with_template
from tests.helpers.models import real_model
from tests.helpers.nodes import Swarm
from tests.helpers.tiny import make_tiny
from tests.helpers.watched_node import pauses_since

# In processor time, of the best of three: what was mended took seconds, and what is right takes a tenth at most.
MOST_S = 0.4
LONG = {  # they take seconds by their nature: tools/bench/deaf.py plays them, too
    "a message of brackets",
    "a message of marks",
    "a body of single bytes",
    "a grammar of many rules",
    "a template that is endless",
    "a template that is writing",
}
NAMES = [kind.name for kind in all_kinds(dict.fromkeys(TEMPLATES, "")) if kind.name not in LONG]


class Watched:
    """A node that notes its pauses, with the real model, and one for each hostile template."""

    def __init__(self, nodes: Swarm, folder: Path) -> None:
        (self.node,) = nodes.nodes
        assert self.node.local is not None
        self.port = self.node.local.api_port
        tiny = make_tiny(folder / "tiny.gguf", "glm4")
        paths = {name: with_template(tiny, folder / f"{name}.gguf", TEMPLATES[name], name) for name in TEMPLATES}
        models = {name: str(self.node.post("/swarm/models", {"path": str(path)})["id"]) for name, path in paths.items()}
        self.kinds = {kind.name: kind for kind in all_kinds(models)}

    def deaf_s(self, data: bytes) -> float:
        """The longest pause while something is asked."""
        began_at = time.monotonic()
        play(self.port, data)
        self.node.get("/health")  # so that the turn of the loop that answered has ended
        return max((pause.seconds for pause in pauses_since(self.node.home.root, began_at)), default=0.0)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("pauses")
    program = {0: "tests.helpers.watched_node"}
    with Swarm(folder / "swarm", [600_000_000], model=real_model(), programs=program) as nodes:
        watched = Watched(nodes, folder)
        watched.node.ask({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2})  # loads the model
        yield watched


@pytest.mark.parametrize("name", NAMES)
def test_no_request_holds_a_node_up(watched: Watched, name: str) -> None:
    data = watched.kinds[name].made()
    longest_s = watched.deaf_s(data)
    for _ in range(2):
        if longest_s >= MOST_S:
            longest_s = min(longest_s, watched.deaf_s(data))
    assert longest_s < MOST_S


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_while_all_that_costs_is_asked(number: signal.Signals, tmp_path: Path) -> None:
    with Swarm(tmp_path / "swarm", [600_000_000], model=real_model()) as nodes:
        watched = Watched(nodes, tmp_path)
        asking = [threading.Thread(target=ask, args=(watched, name)) for name in NAMES[::6]]
        for thread in asking:
            thread.start()
        watched.node.get("/health")
        watched.node.signal(number)
        assert watched.node.process is not None and watched.node.process.wait(60) == 0
        for thread in asking:
            thread.join(60)


def ask(watched: Watched, name: str) -> None:
    play(watched.port, watched.kinds[name].made())
