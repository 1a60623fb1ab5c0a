#!/usr/bin/env python3
"""How long a reader's next token takes while somebody else's long prompt is read, and how long that prompt takes.

    python tools/bench/pauses.py [--model FILE] [--nodes 1] [--prompt 4000] [--repeat 3] [--tree OTHER]

All nodes are on this machine; each computes with one thread. `--tree` measures another checkout, with its extensions
built.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(
    0, sys.argv[sys.argv.index("--tree") + 1] if "--tree" in sys.argv else str(Path(__file__).resolve().parents[2])
)

from swarm import kernels
from swarm.node import measure
from swarm.node.home import Home
from swarm.store.naming import resolve
from tests.helpers import nodes
from tests.helpers.nodes import Heard, Swarm, cost_of, memories_for

CONTEXT = 8192


def body(model: str, prompt: list[int], tokens: int, seed: int) -> dict[str, object]:
    return {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 1.0, "seed": seed}


def one(swarm: Swarm, n_prompt: int, seed: int) -> tuple[float, float, float]:
    """Seconds: the longest gap of the reader meanwhile, his usual one before, and until the prompt was read."""
    heard = Heard()
    ends = threading.Event()

    def listen(so_far: Heard) -> None:
        if ends.is_set():
            raise InterruptedError

    def read() -> None:
        with contextlib.suppress(InterruptedError):
            swarm.nodes[0].ask(body(swarm.model, list(range(100, 120)), 4000, seed), heard, on_piece=listen)

    reader = threading.Thread(target=read)
    reader.start()
    nodes.wait_for(lambda: len(heard.at) > 20, "the reader's first tokens")
    began = time.monotonic()
    other = swarm.nodes[0].ask(body(swarm.model, [1000 + (seed * 7 + i) % 30000 for i in range(n_prompt)], 2, seed))
    assert not other.error, other.error
    done = time.monotonic()
    time.sleep(0.2)
    ends.set()
    reader.join()
    gaps = [(b, b - a) for a, b in zip(heard.at, heard.at[1:], strict=False)]
    usual = statistics.median(gap for at, gap in gaps if at < began)
    return max(gap for at, gap in gaps if began <= at <= done), usual, done - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tree", type=Path, help="another checkout")
    args = parser.parse_args()
    path = args.model or resolve(None)
    cost = cost_of(path)
    layers = [cost.n_layers // args.nodes] * args.nodes
    layers[-1] += cost.n_layers - sum(layers)
    with tempfile.TemporaryDirectory() as folder:
        nodes.SPEED = measure.measure(Home(Path(folder)), kernels.isa(), nodes.THREADS)
        memories = memories_for(cost, layers, 4 * CONTEXT)
        with Swarm(Path(folder) / "swarm", memories, model=path, context=CONTEXT) as swarm:
            runs = [one(swarm, args.prompt, seed) for seed in range(args.repeat)]
    longest, usual, read = (statistics.median(run[i] for run in runs) for i in range(3))
    print(json.dumps({"longest_gap_s": longest, "usual_gap_s": usual, "prompt_s": read, "runs": runs}))


if __name__ == "__main__":
    main()
