"""Many readers at once: tokens a second of all together, time to the first token, and the same texts as alone.

    python tools/bench/readers.py [--model FILE] [--nodes 1] [--readers 1 2 4 8 16] [--tokens 64] [--tree OTHER]

Each reader asks something of his own at the same moment. All nodes are on this machine; each computes with one
thread. `--tree` measures another checkout, with its extensions built.
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

sys.path.insert(
    0, sys.argv[sys.argv.index("--tree") + 1] if "--tree" in sys.argv else str(Path(__file__).resolve().parents[2])
)

from swarm import kernels
from swarm.node import measure
from swarm.node.home import Home
from swarm.store.naming import resolve
from tests.helpers import nodes
from tests.helpers.nodes import Heard, Swarm, cost_of, memories_for

CONTEXT = 512
KV_TOKENS = 18 * CONTEXT
SUBJECTS = ("the sea", "an old clock", "bread", "a lost dog", "the moon", "a bridge", "winter", "two brothers")


def body(model: str, reader: int, tokens: int) -> dict[str, object]:
    prompt = f"A long story about {SUBJECTS[reader % len(SUBJECTS)]}, told {reader + 1} times: once upon a time"
    return {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 1.0, "seed": 100 + reader}


def together(swarm: Swarm, n_readers: int, tokens: int) -> tuple[float, float, list[list[int]]]:
    """Tokens a second of all, median seconds to the first token, and what each got."""
    heard: list[Heard | None] = [None] * n_readers

    def ask(reader: int) -> None:
        heard[reader] = swarm.nodes[0].ask(body(swarm.model, reader, tokens))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(n_readers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = [h for h in heard if h is not None and not h.error]
    assert len(answers) == n_readers, [h and h.error for h in heard]
    last = max(h.at[-1] for h in answers)
    first = statistics.median(h.at[0] - started for h in answers)
    return sum(len(h.tokens) for h in answers) / (last - started), first, [h.tokens for h in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tree", type=Path, help="another checkout")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    path = args.model or resolve(None)
    cost = cost_of(path)
    layers = [cost.n_layers // args.nodes] * args.nodes
    layers[-1] += cost.n_layers - sum(layers)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        nodes.SPEED = measure.measure(Home(Path(folder)), kernels.isa(), nodes.THREADS)
        memories = memories_for(cost, layers, KV_TOKENS)
        with Swarm(Path(folder) / "swarm", memories, model=path, context=CONTEXT) as swarm:
            alone = [together_alone(swarm, i, args.tokens) for i in range(max(args.readers))]
            for n_readers in args.readers:
                runs = [together(swarm, n_readers, args.tokens) for _ in range(args.repeat)]
                same = all(texts == alone[:n_readers] for _, _, texts in runs)
                rate, first = (statistics.median(run[i] for run in runs) for i in (0, 1))
                rows.append({"readers": n_readers, "tokens_per_s": rate, "first_s": first, "same_texts": same})
                if not args.json:
                    texts = "the same texts as alone" if same else "OTHER TEXTS than alone"
                    print(f"{n_readers:3} readers {rate:8.1f} tok/s, first token {first:6.2f} s, {texts}", flush=True)
    if args.json:
        print(json.dumps(rows))


def together_alone(swarm: Swarm, reader: int, tokens: int) -> list[int]:
    heard = swarm.nodes[0].ask(body(swarm.model, reader, tokens))
    assert not heard.error, heard.error
    return heard.tokens


if __name__ == "__main__":
    main()
