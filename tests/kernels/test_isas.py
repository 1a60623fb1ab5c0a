"""Kernels for processors that this machine is not: run under emulation, and equal to the scalar ones bit for bit."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.kernels.build import CSRC, Objects, sources

LIMIT_S = 900  # emulated, 25 types take a minute or two on an idle machine
pytestmark = pytest.mark.timeout(LIMIT_S)
HERE = Path(__file__).parent
SIMDE = Path("/usr/include/simde/x86/avx512.h")
ARM_CC, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
# -O0: the emulation is inlined into every kernel, and optimising that takes minutes.
EMULATED = ["-DSW_EMULATED", f"-I{HERE / 'emulated'}", "-mavx2", "-mfma", "-mf16c", "-O0", "-Wno-psabi", "-Wno-extra"]

Hashes = dict[str, str]


def read(output: str) -> dict[str, Hashes]:
    """set -> "type case" -> hash."""
    sets: dict[str, Hashes] = {}
    for line in output.splitlines():
        name, qtype, case, digest = line.split()
        sets.setdefault(name, {})[f"type {qtype} case {case}"] = digest
    return sets


def run(*command: str) -> dict[str, Hashes]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-300:]
    return read(done.stdout)


@functools.cache
def scalar_hashes() -> tuple[tuple[str, str], ...]:
    with tempfile.TemporaryDirectory() as folder:
        objects = Objects(Path(folder))
        objects.add(HERE / "driver.c", "-DONLY=sw_kernels_scalar")
        for name in ("pack.c", "pack_grids.c", "matmul_scalar.c"):
            objects.add(CSRC / name)
        program = f"{folder}/driver"
        # dispatch.c is not needed: ONLY names the set.
        subprocess.run(["gcc", "-o", program, *objects.paths(), "-lm"], check=True)
        return tuple(run(program)["scalar"].items())


def differences(hashes: Hashes) -> list[str]:
    want = dict(scalar_hashes())
    assert hashes.keys() == want.keys()
    return [case for case in want if hashes[case] != want[case]]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the emulation of AVX-512 needs an x86-64 machine")
@pytest.mark.skipif(not SIMDE.exists(), reason="libsimde-dev is not installed")
@pytest.mark.parametrize("name", ["avxvnni", "avx512vnni"])
def test_vnni_kernels_over_emulated_intrinsics_equal_the_scalar_ones(name: str, tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.add(HERE / "driver.c", f"-DONLY=sw_kernels_{name}")
    objects.add(CSRC / f"matmul_{name}_x86.c", *EMULATED)
    for file in ("pack.c", "pack_grids.c", "matmul_scalar.c"):  # what is not fast is left to the scalar ones
        objects.add(CSRC / file)
    program = str(tmp_path / "driver")
    subprocess.run(["gcc", "-o", program, *objects.paths(), "-lm"], check=True)
    assert differences(run(program)[name]) == []


@pytest.fixture(scope="module")
def arm_driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    if os.uname().machine == "aarch64":
        pytest.skip("this is an arm64 machine: test_matmul.py runs the real thing")
    if not (shutil.which(ARM_CC) and shutil.which(QEMU)):
        pytest.skip(f"{ARM_CC} or {QEMU} is not installed")
    folder = tmp_path_factory.mktemp("arm")
    objects = Objects(folder)
    for file in (HERE / "driver.c", *sources("arm")):
        objects.add(file, "-O1", cc=ARM_CC)  # what -O3 adds takes minutes to compile
    program = str(folder / "driver")
    subprocess.run([ARM_CC, "-static", "-o", program, *objects.paths(), "-lm"], check=True)
    return program


CPUS = {
    "cortex-a72": {"scalar", "neon"},
    "cortex-a76": {"scalar", "neon", "dotprod"},
    "max": {"scalar", "neon", "dotprod", "i8mm"},
}


@pytest.mark.parametrize("cpu", CPUS)
def test_arm_kernels_under_emulation_equal_the_scalar_ones_of_this_machine(cpu: str, arm_driver: str) -> None:
    sets = run(QEMU, "-cpu", cpu, arm_driver)
    assert sets.keys() == CPUS[cpu]
    for hashes in sets.values():
        assert differences(hashes) == []
