"""What a device measures of itself, and when that counts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from swarm import kernels
from swarm.errors import ConfigError
from swarm.files import taken_bytes
from swarm.node import measure
from swarm.node.home import Home


def test_what_was_measured_is_remembered_for_the_same_kernels_and_threads(tmp_path: Path) -> None:
    home = Home(tmp_path)
    isa = kernels.isa()
    assert measure.remembered(home, isa, 1) is None
    speeds = measure.measure(home, isa, 1)
    assert speeds.read_bytes_per_s > 1e6 and speeds.macs_per_s > 1e6 and speeds.layer_s >= 0 < speeds.step_s
    assert measure.remembered(home, isa, 1) == speeds
    assert measure.remembered(home, isa, 2) is measure.remembered(home, "other", 1) is None
    home.measured_file.write_text(home.measured_file.read_text().replace('"layer_s"', '"layers"'))
    assert measure.remembered(home, isa, 1) is None


def test_of_two_measurements_the_better_counts(tmp_path: Path) -> None:
    home = Home(tmp_path)
    slow = measure.Speeds(measure.conditions(kernels.isa(), 1), 1.0, 1e15, 9.0, 1e-9, 1.0, 0.5)
    now = measure.measure(home, kernels.isa(), 1, slow)
    assert now == measure.remembered(home, kernels.isa(), 1)
    assert now.read_bytes_per_s > 1e6 and now.layer_s < 1 and now.disk_bytes_per_s > 1
    assert (now.macs_per_s, now.step_s) == (1e15, 1e-9) and now.others <= 0.5


@pytest.mark.parametrize("others", [0.0, 0.05, 0.5])
def test_a_measurement_beside_busy_programs_is_repeated_in_a_quiet_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: float
) -> None:
    """It waits while an answer runs (twice) and while others are busy (twice); the first one is disturbed, too."""
    home = Home(tmp_path)
    monkeypatch.setattr(measure, "AGAIN_FIRST_S", 1e-3)
    busy, idle, measured = iter([0.9, 0.2, 0.0, 0.0]), iter([False, False]), iter([0.3, 0.02])
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    def repeat(home: Home, isa: str, threads: int, before: measure.Speeds) -> measure.Speeds:
        return replace(before, read_bytes_per_s=before.read_bytes_per_s + 1, others=next(measured))

    speeds = measure.Speeds(measure.conditions(kernels.isa(), 1), 1.0, 1.0, 1.0, 1.0, 1.0, others)
    monkeypatch.setattr(measure, "remembered", lambda *_: speeds)
    monkeypatch.setattr(measure, "measure", repeat)
    monkeypatch.setattr(measure, "others_now", lambda _: next(busy))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    again = asyncio.run(measure.again_when_quiet(home, kernels.isa(), 1, lambda: next(idle, True)))
    assert again == (others > measure.QUIET)
    if again:
        assert next(busy, None) is next(measured, None) is None
        assert waits == [1e-3 * 2**n for n in range(6)]


def test_another_program_is_noticed() -> None:
    code = "print(flush=True)\nwhile True: pass"
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert program.stdout is not None
    try:
        program.stdout.readline()
        assert measure.others_now(0.5) > 0.3 / (psutil.cpu_count() or 1)
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


def test_memory_is_what_was_asked_for_or_leaves_the_machine_usable() -> None:
    assert measure.usable_memory("1.5GiB") == 3 * 2**29
    total = measure.usable_memory("100%")
    assert measure.usable_memory("50%") == pytest.approx(total / 2, abs=1)
    assert 0 <= measure.usable_memory("") <= 0.8 * total


def test_more_memory_than_the_machine_has_is_refused_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * 2**30, available=7 * 2**30))
    monkeypatch.setattr(measure.cores, "cgroup_memory", lambda: (None, 0))
    with pytest.raises(ConfigError, match=r"this device has 8 GiB, of which a node itself takes 150 MiB; .* 7.85 GiB"):
        measure.usable_memory("8GiB")
    assert measure.usable_memory("7.8GiB") == int(7.8 * 2**30)
    monkeypatch.setattr(measure.cores, "cgroup_memory", lambda: (2 * 2**30, 0))
    with pytest.raises(ConfigError, match="this container or service has 2 GiB"):
        measure.usable_memory("2GiB")
    monkeypatch.setattr(measure, "free_memory_bytes", lambda: 2**40)
    assert measure.usable_memory("") == int(0.8 * (2 * 2**30 - measure.BASE_BYTES)), "the node itself is counted"


def test_a_nearly_full_disk_keeps_what_it_has_and_gives_all_but_a_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    free, total = 24 * 2**30, 252 * 2**30
    monkeypatch.setattr(psutil, "disk_usage", lambda _: SimpleNamespace(total=total, free=free))
    assert measure.usable_disk(home, "") == 20 * 2**30, "not nothing, because a tenth of the disk is 25 GiB"
    (home.store / "model").mkdir(parents=True)
    (home.store / "model" / "chunks").write_bytes(bytes(2**20))
    there = taken_bytes(home.store)
    assert there >= 2**20
    assert measure.usable_disk(home, "") == 20 * 2**30 + there, "what the store has already is its own"
    free, total = 2**30, 32 * 2**30
    assert measure.usable_disk(home, "") == 0
    assert measure.usable_disk(home, "3GiB") == 3 * 2**30, "what was said is obeyed; a full disk is found when it is"
