#!/usr/bin/env python3
"""Prints what quantised arithmetic costs in quality, beside llama-cpp-python on the same files and ids.

    tools/quality.py                      the tables, in about ten minutes; needs the default model and `make oracles`
    tools/quality.py --out docs/quality.md

Ends with status 1 when a bar is missed: perplexity within 0.5 % of llama.cpp's, KL no worse.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from swarm.store.naming import resolve
from tests.helpers.quality import GLM, LLAMA, NoLlama, Quality, glm_model, measure, random_ids, text_ids
from tools.upcycle import upcycle

KVS = ("f16", "q8_0")
RIVALS = {"swarm f16": "llama.cpp f16", "swarm q8_0": "llama.cpp q8_0 flash"}
PERPLEXITY_BAR = 0.005

HEADER = """\
# What quantised arithmetic costs

Weights in a file are quantised; this page is about what running them adds to that. Both engines round activations to
int8 before they multiply, and keep keys and values as half floats or int8. So both differ a little from the same file's
model computed in float32 ("dequantised"). How much, on the same file and the same ids:

- **KL**: the divergence of the engine's next-token distribution from the dequantised model's, in nats, mean over all
  tokens with its standard error, and the largest. The bar: no worse than llama.cpp's; two engines whose means are
  closer than two standard errors of the difference are called equal.
- **Perplexity** of the first {tokens:,} tokens of a novel. The bar: within 0.5 % of llama.cpp's.

Swarm rounds activations with one float scale for each 32 columns, for all weights. llama.cpp does so (with half-float
scales) for Q4_0 to Q8_0, but for K-quants it has one scale for 256 columns: there Swarm loses about half as much.
Both turn keys and values by a Hadamard transform before they make int8 of them.

Made by `tools/quality.py --out docs/quality.md` with llama-cpp-python 0.3.36; the random GLM models are described in
`tests/helpers/quality.py`, and their text is {random_tokens} random ids.
"""
COLUMNS = "| model | engine and KV cache | perplexity | mean KL | largest KL | bar |\n|---|---|---|---|---|---|"


def main() -> int:
    """Print the tables; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="of the text (default 2048)")
    parser.add_argument("--random-tokens", type=int, default=512, help="for random models (default 512)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the page here")
    args = parser.parse_args()
    lines = [HEADER.format(tokens=args.tokens, random_tokens=args.random_tokens), COLUMNS]
    print(COLUMNS)
    with tempfile.TemporaryDirectory() as name:
        for model, path, ids in models(Path(name), args.tokens, args.random_tokens):
            try:
                rows = measure(path, ids, Path(name), kvs=KVS, peers=tuple(LLAMA), threads=args.threads)
            except NoLlama as error:
                raise SystemExit(str(error)) from error
            lines += list(table(model, rows, real=model not in MIXED))
            print("\n".join(lines[-len(rows) :]), flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")
    return 1 if any("MISSED" in line for line in lines) else 0


MIXED = [f"random {name}, {mix}" for name in GLM for mix in ("Q4_0", "Q4_K_M")]


def models(folder: Path, tokens: int, random_tokens: int) -> Iterator[tuple[str, Path, list[int]]]:
    """Name, file and ids of every model of the table."""
    dense = resolve(None)
    ids = text_ids(dense, tokens)
    yield "SmolLM2-135M, Q4_1", dense, ids
    upcycle(dense, folder / "mixture.gguf", copies=2)
    yield "the same as glm4moe", folder / "mixture.gguf", ids
    (folder / "mixture.gguf").unlink()
    for model in MIXED:
        name, mix = model.removeprefix("random ").split(", ")
        yield model, glm_model(name, mix, folder), random_ids(name, random_tokens)


def table(model: str, rows: list[Quality], *, real: bool) -> Iterator[str]:
    """Lines of Markdown: one for each engine."""
    by_name = {row.engine: row for row in rows}
    for row in rows:
        rival = by_name.get(RIVALS.get(row.engine, ""))
        error = row.kl.std() * len(row.kl) ** -0.5
        perplexity = f"{row.perplexity:.3f}" if real else ""
        yield (
            f"| {model} | {row.engine} | {perplexity} | {row.kl.mean():.2e} ± {error:.0e} | {row.kl.max():.2e} | "
            f"{verdict(row, rival, real=real) if rival else ''} |"
        )


def verdict(row: Quality, rival: Quality, *, real: bool) -> str:
    """Whether the bars are met, and by how much."""
    change = row.perplexity / rival.perplexity - 1
    met = row.no_worse_than(rival) and (abs(change) <= PERPLEXITY_BAR or not real)
    figures = f"KL × {row.kl.mean() / rival.kl.mean():.2f}" + (f", perplexity {change:+.2%}" if real else "")
    return f"{'met' if met else 'MISSED'}: {figures}"


if __name__ == "__main__":
    sys.exit(main())
