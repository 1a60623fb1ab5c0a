"""A node is told to end while a hostile file holds a request up: it does, before that would end by itself."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path

import psutil

from swarm.limits import MAX_TEMPLATE_S
from tests.helpers.gguf_template import with_template
from tests.helpers.nodes import NodeProcess, Swarm, wait_for
from tests.helpers.tiny import make_tiny

ENDLESS = (
    "{% set s = 'a' * 8000000 %}{% set t = 'a' * 3999999 ~ 'b' %}{% for i in range(99999) %}{{ t in s }}{% endfor %}"
)


def rendering_s(node: NodeProcess) -> float:
    """Seconds that the processes of a node that render have computed."""
    assert node.process is not None
    workers = psutil.Process(node.process.pid).children()
    return sum(worker.cpu_times().user for worker in workers if "render_worker" in " ".join(worker.cmdline()))


def test_a_template_that_never_ends_does_not_keep_a_node_from_ending(tmp_path: Path) -> None:
    path = with_template(make_tiny(tmp_path / "tiny.gguf", "glm4"), tmp_path / "endless.gguf", ENDLESS, "endless")
    with Swarm(tmp_path / "swarm", [400_000_000], model=path, context=256) as nodes:
        (node,) = nodes.nodes
        body = {"model": nodes.model, "messages": [{"role": "user", "content": "Hi"}]}

        def ask() -> None:
            with contextlib.suppress(Exception):
                node.ask(body)

        before = rendering_s(node)
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        wait_for(lambda: rendering_s(node) > before + 0.1, "the template to be rendered")
        began = time.monotonic()
        node.signal(signal.SIGTERM)
        assert node.process is not None and node.process.wait(60) == 0
        took_s = time.monotonic() - began
        print(f"SIGTERM was heard in {took_s:.2f} s")
        asking.join(60)
    assert took_s < MAX_TEMPLATE_S - 1.0
