#!/usr/bin/env python3
"""Peak resident memory of Swarm beside what it has to hold: packed weights, and the keys and values in use.

    tools/bench/memory.py --all --out docs/memory.md
    tools/bench/memory.py smollm2 glm4-9b:Q4_0

`smollm2` is asked through `swarm run`, as a user would; a random model (shapes.py), which has no text, through the
engine. The bar: peak no more than weights + KV + 150 MB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "bench")]

MODELS = ("smollm2", "glm4-9b:Q4_0", "glm4.5-air:Q4_K_M")
BAR_MB = 150
SHORT = "Why is the sky blue?"
LONG = "This sentence has exactly ten tokens of text, roughly. " * 84  # a thousand tokens
MB = 1e6


@dataclass(frozen=True)
class Case:
    """A process to run, and how many positions it fills."""

    what: str
    command: list[str]
    prompt_tokens: int  # 0: what the command reports
    generated: int


def cases(name: str, path: str) -> Iterator[Case]:
    """The processes to measure for one model."""
    if name == "smollm2":
        run = [sys.executable, "-m", "swarm", "run", path, "--json", "--temp", "0", "--max-tokens"]
        yield Case("swarm run, 20 tokens", [*run, "20", SHORT], 0, 20)
        yield Case("swarm run, prompt of 1,000 tokens", [*run, "20", LONG], 0, 20)
        return
    for tokens in (20, 1000):
        yield Case(f"engine, prompt of {tokens:,} tokens", [*_WORKER, path, str(tokens)], tokens, 20)


_WORKER = [sys.executable, "-W", "ignore", __file__, "--work"]


def work(path: str, tokens: int) -> None:
    """A worker: load, compute a prompt, decode 20 tokens."""
    from compare import Swarm

    engine = Swarm(path, 2)
    engine.eval([5] * tokens)
    for _ in range(20):
        engine.eval([5])


def peak_bytes(command: list[str]) -> tuple[int, str]:
    """Peak resident memory of a process, and what it printed."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:200]}: exit {process.returncode}")
    return usage.ru_maxrss * 1024, text


def sizes(path: str) -> tuple[int, int]:
    """Bytes of the packed weights, and of the keys and values (f16) of a position."""
    from swarm.engine.weights import MATRICES, packed_bytes
    from swarm.models import kv_bytes_per_token, spec_from_gguf
    from swarm.models.spec import tensors_needed
    from swarm.parts import all_parts
    from swarm.store.gguf import open_gguf

    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        needed = tensors_needed(spec, all_parts(spec.n_layers))
        distinct = {need.ref: need for need in needed if need.role in MATRICES}
        packed = sum(packed_bytes(need, model.tensors[need.ref.name].quant) for need in distinct.values())
        return packed, kv_bytes_per_token(spec)


def measure(name: str, path: str) -> Iterator[str]:
    """Lines of Markdown."""
    import json

    weights, kv = sizes(path)
    for case in cases(name, path):
        peak, text = peak_bytes(case.command)
        prompt = case.prompt_tokens or int(json.loads(text)["prompt_tokens"])
        held = weights + (prompt + case.generated) * kv
        over = (peak - held) / MB
        figures = [Path(path).stat().st_size, weights, held - weights, peak]
        columns = " | ".join(f"{n / MB:,.0f}" for n in figures)
        yield f"| {name} | {case.what} | {columns} | {over:.0f} | {'met' if over <= BAR_MB else 'MISSED'} |"


PAGE = """\
# How much memory it takes

Peak resident memory of a process that loads a model and answers, beside what it has to hold: the weights as they are
packed in memory (the file's pages are given back tensor by tensor, so they never lie there twice), and the keys and
values (f16) of the positions in use, which take memory only as they fill. The bar for everything else, from Python to
the buffers of a prefill step: 150 MB. Made by `tools/bench/memory.py --all --out docs/memory.md`.

{machine}. MB of 10^6 bytes, 2 threads.
"""
HEADER = """\
| model | what ran | file | packed weights | KV in use | peak RSS | peak - weights - KV | bar: 150 |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--all", action="store_true", help=", ".join(MODELS))
    parser.add_argument("--models-dir", type=Path, default=Path.home() / ".cache" / "swarm" / "bench")
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work[0], int(args.work[1]))
        return
    from compare import machine, resolve

    lines = [PAGE.format(machine=f"Machine: {machine()}"), HEADER]
    print("\n".join(lines))
    for name in MODELS if args.all else args.models:
        for line in measure(name, resolve(name, args.models_dir)):
            print(line, flush=True)
            lines.append(line)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
