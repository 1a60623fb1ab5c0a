#!/usr/bin/env python3
"""The kernels' table: one token's product of every type, instruction set and way, beside the read bandwidth.

    tools/bench/ways.py                                 every type and set, one and two threads
    tools/bench/ways.py --quants Q4_K Q6_K --isa avx2 --rounds 7 --all-ways

Rows are products as of up and gate projections, attention and the head; sums end as down projections do
(csrc/README.md, "Exact sums"). All ways of a type and plain reading of as many bytes take turns, and of each the
fastest round counts: what other work on the machine does makes a round slower, never faster. Shares are of plain
reading. In cache: the usual way over 256 KiB, one thread: what its instructions allow.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/bench")]

from compare import machine  # noqa: E402

from swarm import kernels  # noqa: E402
from swarm.engine import ways  # noqa: E402
from swarm.engine.ways import Product, Way  # noqa: E402
from swarm.kernels import _native  # noqa: E402
from swarm.kernels.quants import QUANTS, quant_by_name  # noqa: E402

TYPES = [quant.name for quant in QUANTS.values() if quant.block_cols > 1]
CACHED_BYTES, CACHED_TIMES = 256 * 1024, 64


def seconds(product: Product, way: Way, data: ways.U8, threads: int, times: int = 1) -> float:
    """Of one pass over all of `data`."""
    number = quant_by_name(product.quant).id
    return _native.product_seconds(number, product.summed, *way, data, ways.COLUMNS, threads, times) / times


def rates(
    product: Product, tried: list[Way], data: ways.U8, threads: int, rounds: int
) -> dict[Way | None, list[float]]:
    """GB/s of each way in every round; under None those of plain reading."""
    found: dict[Way | None, list[float]] = {way: [] for way in (None, *tried)}
    for _ in range(rounds):
        started = time.perf_counter()
        _native.read_all(data, threads)
        found[None].append(time.perf_counter() - started)
        for way in tried:
            found[way].append(seconds(product, way, data, threads))
    return {way: [len(data) / 1e9 / each for each in column] for way, column in found.items()}


def line(product: Product, isa: str, data: ways.U8, threads: int, args: argparse.Namespace) -> str:
    """A row of the table."""
    tried = ways.candidates(isa)
    found = rates(product, tried, data, threads, args.rounds)
    fastest = {way: max(column) for way, column in found.items()}
    shares = {way: fastest[way] / fastest[None] for way in tried}
    usual, best = tried[0], max(tried, key=lambda way: fastest[way])
    cached = (
        len(data[:CACHED_BYTES])
        / 1e9
        / min(seconds(product, usual, data[:CACHED_BYTES], 1, CACHED_TIMES) for _ in range(args.rounds))
    )
    cells = [product.quant, isa, "sums" if product.summed else "rows", str(threads), f"{cached:.0f}"]
    cells += [
        f"{fastest[usual]:.1f}",
        f"{shares[usual]:.2f}",
        str(best),
        f"{shares[best]:.2f}",
        f"{shares[best] / shares[usual]:.2f}",
    ]
    if args.all_ways:
        cells += [f"{shares[way]:.2f}" for way in tried]
    return "| " + " | ".join(cells) + " |"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quants", nargs="+", default=TYPES, choices=TYPES)
    parser.add_argument("--isa", nargs="+", default=[isa for isa in kernels.isas() if isa != "scalar"])
    parser.add_argument("--kinds", nargs="+", default=["rows", "sums"], choices=["rows", "sums"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--all-ways", action="store_true", help="the share of each way, in the order they are tried")
    args = parser.parse_args(arguments)
    data = ways.filled_memory()
    columns = ["type", "set", "kind", "threads", "in cache", "usual GB/s", "share", "best way", "share", "gain"]
    print(f"{machine()}\n")
    for isa in args.isa:
        more = [str(way) for way in ways.candidates(isa)] if args.all_ways else []
        print("| " + " | ".join([*columns, *more]) + " |\n|" + "---|" * (len(columns) + len(more)), flush=True)
        for threads in args.threads:
            for quant in args.quants:
                for kind in args.kinds:
                    print(line(Product(quant, kind == "sums"), isa, data, threads, args), flush=True)


if __name__ == "__main__":
    main()
