#!/usr/bin/env python3
"""Our own speed, without a peer: `kernels` is one matrix product, `engine` a whole model.

    tools/bench/run.py kernels --quants Q4_0 Q4_K --isa avx2 scalar --shapes ffn_down --threads 1
    tools/bench/run.py engine glm4-9b:Q4_0 smollm2 --threads 1 2
    tools/bench/run.py engine glm4-9b:Q4_0 --profile

Each has --help. compare.py is the one that runs beside llama.cpp.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "bench")]

import engine  # noqa: E402
import kernels  # noqa: E402

CASES = {"kernels": kernels.main, "engine": engine.main}


def main() -> None:
    """Run one kind of cases."""
    if sys.argv[1:2] == ["--help"]:
        print(__doc__)
        return
    if len(sys.argv) < 2 or sys.argv[1] not in CASES:
        raise SystemExit(__doc__)
    CASES[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    main()
