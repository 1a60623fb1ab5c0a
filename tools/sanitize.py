#!/usr/bin/env python3
"""Runs the compiled part under a sanitizer, in a copy of the tree: build/sanitize-KIND.

    tools/sanitize.py address            reads and writes out of bounds, undefined behaviour (gcc: ASan, UBSan)
    tools/sanitize.py thread             races of the team, the readers, the engine and the transport (clang, libomp,
                                         libarcher: TSan)
    tools/sanitize.py address tests/unit/test_quants.py -k pack

Without tests named it runs those that reach the compiled part, one group after the other, each of which takes minutes:
of what is the same for each family, some families. For `address` damaged model files that are taken for good ones are
loaded and run, too. What each group gave stands in a table at the end. Exit code 1: something was found. The kernels of
instruction sets are as they always are (with a sanitizer they would take an hour to compile): the scalar ones run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("csrc", "swarm", "tests", "tools", "setup.py", "pyproject.toml", "README.md")
PACKING = (
    ("tests/unit/test_quants.py", ""),
    ("tests/unit/test_engine_weights.py", ""),
    ("tests/unit/test_engine_packed.py", ""),
    ("tests/unit/test_engine_expert_file.py", ""),
    ("tests/unit/test_net_frames.py", ""),
)
ENGINE = (
    ("tests/unit/test_engine_decoder_rows.py", "air-q8_0 or llama-q8_0"),
    ("tests/unit/test_engine_decoder_rows.py", "stages or absent or room"),
    ("tests/unit/test_engine_expert_cache.py", ""),
    ("tests/kernels/test_stage.py", ""),
    ("tests/unit/test_net_slices.py", ""),
)
TRANSPORT = (("tests/unit/test_net_transport.py", ""), ("tests/unit/test_net_links.py", ""))
EXPERTS = ("tests/kernels/experts_threads.c", "csrc/experts.c", "csrc/readers.c", "csrc/crc32c.c")
# What is no finding: interpreter and libraries are not compiled for the sanitizer, and free less than they take.
RACES_OF_OTHERS = "called_from_lib:libopenblas\ncalled_from_lib:libzmq\nrace:^_Py\nrace:^Py\ndeadlock:^Py\n"
MAIN = "#include <Python.h>\nint main(int n, char **words) { return Py_BytesMain(n, words); }\n"


@dataclass(frozen=True)
class Kind:
    """A sanitizer: its compiler and flags, and what it is to run when nothing is named."""

    compiler: str
    flags: str
    groups: tuple[tuple[str, str], ...]  # a file of tests, and which of them


KINDS = {
    "address": Kind(
        "gcc",
        "-g -O0 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined",
        (*PACKING, *ENGINE),
    ),
    "thread": Kind("clang-14", "-g -O1 -fsanitize=thread", (*ENGINE, *TRANSPORT)),
}


def main() -> int:
    """Parse the command line, build and run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--loads", type=int, default=300, metavar="N", help="damaged models to make; default 300")
    parser.add_argument("--limit", type=int, default=400, metavar="S", help="seconds for each group; default 400")
    args, tests = parser.parse_known_args()
    kind, tree = KINDS[args.kind], ROOT / "build" / f"sanitize-{args.kind}"
    if shutil.which(kind.compiler) is None:
        print(f"there is no {kind.compiler} here: apt install {kind.compiler}", file=sys.stderr)
        return 2
    build(kind, tree)
    python, environment = runner(args.kind, tree)
    ran = Runs(tree, environment, args.limit)
    # -s: a report is written while a test runs, and would be lost with what pytest keeps of it
    options = ["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-o", "timeout=0"]
    if tests:
        ran.run([python, *options, *tests])
        return ran.told()
    run_alone(kind, ran)
    for file, which in kind.groups:
        ran.run([python, *options, file, *(["-k", which] if which else [])])
    if args.kind == "address":
        ran.run([python, "-c", LOADS, str(args.loads)])
    return ran.told()


def build(kind: Kind, tree: Path) -> None:
    """Copy what has changed, and compile it."""
    for name in COPIED:
        source, target = ROOT / name, tree / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for path in ROOT.glob("build/temp.*/csrc/*_*.o"):
        if path.stem.endswith(("_x86", "_arm")):
            target = tree / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.stat().st_mtime < path.stat().st_mtime:
                shutil.copy(path, target)
    link = "-shared -fsanitize=" + kind.flags.partition("-fsanitize=")[2].split()[0]
    environment = {
        **os.environ,
        "CC": kind.compiler,
        "SWARM_C_FLAGS": kind.flags,
        "LDSHARED": f"{kind.compiler} {link}",
        "PYTHONPATH": str(tree),
    }
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, env=environment, check=True)


