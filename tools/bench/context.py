#!/usr/bin/env python3
"""Decode with a long context: swarm beside llama-cpp-python with 128, 4k, 8k and 16k positions in the cache.

    tools/bench/context.py llama3-8b@1:Q4_0 --threads 2
    tools/bench/context.py --all --out context.md      (half an hour)

Every engine is a process that fills its cache once; then they take turns at decoding, at the longest context first, as
a shorter one is the longer one cut off. NAME@LAYERS:MIX are so many layers of a real shape with as much less
vocabulary, so that attention has the share it has in the whole model. (Prefill of so few layers says nothing: of the
last layer llama.cpp computes only what the last token needs.)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "bench")]

from compare import Swarm, Worker, answer_questions, machine, resolve  # noqa: E402

MODELS = ("llama3-8b@1:Q4_0", "glm4-9b@1:Q4_0", "smollm2")
POSITIONS = (128, 4096, 8192, 16384)
DECODE = 16  # tokens of one turn
ENGINES = ("swarm f16", "swarm q8_0", "llama f16", "llama f16 flash", "llama q8_0 flash")
PEERS = {"f16": ("llama f16", "llama f16 flash"), "q8_0": ("llama q8_0 flash",)}


class Llama:
    """llama-cpp-python, as pip builds it. It takes quantised values only with flash attention."""

    def __init__(self, path: str, threads: int, context: int, kv: str, flash: bool) -> None:
        import llama_cpp

        kind = {"f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0}[kv]
        self.model = llama_cpp.Llama(
            path,
            n_ctx=context,
            n_batch=512,
            n_ubatch=512,
            n_threads=threads,
            n_threads_batch=threads,
            type_k=kind,
            type_v=kind,
            flash_attn=flash,
            verbose=False,
        )

    def keep(self, n: int) -> None:
        """Only the first n positions; `eval` removes the others from the cache."""
        self.model.n_tokens = n

    def eval(self, ids: list[int]) -> None:
        """Append ids."""
        self.model.eval(ids)


def make_engine(name: str, path: str, threads: int, context: int) -> Swarm | Llama:
    """The engine that one of ENGINES names."""
    kind, kv, *flash = name.split()
    return Swarm(path, threads, context, kv) if kind == "swarm" else Llama(path, threads, context, kv, bool(flash))


def work(name: str, path: str, threads: int, n_vocab: int) -> None:
    """A worker: `fill N` computes N positions, `at N` decodes after the first N of them."""
    engine = make_engine(name, path, threads, max(POSITIONS) + 2 * DECODE)
    ids = np.random.default_rng(1).integers(10, n_vocab, max(POSITIONS)).tolist()

    def answer(kind: str, n: int) -> float:
        if kind == "fill":
            start = time.perf_counter()
            engine.eval(ids[:n])
            return n / (time.perf_counter() - start)
        engine.keep(n)
        engine.eval(ids[:1])
        start = time.perf_counter()
        for token in ids[1 : DECODE + 1]:
            engine.eval([token])
        return DECODE / (time.perf_counter() - start)

    answer_questions(answer)


def measure(model: str, path: str, threads: int, positions: list[int], rounds: int) -> list[dict[str, Any]]:
    """Medians of every engine after each number of positions."""
    n_vocab = str(vocabulary(path))
    workers = [Worker(name, path, threads, __file__, (n_vocab,)) for name in ENGINES]
    row: dict[str, Any] = {"model": model, "threads": threads}
    rows = []
    for worker in workers:
        worker.measure("fill", max(positions))
    for n in sorted(positions, reverse=True):
        rates: dict[str, list[float]] = {name: [] for name in ENGINES}
        for _ in range(rounds):
            for worker in workers:
                rates[worker.engine].append(worker.measure("at", n))
        rows.append(row | {"positions": n} | {name: statistics.median(r) for name, r in rates.items()})
    for worker in workers:
        worker.stop()
    return rows[::-1]


def vocabulary(path: str) -> int:
    """How many ids the model knows."""
    from swarm.models import spec_from_gguf
    from swarm.store.gguf import open_gguf

    with open_gguf(path) as model:
        return spec_from_gguf(model.metadata, model.tensors).vocab


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown; ratios are to the faster of the peers that keep the same type."""
    lines = [
        f"Machine: {machine()}. Decode in tok/s: medians of alternating runs of {DECODE} tokens.",
        "",
        f"| model | threads | positions | {' | '.join(ENGINES)} | ratio f16 | ratio q8_0 |",
        "|---|---|---|" + "---|" * (len(ENGINES) + 2),
    ]
    for r in rows:
        ratios = [f"{r[f'swarm {kv}'] / max(r[peer] for peer in peers):.2f}" for kv, peers in PEERS.items()]
        rates = [f"{r[name]:.1f}" for name in ENGINES]
        lines.append(f"| {r['model']} | {r['threads']} | {r['positions']} | {' | '.join(rates + ratios)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--all", action="store_true", help=", ".join(MODELS))
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--positions", type=int, nargs="+", default=list(POSITIONS), help="at most 16384")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models-dir", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work[0], args.work[1], int(args.work[2]), int(args.work[3]))
        return
    rows: list[dict[str, Any]] = []
    for name in MODELS if args.all else args.models:
        path = resolve(name, args.models_dir)
        for threads in args.threads:
            rows += measure(name, path, threads, args.positions, args.rounds)
            print(table(rows), flush=True)
    if args.out:
        args.out.write_text(table(rows))


if __name__ == "__main__":
    main()
