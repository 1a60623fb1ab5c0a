#!/usr/bin/env python3
"""Swarm beside llama-cpp-python on the same file: alternating runs, medians, ratios.

    tools/bench/compare.py glm4-9b:Q4_0 qwen3-0.6b:Q4_0 smollm2 --threads 1 2
    tools/bench/compare.py --all --out results.md

Each engine is a process of its own that holds the model; the parent lets them take turns, so that what else the
machine does hits both alike. Decode is one token at a time after a prompt; prefill is one batch from an empty cache.
Neither samples. NAME:MIX is a random model in a real shape (shapes.py); `smollm2` is the default model; else a path.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

MODELS = (
    "glm4-9b:Q4_0", "glm4-9b:Q4_K_M", "glm4-9b:Q8_0", "glm4.5-air:Q4_0", "glm4.5-air:Q4_K_M",
    "qwen3-30b-a3b:Q4_0", "qwen3-30b-a3b:Q4_K_M", "qwen3-0.6b:Q4_0", "smollm2",
)  # fmt: skip
PROMPT = 64  # tokens in the cache when decode starts
CONTEXT = 1024


class Swarm:
    """Our engine."""

    def __init__(self, path: str, threads: int, context: int = CONTEXT, kv: str = "f16", isa: str = "") -> None:
        from swarm import config, kernels
        from swarm.engine.decoder import Decoder
        from swarm.engine.ways import kept
        from swarm.engine.weights import load_weights
        from swarm.models import spec_from_gguf
        from swarm.parts import all_parts
        from swarm.store.gguf import open_gguf

        with open_gguf(path) as model:
            self.spec = spec_from_gguf(model.metadata, model.tensors)
            weights = load_weights(model, self.spec, all_parts(self.spec.n_layers), threads=threads)
        isa = kernels.isa(isa or os.environ.get("SWARM_CPU", ""))
        found = kept(config.load().home_path, isa, threads)  # by `swarm doctor`, say
        self.decoder = Decoder(self.spec, weights, context=context, threads=threads, isa=isa, kv=kv, ways=found)
        self.n_vocab = self.spec.vocab
        self.kv = self.decoder.new_kv()

    def clear(self) -> None:
        self.keep(0)

    def keep(self, n: int) -> None:
        """Only the first n positions."""
        self.kv.truncate(n)

    def eval(self, ids: list[int]) -> None:
        self.decoder.forward(ids, self.kv)


class Llama:
    """llama-cpp-python, as pip builds it."""

    def __init__(self, path: str, threads: int) -> None:
        import llama_cpp

        self.model = llama_cpp.Llama(
            path, n_ctx=CONTEXT, n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.n_vocab = self.model.n_vocab()

    def clear(self) -> None:
        self.model.reset()

    def eval(self, ids: list[int]) -> None:
        self.model.eval(ids)


ENGINES = {"swarm": Swarm, "llama": Llama}


def work(engine: str, path: str, threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
    """A worker: one JSON line per measurement, as the parent asks; the clock may be the process's own time."""
    model = ENGINES[engine](path, threads)
    rng = np.random.default_rng(1)

    def answer(kind: str, n: int) -> float:
        ids = rng.integers(10, model.n_vocab, n).tolist()
        model.clear()
        if kind == "decode":
            model.eval(ids[:1] * PROMPT)
        start = clock()
        if kind == "decode":
            for token in ids:
                model.eval([token])
        else:
            model.eval(ids)
        return n / (clock() - start)

    answer_questions(answer)


