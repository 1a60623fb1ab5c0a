"""Whole layers, not only products, have the same bits on every processor: a Pi can replace a laptop in mid-answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.kernels.build import CSRC, Objects, sources
from tests.kernels.test_isas import ARM_CC, CPUS, EMULATED, LIMIT_S, QEMU, SIMDE, Hashes, run

pytestmark = pytest.mark.timeout(LIMIT_S)

DRIVER = Path(__file__).parent / "layer_driver.c"
X86 = os.uname().machine == "x86_64"
HALVES = ("team.c", "attention.c", "latent.c", "ffn.c", "router.c", "sums.c", "experts.c", "readers.c", "crc32c.c")
LAYERS = [CSRC / name for name in (*HALVES, "ops_dispatch.c", "ops_scalar.c")]
FLAGS = ("-Wno-unused-parameter", "-Wno-sign-compare")


def build(folder: Path, family: str, cc: str, *link: str) -> str:
    """The driver with every kernel set of a processor family."""
    objects = Objects(folder)
    ops = [p for p in CSRC.glob("ops_*.c") if p.name.endswith(f"_{family}.c")]
    for file in (DRIVER, *LAYERS, *ops, *sources(family)):
        objects.add(file, *FLAGS, cc=cc)
    program = str(folder / "layers")
    subprocess.run([cc, *link, "-o", program, *objects.paths(), "-lm", "-pthread"], check=True)
    return program


@cache
def here() -> dict[str, Hashes]:
    with tempfile.TemporaryDirectory() as folder:
        return run(build(Path(folder), "x86" if X86 else "arm", "gcc"))


def test_layers_have_the_same_bits_with_every_kernel_set_of_this_machine() -> None:
    sets = here()
    assert len(sets) >= 2, "only scalar kernels here"
    assert all(hashes == sets["scalar"] for hashes in sets.values())
    assert len(set(sets["scalar"].values())) == len(sets["scalar"]), "cases that do not differ test nothing"


@pytest.mark.skipif(not X86, reason="this is an arm64 machine: the other test runs the real thing")
@pytest.mark.skipif(not (shutil.which(ARM_CC) and shutil.which(QEMU)), reason=f"{ARM_CC} or {QEMU} is not installed")
def test_layers_have_the_same_bits_on_arm(tmp_path: Path) -> None:
    program = build(tmp_path, "arm", ARM_CC, "-static")
    for cpu, names in CPUS.items():
        sets = run(QEMU, "-cpu", cpu, program)
        assert sets.keys() == names
        assert all(hashes == here()["scalar"] for hashes in sets.values()), cpu


@pytest.mark.skipif(not X86, reason="the emulation of AVX-512 needs an x86-64 machine")
@pytest.mark.skipif(not SIMDE.exists(), reason="libsimde-dev is not installed")
def test_layers_have_the_same_bits_over_emulated_avx512(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.add(DRIVER, *FLAGS, "-DONLY=sw_kernels_avx512vnni", "-DONLY_OPS=sw_ops_avx512")
    for name in ("matmul_avx512vnni_x86.c", "ops_avx512_x86.c"):
        objects.add(CSRC / name, *EMULATED)
    for name in ("pack.c", "pack_grids.c", "matmul_scalar.c", *HALVES):
        objects.add(CSRC / name, *FLAGS)
    program = str(tmp_path / "layers")
    subprocess.run(["gcc", "-o", program, *objects.paths(), "-lm", "-pthread"], check=True)
    assert run(program)["avx512vnni"] == here()["scalar"]
