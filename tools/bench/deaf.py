#!/usr/bin/env python3
"""How long a node is deaf while each of many costly requests is asked.

    python tools/bench/deaf.py [--model FILE] [--only WORDS] [--repeat 3]

Three figures of each, the least of the repetitions: how long /health took at most, asked every 10 ms from another
process; processor seconds of the longest turn of the node's loop; and of the longest time in which its interpreter was
kept (tests/helpers/watched_node.py). At the end all are asked at once, and the node is told to end by SIGTERM.
"""

from __future__ import annotations

import argparse
import http.client
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from swarm.store.naming import resolve  # noqa: E402
from tests.helpers.costly_requests import TEMPLATES, Costly, all_kinds, play  # noqa: E402
from tests.helpers.gguf_template import with_template  # noqa: E402
from tests.helpers.nodes import NodeProcess, Swarm  # noqa: E402
from tests.helpers.tiny import make_tiny  # noqa: E402
from tests.helpers.watched_node import pauses_since  # noqa: E402

EVERY_S = 0.01


def poll(port: int) -> None:
    """Ask /health again and again; print when each answer came, and how long it took."""
    while True:
        began_at = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/health")
            connection.getresponse().read()
        except ConnectionRefusedError:
            return
        except OSError:  # not heard for so long
            pass
        finally:
            connection.close()
        print(time.monotonic(), time.monotonic() - began_at, flush=True)
        time.sleep(EVERY_S)


class Health:
    """What the other process hears."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, __file__, "--poll", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.heard: list[tuple[float, float]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            ended_at, took_s = map(float, line.split())
            self.heard.append((ended_at, took_s))

    def longest_since(self, began_at: float) -> float:
        return max((took_s for ended_at, took_s in self.heard if ended_at > began_at), default=0.0)


def one(node: NodeProcess, health: Health, data: bytes) -> tuple[str, float, float, float, float]:
    """Status and seconds of a request; the longest /health, turn of the loop, and time without the interpreter."""
    assert node.local is not None
    began_at = time.monotonic()
    status = play(node.local.api_port, data, 300.0)
    took_s = time.monotonic() - began_at
    time.sleep(0.1)
    pauses = pauses_since(node.home.root, began_at)
    loop_s, interpreter_s = (
        max((pause.seconds for pause in pauses if pause.kind == kind), default=0.0) for kind in ("loop", "interpreter")
    )
    return status, took_s, health.longest_since(began_at), loop_s, interpreter_s


def measure(node: NodeProcess, kinds: list[Costly], repeat: int) -> None:
    """Print a row for each."""
    assert node.local is not None
    health = Health(node.local.api_port)
    print("| request | answer | after s | /health s | loop s | interpreter s |\n|---|---|---|---|---|---|")
    for kind in kinds:
        data = kind.made()
        runs = [one(node, health, data) for _ in range(repeat)]
        best = [min(column) for column in zip(*(run[1:] for run in runs), strict=True)]
        figures = " | ".join(f"{figure:.2f}" for figure in best)
        print(f"| {kind.name} | {runs[0][0]} | {figures} |", flush=True)
    health.process.kill()
    health.process.wait()


def end(node: NodeProcess, kinds: list[Costly]) -> None:
    """All at once, and SIGTERM."""
    assert node.local is not None and node.process is not None
    port = node.local.api_port
    asking = [threading.Thread(target=play, args=(port, kind.made()), daemon=True) for kind in kinds]
    for thread in asking:
        thread.start()
    time.sleep(1.0)
    began_at = time.monotonic()
    node.signal(signal.SIGTERM)
    code = node.process.wait(120)
    print(f"SIGTERM while all are asked: ended with {code} after {time.monotonic() - began_at:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file of a chat model; the default one is usual")
    parser.add_argument("--only", default="", help="requests whose names have this in them")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--poll", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.poll:
        return poll(args.poll)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = make_tiny(folder / "tiny.gguf", "glm4")
        paths = {each: with_template(tiny, folder / f"{each}.gguf", TEMPLATES[each], each) for each in TEMPLATES}
        program = {0: "tests.helpers.watched_node"}
        with Swarm(folder / "swarm", [600_000_000], model=args.model or resolve(None), programs=program) as nodes:
            (node,) = nodes.nodes
            models = {each: str(node.post("/swarm/models", {"path": str(path)})["id"]) for each, path in paths.items()}
            node.ask({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2})
            kinds = [kind for kind in all_kinds(models) if args.only in kind.name]
            measure(node, kinds, args.repeat)
            end(node, kinds)
    return None


if __name__ == "__main__":
    main()
