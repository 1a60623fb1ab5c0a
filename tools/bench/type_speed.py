#!/usr/bin/env python3
"""How fast each type of weights is: two tables of docs/types.md.

    tools/bench/type_speed.py shares             GB/s of one product and its share of the read bandwidth, every type
    tools/bench/type_speed.py decode             tokens a second beside llama.cpp, IQ4 and types of less than four bits
    tools/bench/type_speed.py shares --write     also put it into docs/types.md

shares: as tools/bench/ways.py has it, for AVX2 and AVX-512, each type in the way that is fastest here, which a device
finds out by itself; bits are of the packed form. In cache: what the instructions allow.
decode: two layers of an 8B Llama shape with random weights (shapes.py), engines in turns, medians.
Rates are of one thread's CPU time, which a busy machine disturbs least; with --wall and --threads, of the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/bench")]

import compare  # noqa: E402
from shapes import ONE_TYPE, model_file  # noqa: E402

from swarm import kernels  # noqa: E402
from swarm.engine import ways  # noqa: E402
from swarm.engine.ways import Way  # noqa: E402
from swarm.engine.weights import Memory  # noqa: E402
from swarm.kernels import _native  # noqa: E402
from swarm.kernels.quants import QUANTS, Quant, quant_by_name  # noqa: E402
from tools.pages import put_table  # noqa: E402

PAGE = ROOT / "docs" / "types.md"
BAR, BAR_BITS = 0.7, 3.0  # of the file; types of fewer are measured beside llama.cpp
MODEL = "llama3-8b@2"
DECODED = 12  # tokens a turn
CACHED_BYTES, CACHED_TRIES, LEAST_BYTES = 256 * 1024, 7, 16 * 1024 * 1024
ENGINES = (("swarm", "avx512vnni"), ("swarm", "avx2"), ("llama", ""))


def packed_bits(quant: Quant) -> float:
    """Bits of a weight in memory."""
    return 8 * quant.packed_block_bytes / quant.block_cols


def types_of(names: list[str] | None) -> list[Quant]:
    """The types with blocks, most bits first, or these."""
    quants = [quant_by_name(name) for name in names] if names else [q for q in QUANTS.values() if q.block_cols > 1]
    return sorted(quants, key=lambda quant: (-packed_bits(quant), quant.name))


def shares(args: argparse.Namespace) -> str:
    """The table of products."""
    isas = [isa for isa in args.isa if isa in kernels.isas()]
    threads = args.threads[-1] if args.wall else 1
    clock = "by the clock" if args.wall else "of CPU time"
    lines = [f"{compare.machine()}; {threads} thread{'s' * (threads > 1)}, {clock}."]
    lines[0] += "\n\n| type | bits | " + " | ".join(f"{isa}: GB/s | share | in cache" for isa in isas) + f" | {BAR} |"
    lines.append("|---" * (3 * len(isas) + 3) + "|")
    print("\n".join(lines), flush=True)
    data = Memory(ways.PASS_BYTES).take(ways.PASS_BYTES)
    data.fill(ways.FILLING)
    for quant in types_of(args.types):
        lines.append(shares_row(quant, isas, data, threads, args))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def shares_row(quant: Quant, isas: list[str], data: ways.U8, threads: int, args: argparse.Namespace) -> str:
    found, texts = [], []
    for isa in isas:
        rate, share = best_way(quant, isa, data, threads, args)
        cached = min(
            seconds(quant, ways.candidates(isa)[0], data[:CACHED_BYTES], 1, False) for _ in range(CACHED_TRIES)
        )
        found.append(share)
        texts.append(f"{rate:.1f} | {share:.2f} | {CACHED_BYTES / 1e9 / cached:.0f}")
    bits = 8 * quant.block_bytes / quant.block_cols
    verdict = "" if bits < BAR_BITS else "met" if min(found) >= BAR else f"missed: {min(found):.2f}"
    return f"| `{quant.name}` | {packed_bits(quant):g} | {' | '.join(texts)} | {verdict} |"


def best_way(quant: Quant, isa: str, data: ways.U8, threads: int, args: argparse.Namespace) -> tuple[float, float]:
    """GB/s and share of the read bandwidth, in the way that such a device would choose (swarm/engine/ways.py)."""
    tried = ways.candidates(isa)
    taken: dict[Way | None, list[float]] = {way: [] for way in (None, *tried)}
    for _ in range(args.rounds):
        for way in (None, *tried):
            taken[way].append(seconds(quant, way, data, threads, args.wall))
    best = min(tried, key=lambda way: statistics.median(taken[way]))
    share = statistics.median(read / own for read, own in zip(taken[None], taken[best], strict=True))
    return len(data) / 1e9 / statistics.median(taken[best]), share


def seconds(quant: Quant, way: Way | None, data: ways.U8, threads: int, wall: bool) -> float:
    """Of one pass over the data: a product, or (no way) plain reading. CPU time counts waiting for memory alone."""
    clock = time.perf_counter if wall else time.thread_time
    times = max(1, LEAST_BYTES // len(data))
    start = clock()
    if way is None:
        _native.read_all(data, threads)
        return clock() - start
    _native.product_seconds(quant.id, False, *way, data, ways.COLUMNS, threads, times)
    return (clock() - start) / times


def decode(args: argparse.Namespace) -> str:
    """The table of whole steps beside llama.cpp."""
    head = " | ".join(f"swarm {isa}" for _, isa in ENGINES[:-1])
    threads, clock = (args.threads[-1], "by the clock") if args.wall else (1, "of CPU time")
    lines = [f"{compare.machine()}; {threads} thread{'s' * (threads > 1)}, tokens a second {clock}."]
    lines[0] += f"\n\n| type | {head} | llama.cpp | times as fast |"
    lines.append("|---" * (len(ENGINES) + 2) + "|")
    print("\n".join(lines), flush=True)
    for name in args.types or ONE_TYPE:
        path = str(model_file(f"{MODEL}:{name}", args.models_dir))
        rates = decode_rates(path, threads, args.rounds, args.wall)
        ratios = ", ".join(f"{rate / rates[-1]:.2f}" for rate in rates[:-1])
        lines.append(f"| `{name}` | {' | '.join(f'{rate:.1f}' for rate in rates)} | {ratios} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def decode_rates(path: str, threads: int, rounds: int, wall: bool) -> list[float]:
    """Median tokens a second of each engine."""
    clock = "wall" if wall else "cpu"
    workers = [compare.Worker(engine, path, threads, __file__, (isa, clock)) for engine, isa in ENGINES]
    turns = [[worker.measure("decode", DECODED) for worker in workers] for _ in range(rounds + 1)]
    for worker in workers:
        worker.stop()
    return [statistics.median(rates) for rates in zip(*turns[1:], strict=True)]  # the first turn warms up


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=["shares", "decode"], default="shares")
    parser.add_argument("--types", nargs="+", help="all when not given")
    parser.add_argument("--isa", nargs="+", default=["avx2", "avx512vnni"], help="of `shares`")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models-dir", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    parser.add_argument("--write", action="store_true", help="put the table into docs/types.md")
    parser.add_argument("--wall", action="store_true", help="by the clock, with --threads")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        engine, path, threads, os.environ["SWARM_CPU"], clock = args.work
        compare.work(engine, path, int(threads), time.process_time if clock == "cpu" else time.perf_counter)
        return
    table = shares(args) if args.table == "shares" else decode(args)
    if args.write:
        put_table(PAGE, args.table, table)


if __name__ == "__main__":
    main()