def runner(kind: str, tree: Path) -> tuple[str, dict[str, str]]:
    """The interpreter that runs sanitized code, and its environment."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONMALLOC": "malloc",
        "SWARM_PACKED": "never",
        "SWARM_CPU": "scalar",
    }
    if kind == "address":
        library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
        environment |= {
            "LD_PRELOAD": library.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
        }
        return sys.executable, environment
    # The run-time part must be in the program itself, and OpenMP be one that tells it what waits for what.
    (tree / "main.c").write_text(MAIN)
    (tree / "others.txt").write_text(RACES_OF_OTHERS)
    paths = sysconfig.get_paths()
    library_dir, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
    subprocess.run(
        [
            *("clang-14", "-fsanitize=thread", "-g", f"-I{paths['include']}", "main.c", "-o", "python-thread"),
            *(f"-L{library_dir}", f"-lpython{version}", f"-Wl,-rpath,{library_dir}"),
        ],
        cwd=tree,
        check=True,
    )
    archer = next(iter(Path("/usr/lib/llvm-14/lib").glob("libarcher.so")), None)
    environment |= {
        "TSAN_OPTIONS": f"ignore_noninstrumented_modules=1:exitcode=99:suppressions={tree / 'others.txt'}",
        "OMP_TOOL_LIBRARIES": str(archer or ""),
        "LD_LIBRARY_PATH": "/usr/lib/llvm-14/lib",
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": os.pathsep.join([str(tree), paths["purelib"], paths["platlib"]]),
        "OMP_NUM_THREADS": "4",
    }
    return str(tree / "python-thread"), environment


class Runs:
    """Programs that run under a sanitizer, and what each gave."""

    def __init__(self, tree: Path, environment: dict[str, str], limit_s: int) -> None:
        self.tree = tree
        self._environment = environment
        self._limit_s = limit_s
        self._rows: list[tuple[str, str, float]] = []

    def run(self, command: list[str], *, alone: bool = False) -> None:
        """Run a program; `alone`: without what an interpreter needs."""
        words = [word for word in command[1:] if word not in ("-m", "pytest", "-q", "-s", "-p", "no:cacheprovider")]
        name = " ".join(words)[:100].partition("\n")[0]
        print(f"== {name}", flush=True)
        began = time.monotonic()
        try:
            environment = dict(os.environ) if alone else self._environment
            code = subprocess.run(
                command, cwd=self.tree, env=environment, check=False, timeout=self._limit_s
            ).returncode
            gave = "nothing" if code == 0 else f"FOUND (exit code {code})"
        except subprocess.TimeoutExpired:
            gave = "nothing so far: it took too long"
        self._rows.append((name, gave, time.monotonic() - began))

    def told(self) -> int:
        """Print the table; 1 when something was found."""
        for name, gave, seconds in self._rows:
            print(f"{seconds:5.0f} s  {gave:40} {name}")
        return int(any(gave.startswith("FOUND") for _, gave, _ in self._rows))


def run_alone(kind: Kind, ran: Runs) -> None:
    """The cache of experts with its readers, without engine and interpreter: steps under many threads, at random."""
    flags, out = kind.flags.split(), str(ran.tree / "experts_threads")
    subprocess.run([kind.compiler, *flags, "-Icsrc", "-o", out, *EXPERTS, "-lpthread"], cwd=ran.tree, check=True)
    for seed in range(8):
        ran.run([out, str(ran.tree), "1000", str(seed)], alone=True)


LOADS = """
import sys
from random import Random
import swarm
from swarm.errors import SwarmError
from tests.helpers import fuzz
n_run = n_refused = 0
for seed in range(int(sys.argv[1])):
    if not fuzz.play("gguf", seed):
        continue
    try:
        model = swarm.load(fuzz._folder() / "case.gguf", threads=2, context=96)
        model.logits([i % model.spec.vocab for i in range(70)])
        n_run += 1
    except SwarmError:
        n_refused += 1
print(f"{n_run} damaged models that were taken for good ones have run, {n_refused} were refused when they were loaded")
"""

if __name__ == "__main__":
    sys.exit(main())
