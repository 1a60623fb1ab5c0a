#!/usr/bin/env python3
"""Whole decode steps with the ways that were found fastest here, beside the usual ones: the same weights, in turns.

    tools/bench/step_ways.py glm4-9b:Q4_K_M smollm2 --threads 1 2 --pairs 9

Models are named as for compare.py. The ways are measured before, as a node measures them; both print the same logits.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/bench")]

from compare import PROMPT, Swarm, machine, resolve  # noqa: E402

from swarm import kernels  # noqa: E402
from swarm.engine import ways  # noqa: E402


def measured(products: list[ways.Product], isa: str, threads: int) -> dict[ways.Product, ways.Choice]:
    """What is found for all of them, whatever else the machine does."""
    memory = ways.filled_memory()
    choices = {product: ways.fastest(product, isa, threads, memory) for product in products}
    return {product: choice for product, choice in choices.items() if choice is not None}


def step_s(model: Swarm, ids: list[int]) -> tuple[float, np.ndarray]:
    """Seconds of a step over one token, the median; and the last logits."""
    model.clear()
    model.eval(ids[:1] * PROMPT)
    took = []
    logits = np.empty(0, np.float32)
    for token in ids:
        started = time.perf_counter()
        logits = model.decoder.forward([token], model.kv)
        took.append(time.perf_counter() - started)
    return statistics.median(took), logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="smollm2, NAME:MIX of shapes.py, or a path")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--cpu", default="", help="highest instruction set to use, as in SWARM_CPU")
    parser.add_argument("--models-dir", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    args = parser.parse_args()
    if args.cpu:
        os.environ["SWARM_CPU"] = args.cpu
    isa = kernels.isa(args.cpu)
    print(f"{machine()}, {isa}")
    print("| model | threads | usual tok/s | chosen tok/s | chosen / usual in pairs | ways that were chosen |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in args.models:
        for threads in args.threads:
            model = Swarm(str(resolve(name, args.models_dir)), threads)
            found = measured(ways.products_of(model.decoder.weights), isa, threads)
            ids = np.random.default_rng(1).integers(10, model.n_vocab, args.tokens).tolist()
            pairs = []
            for _ in range(args.pairs + 1):
                model.decoder.choose({})
                usual, logits = step_s(model, ids)
                model.decoder.choose(found)
                chosen, again = step_s(model, ids)
                assert np.array_equal(logits, again)
                pairs.append((usual, chosen))
            usual, chosen = (1 / statistics.median(column) for column in zip(*pairs[1:], strict=True))
            ratio = statistics.median(a / b for a, b in pairs[1:])
            named = "; ".join(
                f"{p.quant} {'sums' if p.summed else 'rows'} {c.way}" for p, c in found.items() if c.gain > 1
            )
            print(
                f"| {name} | {threads} | {usual:.1f} | {chosen:.1f} | {ratio:.3f} | {named or 'the usual'} |",
                flush=True,
            )
            del model


if __name__ == "__main__":
    main()
