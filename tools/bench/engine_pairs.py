#!/usr/bin/env python3
"""Two builds of the engine beside each other: the same model in both, turns alternating, ratios within a pair.

    tools/bench/engine_pairs.py OLD_TREE glm4-9b:Q4_0 smollm2 --threads 1 2 --pairs 9 [--cpu avx2]

OLD_TREE is another checkout with its extensions built. Whatever else the machine does meets both builds alike, so what
counts is the median of the ratios within pairs; above 1 this tree is faster. The process that starts later gets what
large pages are left and reads its weights up to 12 % slower: half of the pairs are measured with the old build started
first, half with the new one, and the figure is the geometric mean of both halves' medians.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/bench")]

from compare import Worker, machine, resolve  # noqa: E402

CASES = (("decode", 24), ("prefill", 256), ("prefill", 64))
Halves = tuple[list[tuple[float, float]], list[tuple[float, float]]]


def rates(first: Worker, second: Worker, kind: str, n: int, pairs: int) -> list[tuple[float, float]]:
    """Rates in tok/s of both in every pair, whose turns alternate; the first turn of each warms up."""
    first.measure(kind, n), second.measure(kind, n)
    found: list[tuple[float, float]] = []
    for i in range(pairs):
        if i % 2:
            b, a = second.measure(kind, n), first.measure(kind, n)
        else:
            a, b = first.measure(kind, n), second.measure(kind, n)
        found.append((a, b))
    return found


def both_orders(scripts: list[str], path: Path, threads: int, pairs: int) -> dict[tuple[str, int], Halves]:
    """For each case the (old, new) rates with the old build started first, and with the new one started first."""
    halves: dict[tuple[str, int], Halves] = {case: ([], []) for case in CASES}
    for order in (0, 1):
        first, second = (Worker("swarm", path, threads, script) for script in (scripts[order], scripts[1 - order]))
        for case in CASES:
            found = rates(first, second, *case, (pairs + 1) // 2)
            halves[case][order].extend((b, a) if order else (a, b) for a, b in found)
        first.stop(), second.stop()
    return halves


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
    print("| model | threads | case | old tok/s | new tok/s | new / old in pairs (old, new started first) |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in args.models:
        path = resolve(name, args.models_dir)
        for threads in args.threads:
            for (kind, n), halves in both_orders(scripts, path, threads, args.pairs).items():
                medians = [statistics.median(new / old for old, new in half) for half in halves]
                was, now = (statistics.median(pair[i] for half in halves for pair in half) for i in (0, 1))
                shown = f"{math.sqrt(math.prod(medians)):.3f} ({medians[0]:.3f}, {medians[1]:.3f})"
                print(f"| {name} | {threads} | {kind} {n} | {was:.1f} | {now:.1f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
