"""The cache of experts under many threads, without the engine: nothing races, hangs, or computes with other bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("tests/kernels/experts_threads.c", "csrc/experts.c", "csrc/readers.c", "csrc/crc32c.c")
SANITIZERS = ("thread", "address,undefined")


@pytest.fixture(scope="module", params=SANITIZERS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("experts") / "experts_threads"
    flags = ["-std=gnu11", "-O1", "-g", f"-fsanitize={request.param}", "-fno-sanitize-recover=all"]
    command = ["gcc", *flags, "-Icsrc", "-o", str(out), *SOURCES, "-lpthread"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"no {request.param} sanitizer here: {built.stderr[-200:]}")
    return out


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_threads_that_wait_read_and_ask_do_not_race(program: Path, tmp_path: Path, seed: int) -> None:
    command = [str(program), str(tmp_path), "250", str(seed)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-4000:]
    assert "0 wrong bytes" in ran.stdout
    assert list(tmp_path.iterdir()) == []
