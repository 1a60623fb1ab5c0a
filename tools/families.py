#!/usr/bin/env python3
"""Prints how far the engine's logits are from those of transformers, for every model family and three quants.

The checkpoints are small and random; the files are made and thrown away. Needs `make oracles`.
Ends with status 1 when a row is out of bounds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.helpers.families import F32_BOUND, MIXES, N_TOKENS, Row, measure
from tests.helpers.tiny import TINY

HEADER = (
    f"| checkpoint | arch | quant | max \\|Δlogit\\| / max \\|logit\\| | median over {N_TOKENS} positions | "
    "same best token | widest flip | max with float32 KV | same sums | same rounding | same bits |"
)


def main() -> int:
    """Print the table; 1 when a row is out of bounds."""
    print(HEADER)
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in TINY:
            for mix in MIXES:
                rows.append(measure(name, mix, Path(folder)))
                print(line(rows[-1]), flush=True)
    print(EXPLANATION)
    return 0 if all(row.within_bounds for row in rows) else 1


def line(row: Row) -> str:
    """One row as Markdown."""
    mark = "" if row.within_bounds else " OUT OF BOUNDS"
    return (
        f"| {row.name} | {TINY[row.name].arch} | {row.mix} | {row.worst:.1e} | {row.typical:.1e} | "
        f"{row.same_argmax} of {N_TOKENS} | {row.widest_flip:.1e} | {row.float_kv:.1e} | {row.same_sums:.1e} | "
        f"{row.same_rounding:.1e} | {'yes' if row.same_bits else 'NO'} |{mark}"
    )


EXPLANATION = f"""
F32 must stay within {F32_BOUND:g} with the same best token everywhere; what remains is the KV cache's half floats and
the grid of the exact sums (csrc/README.md). "Same sums" is the difference from NumPy that has this grid, with float32
keys and values, of short sequences: it must be a hundred times less. With quantised weights (transformers gets the
dequantised ones) activations are rounded to int8, which in a random network costs some per cent, and tips routers at
near ties (the larger maxima of mixtures). "Same rounding" is the difference from NumPy that rounds as the engine does,
of short sequences. "Widest flip" is what transformers gives away, of the largest logit, by taking the engine's best
token. "Same bits": one prefill, token by token, mixed chunks, one and two threads, and every instruction set of this
machine give the very same logits."""


if __name__ == "__main__":
    sys.exit(main())
