#!/usr/bin/env python3
"""Prints what each type of weights loses, and what each engine's arithmetic adds to that: a table of docs/types.md.

    tools/type_quality.py              every type, in half an hour; needs the default model and `make oracles`
    tools/type_quality.py --types IQ3_S Q3_K --write

The files are the default model requantised (tests/helpers/requantized.py), and are kept in --folder for the next run.
Ends with status 1 when an engine's bar is missed: KL no worse than llama.cpp's, as in tools/quality.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from swarm.kernels.quants import QUANTS, quant_by_name
from swarm.store.naming import resolve
from tests.helpers.quality import (
    Quality,
    llama_logits,
    log_softmax,
    quality,
    swarm_logits,
    text_ids,
)
from tests.helpers.requantized import importances, widened, write_requantized
from tools.pages import put_table

# Most bits first.
TYPES = sorted((q for q in QUANTS.values() if q.block_cols > 1), key=lambda q: -q.block_bytes / q.block_cols)
COLUMNS = (
    "| type | bits | perplexity | KL of the type | largest | KL that Swarm adds | llama.cpp adds | ratio | bar |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "types.md"
FOLDER = Path(tempfile.gettempdir()) / "swarm-types"
LEARNT = 256  # tokens from which importances come, behind those that are judged


def main() -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", default=[q.name for q in TYPES], choices=[q.name for q in TYPES])
    parser.add_argument("--tokens", type=int, default=512, help="of the text (default 512)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"for the files (default {FOLDER})")
    parser.add_argument("--write", action="store_true", help="also put the table into docs/types.md")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    ids = text_ids(resolve(None), args.tokens + LEARNT)
    original = file_of("F32", ids[args.tokens :], args.folder)
    ids = ids[: args.tokens]
    true = log_softmax(np.concatenate(list(swarm_logits(original, ids, "f32", args.threads))))
    lines = [COLUMNS, f"| `F32` | 32 | {perplexity(true, ids):.2f} | | | | | | |"]
    print("\n".join(lines), flush=True)
    for name in args.types:
        path = file_of(name, [], args.folder)
        lines.append(row(name, path, ids, true, args.threads))
        print(lines[-1], flush=True)
    if args.write:
        put_table(PAGE, "quality", "\n".join(lines))
    return 1 if any("MISSED" in line for line in lines) else 0


def file_of(quant: str, learnt: list[int], folder: Path) -> Path:
    """The model in this type; the one in floats is made first, and keeps what its columns count beside it."""
    path, beside = folder / f"{quant}.gguf", folder / "importances.npz"
    if path.exists():
        return path
    metadata, tensors = widened(resolve(None))
    important = dict(np.load(beside)) if quant != "F32" else {}
    partial = write_requantized(path.with_suffix(".partial"), quant, metadata, tensors, important)
    if quant == "F32":
        np.savez(beside, **importances(partial, learnt))
    return partial.rename(path)


def row(name: str, path: Path, ids: list[int], true: np.ndarray, threads: int) -> str:
    """One line: the type beside the floats, and both engines beside the type's own floats."""
    reference = log_softmax(np.concatenate(list(swarm_logits(path, ids, "f32", threads, exact=True))))
    lost = (np.exp(true) * (true - reference)).sum(axis=1)
    with tempfile.TemporaryDirectory() as folder:
        theirs = quality("llama.cpp", reference, ids, llama_logits(path, ids, "f16", threads, Path(folder)))
    ours = quality("swarm", reference, ids, swarm_logits(path, ids, "f16", threads))
    bits = 8 * quant_by_name(name).block_bytes / quant_by_name(name).block_cols
    ratio = ours.kl.mean() / theirs.kl.mean()
    verdict = "met" if ours.no_worse_than(theirs) else "MISSED"
    loss = f"{perplexity(reference, ids):.2f} | {lost.mean():.4f} | {lost.max():.2f}"
    return f"| `{name}` | {bits:g} | {loss} | {added(ours)} | {added(theirs)} | {ratio:.2f} | {verdict} |"


def added(engine: Quality) -> str:
    """A mean KL with its standard error."""
    return f"{engine.kl.mean():.1e} ± {engine.kl.std() * len(engine.kl) ** -0.5:.0e}"


def perplexity(logs: np.ndarray, ids: list[int]) -> float:
    """Of ids, by their log-probabilities."""
    return float(np.exp(-logs[np.arange(len(ids) - 1), ids[1:]].mean()))


if __name__ == "__main__":
    sys.exit(main())