def answer_questions(answer: Callable[[str, int], float]) -> None:
    """Say that we are ready, then the rate of every measurement that the parent asks for."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        kind, n = line.split()
        print(json.dumps({"rate": answer(kind, int(n))}), flush=True)


@dataclass
class Worker:
    """A worker process: `script --work ENGINE PATH THREADS ...`."""

    engine: str
    path: str
    threads: int
    script: str = __file__
    more: tuple[str, ...] = ()
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        work = [self.engine, self.path, str(self.threads), *self.more]
        command = [sys.executable, "-W", "ignore", self.script, "--work", *work]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.engine} died on {self.path}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def measure(self, kind: str, n: int) -> float:
        assert self.process.stdin
        self.process.stdin.write(f"{kind} {n}\n")
        self.process.stdin.flush()
        return float(self.answer()["rate"])

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


CASES = (("decode", 24), ("prefill", 512), ("prefill", 64))


def compare(name: str, path: str, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Medians of each case for both engines, and of a decode step's share of the read bandwidth in the same turn."""
    from swarm import kernels

    active = bytes_per_token(path)
    workers = [Worker(engine, path, threads) for engine in ENGINES]
    rows = []
    for kind, n in CASES:
        rates: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        shares = []
        for round_ in range(rounds + 1):
            for worker in workers:
                rate = worker.measure(kind, n)
                if round_:  # the first turn warms up
                    rates[worker.engine].append(rate)
            if round_ and kind == "decode":
                bandwidth = kernels.read_bandwidth(threads, 0.3)
                shares.append([bandwidth / 1e9, *(active * rates[e][-1] / bandwidth for e in ENGINES)])
        medians = {engine: statistics.median(values) for engine, values in rates.items()}
        case = f"{kind} {n}" if kind == "prefill" else kind
        share = [statistics.median(column) for column in zip(*shares, strict=True)]
        rows.append({"model": name, "threads": threads, "case": case, "share": share, **medians})
    for worker in workers:
        worker.stop()
    return rows


def bytes_per_token(path: str) -> int:
    """Packed bytes that a decode step reads: what is active of the layers, and the head."""
    from swarm.models import spec_from_gguf
    from swarm.models.sizes import model_sizes
    from swarm.store.gguf import open_gguf

    with open_gguf(path) as model:
        return model_sizes(spec_from_gguf(model.metadata, model.tensors), model.tensors).active_per_token


def machine() -> str:
    """One line about where this ran."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in info if line.startswith(("model name", "CPU part"))]
    from swarm import kernels

    isa = os.environ.get("SWARM_CPU") or kernels.isa()
    return f"{platform.machine()} {names[0] if names else ''}, {kernels.threads()} cores, kernels {isa}"


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        f"Machine: {machine()}. tok/s, medians of alternating runs. Shares are of the read bandwidth (GB/s) that was "
        "measured in every turn with the same threads.",
        "",
        "| model | threads | case | llama.cpp | swarm | ratio | bandwidth | llama.cpp's share | swarm's share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        bandwidth, ours, llama = (
            (f"{x:.{digits}f}" for x, digits in zip(r["share"], (1, 2, 2), strict=True)) if r["share"] else ("", "", "")
        )
        speeds = f"{r['llama']:.1f} | {r['swarm']:.1f} | {r['swarm'] / r['llama']:.2f}"
        lines.append(f"| {r['model']} | {r['threads']} | {r['case']} | {speeds} | {bandwidth} | {llama} | {ours} |")
    return "\n".join(lines) + "\n"


def resolve(name: str, directory: Path) -> str:
    if name == "smollm2":
        from swarm.store import naming

        return str(naming.resolve(None))
    if ":" in name:
        from shapes import model_file

        return str(model_file(name, directory))
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--all", action="store_true", help="the models of the table in METHODOLOGY.md")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models-dir", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    parser.add_argument("--delete", action="store_true", help="delete each random model after its turn")
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work[0], args.work[1], int(args.work[2]))
        return
    rows: list[dict[str, Any]] = []
    for name in MODELS if args.all else args.models:
        path = resolve(name, args.models_dir)
        for threads in args.threads:
            rows += compare(name, path, threads, args.rounds)
        print(table(rows), flush=True)
        if args.delete and ":" in name:
            Path(path).unlink()
    if args.out:
        args.out.write_text(table(rows))


if __name__ == "__main__":
    main()
