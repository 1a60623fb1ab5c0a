#!/usr/bin/env python3
"""A whole model on our engine: tok/s by threads and instruction set, or what a decode step spends its time on.

    tools/bench/engine.py glm4-9b:Q4_0 smollm2 --threads 1 2 --isa avx2 scalar
    tools/bench/engine.py glm4-9b:Q4_0 --profile --at 2048

Decode: tokens one at a time after `--at` positions, with its share of the read bandwidth measured in the same round.
--profile samples decode steps with Linux' perf; a name of a symbol tells what belongs to what.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "bench")]

from compare import Swarm, bytes_per_token, machine, resolve  # noqa: E402

from swarm import kernels  # noqa: E402

PARTS = {  # of a step, by the names of symbols in the compiled engine
    "matrix products": r"matmul|quant32|quantize|gate_up",
    "attention": r"attend|micro_|op_merge|op_softmax|block_keys|kv_store|op_hadamard|sw_attention",
    "norms, rope, activation, sums": r"rmsnorm|fold_norm|op_|row_any|finish_head|sw_ffn|sw_embed|sw_lm_head|dequant",
    "routing": r"sw_choose_experts|group_pairs|need_experts",
    "waiting for the other threads": r"sw_join|next_phase|gomp|futex|omp_",
}


class Model(Swarm):
    """A model, its cache, and seeded noise to feed it."""

    rng = np.random.default_rng(1)

    def ids(self, n: int) -> list[int]:
        return self.rng.integers(0, self.n_vocab, n).tolist()

    def prefill(self, n: int) -> float:
        """Tok/s of one batch from an empty cache."""
        ids = self.ids(n)
        self.clear()
        start = time.perf_counter()
        self.eval(ids)
        return n / (time.perf_counter() - start)

    def decode(self, n: int, at: int) -> float:
        """Tok/s of n tokens after `at` positions that are in the cache."""
        ids = self.ids(n)
        self.keep(at)
        start = time.perf_counter()
        for token in ids:
            self.eval([token])
        return n / (time.perf_counter() - start)


def rates(name: str, path: str, threads: int, isa: str, args: argparse.Namespace) -> str:
    """One row of the table."""
    model = Model(path, threads, max(args.at, 512) + args.tokens, isa=isa)
    active = bytes_per_token(path)
    long, short, decode, share = [], [], [], []
    for _ in range(args.rounds):
        long.append(model.prefill(512))
        short.append(model.prefill(64))
        model.prefill(args.at)
        decode.append(model.decode(args.tokens, args.at))
        share.append(decode[-1] * active / kernels.read_bandwidth(threads, 0.3))
    cells = [name, isa, str(threads), f"{statistics.median(decode):.1f}", f"{statistics.median(share):.2f}"]
    cells += [f"{statistics.median(long):.1f}", f"{statistics.median(short):.1f}"]
    return "| " + " | ".join(cells) + " |"


def profile(name: str, path: str, threads: int, isa: str, args: argparse.Namespace) -> str:
    """One row: the share of each part in the samples of all threads."""
    model = Model(path, threads, args.at + args.tokens, isa=isa)
    model.prefill(args.at)
    model.decode(args.tokens, args.at)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "perf.data")
        command = ["perf", "record", "-q", "-F", "997", "-p", str(os.getpid()), "-o", file]
        perf = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        until = time.monotonic() + args.seconds
        while time.monotonic() < until:
            model.decode(args.tokens, args.at)
        perf.send_signal(signal.SIGINT)
        perf.wait()
        report = ["perf", "report", "-i", file, "--stdio", "-F", "overhead,sym", "--percent-limit", "0"]
        text = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    shares = parts_of(text)
    cells = [f"{100 * shares[part]:.1f} %" for part in (*PARTS, "Python and the rest")]
    return f"| {name} | {isa} | {threads} | {args.at} | " + " | ".join(cells) + " |"


def parts_of(report: str) -> dict[str, float]:
    """Shares by part, from perf's lines `12.34%  [.] symbol`."""
    shares: dict[str, float] = defaultdict(float)
    for percent, symbol in re.findall(r"^\s*([\d.]+)%\s+\[.\]\s+(\S+)", report, re.MULTILINE):
        part = next((part for part, names in PARTS.items() if re.search(names, symbol)), "Python and the rest")
        shares[part] += float(percent) / 100
    return shares


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="NAME:MIX of shapes.py, smollm2, or a file")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--isa", nargs="+", default=[kernels.isa()])
    parser.add_argument("--at", type=int, default=64, help="positions in the cache when decode starts")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--seconds", type=float, default=8.0, help="to sample")
    parser.add_argument("--models-dir", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    args = parser.parse_args(arguments)
    if args.profile and shutil.which("perf") is None:
        raise SystemExit("--profile needs perf (Debian: linux-perf)")
    head = ["model", "ISA", "threads"]
    if args.profile:
        head += ["at", *PARTS, "Python and the rest"]
    else:
        head += ["decode tok/s", "share of bandwidth", "prefill 512", "prefill 64"]
    print(f"{machine()}\n\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name in args.models:
        path = resolve(name, args.models_dir)
        for isa in args.isa:
            for threads in args.threads:
                print((profile if args.profile else rates)(name, path, threads, isa, args), flush=True)


if __name__ == "__main__":
    main()
