#!/usr/bin/env python3
"""What guessing with a model's own block costs: random weights in the shape of GLM-4.5-Air, so nothing is ever right.

    python tools/bench/mtp.py [--layers 2] [--mix Q4_K_M] [--threads 1] [--steps 30]

Milliseconds (of CPU time, where one thread computes; medians, in turns): a step over one token and over two, and a word
of the block. Then what a token would take in the whole model at some shares of right words: layers cost as these do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "bench")]

from shapes import SHAPES, cut, write_model  # noqa: E402

from swarm.engine.decoder import Decoder  # noqa: E402
from swarm.engine.mtp import MtpBlock, MtpDecoder  # noqa: E402
from swarm.engine.weights import load_weights  # noqa: E402
from swarm.kernels import _native  # noqa: E402
from swarm.models.registry import mtp_from_gguf, spec_from_gguf  # noqa: E402
from swarm.models.spec import OUTSIDE_LAYERS, Role  # noqa: E402
from swarm.parts import all_parts  # noqa: E402
from swarm.store.gguf import open_gguf  # noqa: E402

CONTEXT = 256
PROMPT = 64
RIGHT = (0.5, 0.7, 0.85, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--mix", default="Q4_K_M")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    shape = cut(SHAPES["glm4.5-air-mtp"], args.layers)
    path = write_model(args.out / f"glm4.5-air-mtp@{args.layers}-{args.mix}.gguf", shape, args.mix)
    guessing, head = loaded(path, args.threads)
    took = measured(guessing, head, args.steps, args.threads)
    print(f"{args.threads} threads, {args.mix}, {args.layers} of {shape.real_layers} layers")
    one, two, word = took["one"], took["two"], took["word"]
    print(f"one token {one:.1f} ms, two {two:.1f} ms ({two / one:.2f}), a word of the block {word:.1f} ms")
    scale = shape.real_layers / args.layers  # of the head, too: it was cut with the layers
    word += took["head"] * (scale - 1)
    print(f"all layers: one token {one * scale:.0f} ms, two {two * scale:.0f} ms, a word {word:.1f} ms")
    for right in RIGHT:
        print(f"  {right:.0%} right: {(1 + right) * one * scale / (two * scale + word):.2f} times as fast")


def loaded(path: Path, threads: int) -> tuple[MtpDecoder, _native.Mat]:
    """The model with its block, and its head."""
    with open_gguf(path) as gguf:
        spec, mtp = spec_from_gguf(gguf.metadata, gguf.tensors), mtp_from_gguf(gguf.metadata, gguf.tensors)
        assert mtp is not None
        weights = load_weights(gguf, spec, all_parts(spec.n_layers), threads=2)
        decoder = Decoder(spec, weights, context=CONTEXT, threads=threads)
        return MtpDecoder(decoder, MtpBlock.of_file(mtp, gguf, decoder)), weights.matrices[OUTSIDE_LAYERS, Role.LM_HEAD]


def measured(guessing: MtpDecoder, head: _native.Mat, n_steps: int, threads: int) -> dict[str, float]:
    """Milliseconds of each kind of work."""
    rng, kv = np.random.default_rng(1), guessing.new_kv(CONTEXT)
    vocab, hidden = head.shape
    guessing.forward(rng.integers(0, vocab, PROMPT, dtype=np.int32), kv)
    clock = time.process_time if threads == 1 else time.perf_counter
    took: dict[str, list[float]] = {}

    def timed(what: str, call: Callable[[], object]) -> None:
        started = clock()
        call()
        took.setdefault(what, []).append(1000 * (clock() - started))

    for _ in range(n_steps):
        one, two = (rng.integers(0, vocab, n, dtype=np.int32) for n in (1, 2))
        ids = [*kv.ids, int(one[0])]
        timed("word", lambda ids=ids: guessing.propose(ids, lambda logits, ids: 0, kv))  # type: ignore[misc]
        timed("one", lambda one=one: guessing.forward(one, kv))  # type: ignore[misc]
        kv.truncate(PROMPT)
        timed("two", lambda two=two: guessing.forward_all(two, kv))  # type: ignore[misc]
        kv.truncate(PROMPT)
        timed("head", lambda: _native.matmul(head, np.ones((1, hidden), np.float32), "", threads))
    return {what: statistics.median(times) for what, times in took.items()}


if __name__ == "__main__":
    main()
