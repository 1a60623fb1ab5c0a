#!/usr/bin/env python3
"""One matrix product: op x quant x instruction set x shape, beside the read bandwidth measured in the same run.

    tools/bench/kernels.py                               every type, the best instruction set, one and two threads
    tools/bench/kernels.py --quants Q4_0 Q4_K --isa avx2 scalar --shapes ffn_down --threads 1

decode: one token times 256 MiB of weights, GB/s and its share of the read bandwidth (medians; both take turns).
batch: --tokens tokens times 1024 rows, GOP/s of CPU time of one thread, which a busy machine disturbs least.
The kernels are compiled from csrc as the kernel tests compile them, and the types are the tests' cases.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from swarm.kernels import _native
from swarm.kernels.quants import quant_by_name
from tests.kernels import cases
from tests.kernels.build import Activations, Kernels, Mat, Sums, library

TOTAL_BYTES = 256 * 1024 * 1024
BATCH_ROWS = 1024


@dataclass(frozen=True)
class Shape:
    """A matrix of a real model; `summed`: its product ends as exact sums, as those of down projections do."""

    rows: int
    cols: int
    summed: bool = False


SHAPES = {  # of GLM-4.5-Air and GLM-4-9B, but for the last
    "attention": Shape(4096, 4096),
    "ffn_up": Shape(13696, 4096),
    "ffn_down": Shape(4096, 13824, summed=True),
    "expert_up": Shape(1408, 4096),
    "expert_down": Shape(4096, 1536, summed=True),
    "small": Shape(3072, 1024),  # of Qwen3-0.6B
}


class Case:
    """Copies of one matrix that fill TOTAL_BYTES, and activations."""

    def __init__(self, quant: str, shape: Shape, kernels: Kernels, tokens: int) -> None:
        lib, rng = library(), np.random.default_rng(1)
        self.kernels, self.type, self.summed = kernels, cases.TYPES[quant], shape.summed
        self.rows, block = shape.rows, max(32, cases.BLOCK[quant])
        cols = shape.cols // block * block
        row_bytes = quant_by_name(quant).packed_row_bytes(cols)
        sample = lib.pack(cases.TYPES[quant], cases.random_blocks(quant, 64, cols, rng), 64, cols).data
        self.panels = -(-shape.rows // 16)
        self.bytes = self.panels * 16 * row_bytes
        copies = max(1, TOTAL_BYTES // self.bytes)
        self.space = np.empty(copies * self.bytes + 64, np.uint8)
        data = self.space[-self.space.ctypes.data % 64 :][: copies * self.bytes]
        data[:] = np.resize(sample, data.shape)  # whole blocks: sums of other bytes are not near
        self.mats = [Mat(data.ctypes.data + i * self.bytes, self.type, shape.rows, cols, cols) for i in range(copies)]
        self.x: Activations = lib.activations(kernels, cases.random_activations(tokens, cols, rng))
        self.y = np.zeros((tokens, shape.rows), np.float32)  # or int32, of sums
        self.far, self.told = np.zeros(self.y.shape, np.int64), np.zeros(2, np.int32)
        self.factor = np.full(tokens, 1e-3, np.float32)
        self.group_cols = lib.lib.sw_group_cols(self.type, 64)
        self.ops = 2 * BATCH_ROWS * cols * tokens

    def multiply(self, mat: Mat, tokens: int, p0: int, p1: int) -> None:
        y = self.y.ctypes.data
        if not self.summed:
            self.kernels.matmul[self.type](mat, self.x.act, 0, tokens, p0, p1, y, self.rows)
            return
        wide = self.told.ctypes.data
        to = Sums(0, self.group_cols, self.factor.ctypes.data, 0, y, self.far.ctypes.data, self.rows, wide, wide + 4)
        self.kernels.sums[self.type](mat, self.x.act, 0, tokens, p0, p1, to)

    def decode(self, thread: int, threads: int) -> None:
        p0, p1 = (self.panels * t // threads for t in (thread, thread + 1))
        for mat in self.mats:
            self.multiply(mat, 1, p0, p1)

    def batch(self, tokens: int) -> float:
        """CPU seconds."""
        start = time.thread_time()
        panels = min(self.panels, BATCH_ROWS // 16)
        self.multiply(self.mats[0], tokens, 0, panels)
        return (time.thread_time() - start) * BATCH_ROWS / (16 * panels)


def decode_rates(case: Case, threads: int, rounds: int, pool: ThreadPoolExecutor) -> tuple[float, float]:
    """Median GB/s, and median of its ratios to the read bandwidth of the same round."""
    memory = np.ones(TOTAL_BYTES, np.uint8)
    rates, shares = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        _native.read_all(memory, threads)
        middle = time.perf_counter()
        list(pool.map(lambda t: case.decode(t, threads), range(threads)))
        rate = len(case.mats) * case.bytes / (time.perf_counter() - middle)
        rates.append(rate / 1e9)
        shares.append(rate / (len(memory) / (middle - start)))
    return statistics.median(rates), statistics.median(shares)


def row(quant: str, isa: str, name: str, args: argparse.Namespace, pool: ThreadPoolExecutor) -> str:
    kernels = library().kernels(isa)
    assert kernels is not None, f"this machine cannot run {isa}: {library().names()}"
    case = Case(quant, SHAPES[name], kernels, args.tokens)
    cells = [quant, isa, name]
    for threads in args.threads:
        rate, share = decode_rates(case, threads, args.rounds, pool)
        cells += [f"{rate:.1f}", f"{share:.2f}"]
    seconds = min(case.batch(args.tokens) for _ in range(3))
    return "| " + " | ".join([*cells, f"{case.ops / seconds / 1e9:.0f}"]) + " |"


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quants", nargs="+", default=[*cases.QUANTS, "F16"], choices=cases.NAMES)
    parser.add_argument("--isa", nargs="+", help="the best one when not given")
    parser.add_argument("--shapes", nargs="+", default=["ffn_up", "ffn_down"], choices=SHAPES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(arguments)
    columns = ["quant", "ISA", "shape"]
    for threads in args.threads:
        columns += [f"decode x{threads} GB/s", "share"]
    columns.append(f"batch {args.tokens} GOP/s")
    print(f"{cpu_name()}\n\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    with ThreadPoolExecutor(max(args.threads)) as pool:
        for isa in args.isa or library().names()[-1:]:
            for name in args.shapes:
                for quant in args.quants:
                    print(row(quant, isa, name, args, pool), flush=True)


if __name__ == "__main__":
    main()
