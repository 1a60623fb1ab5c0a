"""From the command to the first letter of its answer: `swarm run`, on a model file that is in the page cache.

    python tools/bench/first_token.py [OLD_TREE] [--model FILE] [--runs 15]

OLD_TREE is another checkout with its extensions built: the two then take turns. Python keeps compiled modules in a
folder of their own, as an installed package has them, and the first run of each tree does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "Why is the sky blue?"


def one_run(tree: Path, model: str, folder: str) -> tuple[float, float]:
    """Seconds to the first letter, and of CPU time to the end."""
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": folder}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "swarm", "run", model, PROMPT, "--alone", "--max-tokens", "1", "--temp", "0"]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, cwd="/")
    assert process.stdout is not None
    assert process.stdout.read(1), "there was no answer"
    first_s = time.perf_counter() - started
    process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    process.returncode = 0
    return first_s, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("old", type=Path, nargs="?")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args()
    trees = [ROOT, *([args.old.resolve()] if args.old else [])]
    with tempfile.TemporaryDirectory() as folder:
        for tree in trees:
            one_run(tree, args.model, folder)
        runs = [[one_run(tree, args.model, folder) for tree in trees] for _ in range(args.runs)]
    for tree, column in zip(trees, zip(*runs, strict=True), strict=True):
        first, cpu = zip(*column, strict=True)
        least = f"least {min(first):.3f} s, CPU {statistics.median(cpu):.3f} s"
        print(f"{tree}: first letter after {statistics.median(first):.3f} s, {least}")


if __name__ == "__main__":
    main()
