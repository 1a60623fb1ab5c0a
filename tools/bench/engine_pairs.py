#!/usr/bin/env python3
"""Two builds of the engine beside each other: the same model in both, turns alternating, ratios within a pair.

    tools/bench/engine_pairs.py OLD_TREE glm4-9b:Q4_0 smollm2 --threads 1 2 --pairs 9 [--cpu avx2]

OLD_TREE is another checkout with its extensions built. Whatever else the machine does meets both builds alike, so what
counts is the median of the ratios within pairs; above 1 this tree is faster.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/bench")]

from compare import Worker, machine, resolve  # noqa: E402

CASES = (("decode", 24), ("prefill", 256), ("prefill", 64))


def ratios(old: Worker, new: Worker, kind: str, n: int, pairs: int) -> tuple[float, float, list[float]]:
    """Medians of both rates in tok/s, and new over old in every pair; the first turn of each warms up."""
    old.measure(kind, n), new.measure(kind, n)
    rates: list[tuple[float, float]] = []
    for i in range(pairs):
        first, second = (old, new) if i % 2 else (new, old)
        a, b = first.measure(kind, n), second.measure(kind, n)
        rates.append((a, b) if i % 2 else (b, a))
    olds, news = zip(*rates, strict=True)
    return statistics.median(olds), statistics.median(news), [b / a for a, b in rates]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("models", nargs="+", help="smollm2, NAME:MIX of shapes.py, or a path")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--cpu", default="", help="highest instruction set to use, as in SWARM_CPU")
    parser.add_argument("--models-dir", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    args = parser.parse_args()
    if args.cpu:
        os.environ["SWARM_CPU"] = args.cpu
    scripts = [str(tree.resolve() / "tools/bench/compare.py") for tree in (args.old, ROOT)]
    print(machine())
    print("| model | threads | case | old tok/s | new tok/s | new / old within a pair: median (lowest, highest) |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in args.models:
        path = resolve(name, args.models_dir)
        for threads in args.threads:
            old, new = (Worker("swarm", path, threads, script) for script in scripts)
            for kind, n in CASES:
                was, now, found = ratios(old, new, kind, n, args.pairs)
                spread = f"{statistics.median(found):.3f} ({min(found):.2f}, {max(found):.2f})"
                print(f"| {name} | {threads} | {kind} {n} | {was:.1f} | {now:.1f} | {spread} |", flush=True)
            old.stop(), new.stop()


if __name__ == "__main__":
    main()
