"""What a swarm on this machine costs: overhead per token of a pipeline over loopback, chats side by side, predictions.

    python tools/bench/swarm.py [--model FILE] [--nodes 3] [--tokens 128] [--repeat 3] [--json]

The overhead is what a token takes beyond the time that its stages compute: messages, threads, Python. All nodes share
this machine's cores; each computes with one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from swarm import kernels
from swarm.node import measure
from swarm.node.home import Home
from swarm.store.catalog import resolve
from tests.helpers import nodes
from tests.helpers.nodes import Swarm, cost_of, memories_for

CONTEXT = 512
N_PROMPT = 19  # tokens of PROMPT
PROMPT = "The sea is blue, the ships are old, and the people who sail them tell long stories about"


def body(model: str, tokens: int, seed: int) -> dict[str, object]:
    """A temperature of 1 gives long answers."""
    return {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 1.0, "seed": seed}


def decode_s(swarm: Swarm) -> float:
    """Seconds that all stages have computed single tokens since their start."""
    return sum(float(node.status()["computed"]["decode_seconds"]) for node in swarm.nodes)  # type: ignore[index,call-overload]


def one_chat(swarm: Swarm, tokens: int, seed: int) -> tuple[float, float]:
    """Milliseconds a token after the first, and of these what the stages compute."""
    before = decode_s(swarm)
    heard = swarm.nodes[0].ask(body(swarm.model, tokens, seed))
    assert not heard.error, heard.error
    n = len(heard.tokens) - 1
    return 1e3 * heard.timings["decode_s"] / n, 1e3 * (decode_s(swarm) - before) / n


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
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    path = args.model or resolve(None)
    cost = cost_of(path)
    layers = [cost.n_layers // args.nodes] * args.nodes
    layers[-1] += cost.n_layers - sum(layers)
    with tempfile.TemporaryDirectory() as folder:
        nodes.SPEED = measure.measure(Home(Path(folder)), kernels.isa(), nodes.THREADS)  # once for all: they are alike
        memories = memories_for(cost, layers, 700)
        with Swarm(Path(folder) / "swarm", memories, model=path, context=CONTEXT) as swarm:
            one_chat(swarm, 16, 0)
            runs = [one_chat(swarm, args.tokens, seed) for seed in range(args.repeat)]
            plan = swarm.nodes[0].get(f"/swarm/plan?model={swarm.model}&context={N_PROMPT + args.tokens}")
            one = several(swarm, 1, args.tokens)
            four = several(swarm, 4, args.tokens)
            stages = [len(d["shards"]) for d in swarm.nodes[0].status()["devices"]]  # type: ignore[index,attr-defined]
    token_ms, compute_ms = (statistics.median(column) for column in zip(*runs, strict=True))
    result = {
        "stages": sum(1 for n in stages if n),
        "token_ms": round(token_ms, 2),
        "stages_compute_ms": round(compute_ms, 2),
        "overhead_ms": round(token_ms - compute_ms, 2),
        "tokens_per_s": round(1e3 / token_ms, 1),
        "predicted_tokens_per_s": round(float(plan["tokens_per_s"]), 1),  # type: ignore[arg-type]
        "one_chat_tokens_per_s": round(one, 1),
        "four_chats_tokens_per_s": round(four, 1),
    }
    print(json.dumps(result) if args.json else "\n".join(f"{name:24} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
