"""The scalar kernels, packing and a team of threads under sanitizers, without interpreter and engine: minutes become
seconds. The long form, with both, is tools/sanitize.py."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernels.build import CSRC
from tests.kernels.test_isas import HERE, Hashes, read
from tests.kernels.test_layer_bits import HALVES

COMPILER = "clang-14"
PACKING = ("pack.c", "pack_grids.c", "matmul_scalar.c")
LAYERS = (*HALVES, *PACKING, "ops_scalar.c")
SCALAR = ("-DONLY=sw_kernels_scalar", "-DONLY_OPS=sw_ops_scalar")
WARNINGS = ("-Wno-unused-parameter", "-Wno-sign-compare")
LIMIT_S = 250

pytestmark = [
    pytest.mark.timeout(2 * LIMIT_S),
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed"),
]


def run(folder: Path, sanitizer: str, driver: str, files: tuple[str, ...], *flags: str) -> Hashes:
    """Compile a driver with the scalar kernels under a sanitizer, and run it; what it finds fails the test."""
    program = str(folder / f"{driver}-{sanitizer[:4]}")
    with_it = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"] if sanitizer else []
    command = [COMPILER, "-std=gnu11", "-O1", "-g", "-ffp-contract=off", *with_it, *SCALAR, *WARNINGS, *flags]
    sources = [str(HERE / f"{driver}.c"), *(str(CSRC / name) for name in files)]
    subprocess.run([*command, f"-I{CSRC}", "-o", program, *sources, "-lm", "-pthread"], check=True, timeout=LIMIT_S)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # the drivers free nothing: they end
    ran = subprocess.run([program], capture_output=True, text=True, check=False, timeout=LIMIT_S, env=environment)
    assert ran.returncode == 0, ran.stdout[-300:] + ran.stderr[-4000:]
    (hashes,) = read(ran.stdout).values()
    return hashes


def test_packing_and_scalar_kernels_touch_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    assert len(run(tmp_path, "address,undefined", "driver", PACKING)) > 200


def test_layers_touch_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    run(tmp_path, "address,undefined", "layer_driver", LAYERS, "-DTEAM=2", "-DROUNDS=2")


def test_a_team_of_threads_does_not_race_and_has_the_bits_of_one(tmp_path: Path) -> None:
    together = run(tmp_path, "thread", "layer_driver", LAYERS, "-DTEAM=8", "-DROUNDS=6")
    assert together == run(tmp_path, "", "layer_driver", LAYERS, "-DTEAM=1", "-DROUNDS=6")
