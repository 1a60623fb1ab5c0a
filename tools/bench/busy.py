#!/usr/bin/env python3
"""Decode with and without a busy neighbour: one process that never sleeps, on one of the cores.

    tools/bench/busy.py [MODEL.gguf] [--spin 0 2000 20000 300000]

A team of threads that waits at every step for a thread which the system has put aside collapses; the table shows what
is left of the speed, for several values of libgomp's spin count and beside llama-cpp-python.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from compare import Worker, resolve

BURN = [sys.executable, "-c", "while True: pass"]
ROUNDS = 5
TOKENS = 48


def rate(worker: Worker) -> float:
    worker.measure("decode", 8)
    return statistics.median(worker.measure("decode", TOKENS) for _ in range(ROUNDS))


def row(engine: str, path: str, threads: int, spin: str) -> str:
    if spin:
        os.environ["GOMP_SPINCOUNT"] = spin
    worker = Worker(engine, path, threads)
    try:
        alone = rate(worker)
        neighbour = subprocess.Popen(BURN)
        try:
            beside = rate(worker)
        finally:
            neighbour.kill()
            neighbour.wait()
    finally:
        worker.stop()
        os.environ.pop("GOMP_SPINCOUNT", None)
    return f"| {engine} | {threads} | {spin or 'default'} | {alone:.1f} | {beside:.1f} | {beside / alone:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--spin", nargs="*", default=["0", "20000", "300000"])
    parser.add_argument("--models-dir", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    args = parser.parse_args()
    path = resolve(args.model, args.models_dir)
    print("| engine | threads | GOMP_SPINCOUNT | tok/s alone | beside a busy process | left |")
    print("|---|---|---|---|---|---|")
    for threads in (1, 2):
        for spin in ["", *args.spin] if threads > 1 else [""]:
            print(row("swarm", path, threads, spin), flush=True)
        print(row("llama", path, threads, ""), flush=True)


if __name__ == "__main__":
    main()
