#!/usr/bin/env python3
"""Damages what comes from outside, at random: files, messages, requests, texts, templates. Swarm must hold.

tools/fuzz.py --seconds 240              every target, for a minute each or so; exit code 1 when something failed
tools/fuzz.py --only gguf --seed 4711    one case again, with its traceback
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.fuzz import TARGETS, Failed, play

SHOWN = 10  # failures of a target; then the next one has its turn


def main() -> int:
    """Parse the command line and run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="for all targets together; default 60")
    parser.add_argument("--only", choices=TARGETS, help="this target alone")
    parser.add_argument("--first", type=int, default=int(time.time()), metavar="SEED", help="default: the time")
    parser.add_argument("--seed", type=int, help="this case alone")
    args = parser.parse_args()
    targets = [args.only] if args.only else list(TARGETS)
    if args.seed is not None:
        return sum(bool(_again(target, args.seed)) for target in targets)
    return sum(_run(target, args.first, args.seconds / len(targets)) for target in targets) > 0


def _again(target: str, seed: int) -> bool:
    try:
        print(f"{target} {seed}: {'taken' if play(target, seed) else 'refused'}")
    except Failed:
        traceback.print_exc()
        return True
    return False


def _run(target: str, first: int, seconds: float) -> int:
    """Play seeds for so long; how many failed."""
    started, n_cases, n_taken, failed = time.monotonic(), 0, 0, []
    while time.monotonic() - started < seconds and len(failed) < SHOWN:
        try:
            n_taken += play(target, first + n_cases)
        except Failed as error:
            failed.append(str(error))
        n_cases += 1
    rate = n_cases / (time.monotonic() - started)
    print(f"{target:<10} {n_cases:>8} cases ({rate:,.0f}/s), {n_taken} taken, {len(failed)} failed", flush=True)
    for text in failed:
        print(f"  FAILED {text}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
