#!/usr/bin/env python3
"""Bytes of packed weights per cycle in the Arm inner loops, by llvm-mca, beside loops that read one row at a time.

    tools/bench/mca.py                 a table; needs aarch64-linux-gnu-gcc and llvm-mca
    tools/bench/mca.py --loop Q4_0     also the loop itself

llvm-mca assumes that all data is in the first-level cache: the figure says what the core can keep up with. A
super-block counts its eight parts of 32 columns and the loop that prepares its scales.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from swarm.kernels.quants import QUANTS  # noqa: E402

CC, OBJDUMP = "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objdump"
FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
TWINS = ("IQ2_XXS", "IQ1_S", "IQ2_S", "TQ1_0")  # they have the loops of others (csrc/quants.h)
# bytes of a packed block, parts of 32 columns
TYPES = {
    q.name: (16 * q.packed_block_bytes, q.block_cols // 32)
    for q in QUANTS.values()
    if q.block_cols > 1 and q.name not in TWINS
}
ROWS = ("Q4_0", "Q8_0")
TARGETS = {
    "cortex-a76": ("matmul_dotprod_arm.c", "sdot", "-march=armv8.2-a+dotprod"),
    "cortex-a72": ("matmul_neon_arm.c", "smlal", ""),
}
DOTS = r"\b(sdot|smlal2?|smull2?)\b"


@dataclass(frozen=True)
class Loop:
    lines: tuple[str, ...]

    def has(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in self.lines)


def compile_object(source: Path, folder: Path, *flags: str) -> Path:
    out = folder / (source.stem + ".o")
    subprocess.run([CC, *FLAGS, *flags, f"-I{ROOT / 'csrc'}", "-c", "-o", str(out), str(source)], check=True)
    return out


def loops(target: Path, function: str) -> list[Loop]:
    """The innermost loops of a function, in order."""
    text = subprocess.run(
        [OBJDUMP, "-d", "--no-show-raw-insn", str(target)], capture_output=True, text=True, check=True
    ).stdout
    body = re.search(rf"<{function}>:\n(.*?)(?:\n\n|\Z)", text, re.S)
    assert body, f"{function} is not in {target}"
    lines = [line.split(":", 1) for line in body[1].split("\n") if ":" in line]
    at = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    spans: list[tuple[int, int]] = []
    for end, (address, code) in enumerate(lines):
        jump = re.search(r"\b(?:b\.\w+|cbn?z \w+,|tbn?z \w+, #\d+,|b)\s+([0-9a-f]+) <", code)
        if jump and int(jump[1], 16) in at and int(jump[1], 16) <= int(address, 16):
            spans.append((at[int(jump[1], 16)], end))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [Loop(tuple(clean(code) for _, code in lines[a:b])) for a, b in sorted(inner)]


def clean(code: str) -> str:
    return re.sub(r"\s*(//.*|<.*>)", "", code).strip()


def cycles(loop: Loop, cpu: str) -> float:
    straight = [line for line in loop.lines if not re.match(r"(b|b\.\w+|cbn?z|tbn?z)\s", line)]
    done = subprocess.run(
        [MCA, "-mtriple=aarch64", f"-mcpu={cpu}", "-iterations=200", "-mattr=+dotprod,+fullfp16"],
        input="\n".join(straight), capture_output=True, text=True, check=False,
    )  # fmt: skip
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert total, done.stderr
    return int(total[1]) / 200


def packed(target: Path, name: str, cpu: str, show: bool) -> float:
    """Bytes per cycle of one token's loop."""
    size, parts = TYPES[name]
    found = loops(target, f"one_side_{name}")
    step = next(loop for loop in found if loop.has("prfm") and loop.has(DOTS))
    if show:
        print(f"--- {name} on {cpu}\n" + "\n".join(step.lines), file=sys.stderr)
    total = parts * cycles(step, cpu)
    if parts > 1:
        before = [loop for loop in found[: found.index(step)] if loop.has("prfm") and loop.has("fcvtl")]
        total += cycles(before[-1], cpu) if before else 0  # Q6_K has no packed scales to prepare
    return size / total


def by_rows(target: Path, name: str, cpu: str) -> float:
    step = next(loop for loop in loops(target, f"row_{name.lower()}") if loop.has("prfm"))
    return TYPES[name][0] / 16 / cycles(step, cpu)


MCA = next((found for name in ("llvm-mca-14", "llvm-mca") if (found := shutil.which(name))), "llvm-mca")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", nargs="*", default=[], choices=TYPES, help="print these loops too")
    args = parser.parse_args()
    columns: dict[str, dict[str, tuple[float, float | None]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for cpu, (source, _, march) in TARGETS.items():
            ours = compile_object(ROOT / "csrc" / source, Path(folder))
            theirs = compile_object(Path(__file__).parent / "rows_neon.c", Path(folder), *([march] if march else []))
            columns[cpu] = {
                name: (packed(ours, name, cpu, name in args.loop), by_rows(theirs, name, cpu) if name in ROWS else None)
                for name in TYPES
            }
    print("| bytes per cycle | " + " | ".join(f"{cpu} | row by row" for cpu in columns) + " |")
    print("|---|" + "---|" * 2 * len(columns))
    for name in TYPES:
        cells = [cell for cpu in columns for cell in columns[cpu][name]]
        print(f"| {name} | " + " | ".join("" if c is None else f"{c:.1f}" for c in cells) + " |")


if __name__ == "__main__":
    main()
