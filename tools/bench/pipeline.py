"""What a swarm on this machine costs: overhead per token of a pipeline over loopback, chats side by side, predictions.

    python tools/bench/pipeline.py [--model FILE] [--nodes 3] [--tokens 128] [--repeat 3] [--lan 1gbit:0.15]

The overhead is what a token takes beyond the time that its stages compute: messages, threads, Python. All nodes share
this machine's cores; each computes with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from swarm import kernels
from swarm.node import measure
from swarm.node.home import Home
from swarm.store.naming import resolve
from tests.helpers import nodes
from tests.helpers.lan import Lan
from tests.helpers.nodes import Swarm, cost_of, memories_for

os.environ.setdefault("SWARM_GUESS", "never")  # what steps cost is measured, not what the text repeats

CONTEXT = 512
N_PROMPT = 19  # tokens of PROMPT
KV_TOKENS = 700  # four chats fit, and no layer more
PROMPT = "The sea is blue, the ships are old, and the people who sail them tell long stories about"


def body(model: str, tokens: int, seed: int) -> dict[str, object]:
    """A temperature of 1 gives long answers."""
    return {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 1.0, "seed": seed}


def one_chat(swarm: Swarm, tokens: int, seed: int) -> tuple[float, float]:
    """Milliseconds from token to token, and of these what the stages compute: medians, for other programs run, too."""
    heard = swarm.nodes[0].ask(body(swarm.model, tokens, seed))
    assert not heard.error, heard.error
    gaps = [b - a for a, b in pairwise(heard.at)]
    steps = [float(node.status()["computed"]["decode_step_s"]) for node in swarm.nodes]  # type: ignore[index,call-overload]
    return 1e3 * statistics.median(gaps), 1e3 * sum(steps)


def several(swarm: Swarm, chats: int, tokens: int) -> float:
    """Tokens per second of so many chats at once, together."""
    counts: list[int] = []
    threads = [
        threading.Thread(
            target=lambda i=i: counts.append(len(swarm.nodes[0].ask(body(swarm.model, tokens, 100 + i)).tokens))
        )
        for i in range(chats)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--lan", metavar="RATE:MS", help="hosts in a LAN in a box instead of loopback: 1gbit:0.15")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with ExitStack() as stack:
        lan = None
        if args.lan:
            rate, _, delay = args.lan.partition(":")
            lan = stack.enter_context(Lan(args.nodes, rate=rate, delay_ms=float(delay or 0)))
        result = measured(args, Path(stack.enter_context(tempfile.TemporaryDirectory())), lan)
    print(json.dumps(result) if args.json else "\n".join(f"{name:24} {value}" for name, value in result.items()))


def measured(args: argparse.Namespace, folder: Path, lan: Lan | None) -> dict[str, float]:
    """Everything, on a swarm whose devices can just hold the model together."""
    path = args.model or resolve(None)
    cost = cost_of(path)
    layers = [cost.n_layers // args.nodes] * args.nodes
    layers[-1] += cost.n_layers - sum(layers)
    nodes.SPEED = measure.measure(Home(folder), kernels.isa(), nodes.THREADS)  # once for all: they are alike
    memories = memories_for(cost, layers, KV_TOKENS)
    with Swarm(folder / "swarm", memories, model=path, context=CONTEXT, lan=lan) as swarm:
        entry = swarm.nodes[0]
        one_chat(swarm, 16, 0)
        runs = [one_chat(swarm, args.tokens, seed) for seed in range(args.repeat)]
        plan = entry.post("/swarm/plan", {"model": swarm.model, "context": N_PROMPT + args.tokens})
        one = several(swarm, 1, args.tokens)
        four = several(swarm, 4, args.tokens)
        held = [len(device["shards"]) for device in entry.status()["devices"]]  # type: ignore[index,attr-defined]
    token_ms, compute_ms = (statistics.median(column) for column in zip(*runs, strict=True))
    result = {
        "stages": sum(1 for n in held if n),
        "token_ms": token_ms,
        "stages_compute_ms": compute_ms,
        "overhead_ms": token_ms - compute_ms,
        "tokens_per_s": 1e3 / token_ms,
        "predicted_tokens_per_s": float(plan["tokens_per_s"]),  # type: ignore[arg-type]
        "one_chat_tokens_per_s": one,
        "four_chats_tokens_per_s": four,
    }
    return {name: round(value, 2) for name, value in result.items()}


if __name__ == "__main__":
    main()
