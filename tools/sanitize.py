#!/usr/bin/env python3
"""Runs the compiled part under a sanitizer, in a copy of the tree: build/sanitize-KIND.

    tools/sanitize.py address            reads and writes out of bounds, undefined behaviour (gcc: ASan, UBSan)
    tools/sanitize.py thread             races of the team, the readers and the engine (clang, libomp, libarcher: TSan)
    tools/sanitize.py address tests/unit/test_quants.py -k pack

Without tests named it runs those that reach the compiled part, and for `address` damaged model files that are taken for
good ones are loaded and run. Exit code 1: something was found. The kernels of instruction sets are as they always are
(with a sanitizer they would take an hour to compile); so it is the scalar ones that run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("csrc", "swarm", "tests", "tools", "setup.py", "pyproject.toml", "README.md")
TESTS = [
    "tests/unit/test_quants.py",
    "tests/unit/test_engine_weights.py",
    "tests/unit/test_engine_packed.py",
    "tests/unit/test_engine_expert_file.py",
]
THREADED = ["tests/unit/test_engine_decoder_rows.py", "tests/unit/test_engine_expert_cache.py"]
EXPERTS = ("tests/kernels/experts_threads.c", "csrc/experts.c", "csrc/readers.c", "csrc/crc32c.c")
# What is no finding: interpreter and libraries are not compiled for the sanitizer, and free less than they take.
RACES_OF_OTHERS = "called_from_lib:libopenblas\ncalled_from_lib:libzmq\nrace:^_Py\nrace:^Py\ndeadlock:^Py\n"
MAIN = "#include <Python.h>\nint main(int n, char **words) { return Py_BytesMain(n, words); }\n"


@dataclass(frozen=True)
class Kind:
    """A sanitizer: its compiler and flags, and what it is to run when nothing is named."""

    compiler: str
    flags: str
    tests: list[str]


KINDS = {
    "address": Kind(
        "gcc",
        "-g -O0 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined",
        [*TESTS, *THREADED],
    ),
    "thread": Kind("clang-14", "-g -O1 -fsanitize=thread", THREADED),
}


def main() -> int:
    """Parse the command line, build and run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--loads", type=int, default=300, metavar="N", help="damaged models to make; default 300")
    args, tests = parser.parse_known_args()
    kind, tree = KINDS[args.kind], ROOT / "build" / f"sanitize-{args.kind}"
    if shutil.which(kind.compiler) is None:
        print(f"there is no {kind.compiler} here: apt install {kind.compiler}", file=sys.stderr)
        return 2
    build(kind, tree)
    python, environment = runner(args.kind, tree)
    found = not tests and run_alone(kind, tree)
    # -s: a report is written while a test runs, and would be lost with what pytest keeps of it
    options = ["-q", "-x", "-s", "-p", "no:cacheprovider", "-o", "timeout=0"]
    found |= run(python, ["-m", "pytest", *options, *(tests or kind.tests)], tree, environment)
    if args.kind == "address" and not tests:
        found |= run(python, ["-c", LOADS, str(args.loads)], tree, environment)
    return int(found)


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
            if not target.exists():
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


def run_alone(kind: Kind, tree: Path) -> bool:
    """The cache of experts with its readers, without engine and interpreter: steps under many threads, at random."""
    flags, out = kind.flags.split(), str(tree / "experts_threads")
    subprocess.run([kind.compiler, *flags, "-Icsrc", "-o", out, *EXPERTS, "-lpthread"], cwd=tree, check=True)
    return any([run(out, [str(tree), "1000", str(seed)], tree, dict(os.environ)) for seed in range(8)])


def run(python: str, arguments: list[str], tree: Path, environment: dict[str, str]) -> bool:
    """Run a program; True when it found something."""
    print(f"== {' '.join(arguments)[:120]}", flush=True)
    return subprocess.run([python, *arguments], cwd=tree, env=environment, check=False).returncode != 0


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
