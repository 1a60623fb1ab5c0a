"""Cores that this process may use, from made-up /sys, /proc and cgroup trees."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from swarm import cores


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="ascii")


def test_two_hyper_threads_of_a_core_count_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,4", "1,5", "2,6", "3,7"] * 2):
        write(tmp_path / f"cpu{cpu}/topology/thread_siblings_list", siblings)
    assert cores.physical_cores(set(range(8)), tmp_path) == 4
    assert cores.physical_cores({0, 4}, tmp_path) == 1
    assert cores.physical_cores({4, 5, 6}, tmp_path) == 3


def test_cpus_count_as_cores_where_the_system_tells_nothing(tmp_path: Path) -> None:
    assert cores.physical_cores({0, 1, 2}, tmp_path) == 3


@pytest.mark.parametrize(("text", "quota"), [("150000 100000", 1.5), ("max 100000", None), ("", None), ("x", None)])
def test_version_2_quota_of_the_group_is_read(tmp_path: Path, text: str, quota: float | None) -> None:
    write(tmp_path / "proc", "0::/user.slice/app.scope")
    write(tmp_path / "cg/user.slice/app.scope/cpu.max", text)
    assert cores.cgroup_quota(tmp_path / "proc", tmp_path / "cg") == quota


def test_the_tightest_quota_from_here_to_the_root_counts(tmp_path: Path) -> None:
    write(tmp_path / "proc", "0::/a/b")
    write(tmp_path / "cg/a/b/cpu.max", "400000 100000")
    write(tmp_path / "cg/a/cpu.max", "200000 100000")
    write(tmp_path / "cpu.max", "1000 100000")  # outside the tree: not ours
    assert cores.cgroup_quota(tmp_path / "proc", tmp_path / "cg") == 2.0


def test_version_1_quota_is_read(tmp_path: Path) -> None:
    write(tmp_path / "proc", "3:cpu,cpuacct:/docker/1")
    write(tmp_path / "cg/cpu/docker/1/cpu.cfs_quota_us", "50000")
    write(tmp_path / "cg/cpu/docker/1/cpu.cfs_period_us", "100000")
    assert cores.cgroup_quota(tmp_path / "proc", tmp_path / "cg") == 0.5
    write(tmp_path / "cg/cpu/docker/1/cpu.cfs_quota_us", "-1")
    assert cores.cgroup_quota(tmp_path / "proc", tmp_path / "cg") is None


def test_the_tightest_memory_limit_and_its_use_are_read(tmp_path: Path) -> None:
    write(tmp_path / "proc", "0::/a/b")
    write(tmp_path / "cg/a/b/memory.max", "max")
    write(tmp_path / "cg/a/memory.max", "8000")
    write(tmp_path / "cg/a/memory.current", "3000")
    write(tmp_path / "cg/memory.max", "9000")
    assert cores.cgroup_memory(tmp_path / "proc", tmp_path / "cg") == (8000, 3000)


def test_version_1_memory_limit_is_read(tmp_path: Path) -> None:
    write(tmp_path / "proc", "4:memory:/docker/1")
    write(tmp_path / "cg/memory/docker/1/memory.limit_in_bytes", "500")
    write(tmp_path / "cg/memory/docker/1/memory.usage_in_bytes", "200")
    assert cores.cgroup_memory(tmp_path / "proc", tmp_path / "cg") == (500, 200)


def test_without_groups_memory_has_no_limit(tmp_path: Path) -> None:
    assert cores.cgroup_memory(tmp_path / "none", tmp_path / "none") == (None, 0)


@pytest.mark.parametrize(("quota", "threads"), [(None, 4), (2.5, 2), (0.5, 1), (16.0, 4)])
def test_threads_are_cores_within_the_quota_and_at_least_one(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: int
) -> None:
    monkeypatch.setattr(cores, "physical_cores", lambda cpus: 4)
    monkeypatch.setattr(cores, "cgroup_quota", lambda: quota)
    assert cores.default_threads() == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_affinity_narrows_the_cores() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores.default_threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_free_memory_is_what_the_system_says(tmp_path: Path) -> None:
    write(tmp_path / "meminfo", "MemTotal:       8000 kB\nMemFree:         100 kB\nMemAvailable:   5000 kB")
    assert cores.machine_free_bytes(tmp_path / "meminfo") == 5000 * 1024
    assert 0 < cores.machine_free_bytes(tmp_path / "missing") < 2**50


def test_others_are_told_from_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores for ten seconds: 12 s of work, of which 3 s were ours."""
    cpu = psutil.cpu_times()._replace(user=100.0, system=50.0, idle=0.0)
    times = iter([(cpu, 7.0, 1000.0), (cpu._replace(user=108.0, system=54.0, idle=8.0), 10.0, 1010.0)])
    now = next(times)
    monkeypatch.setattr(psutil, "cpu_times", lambda: now[0])
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(time, "process_time", lambda: now[1])
    monkeypatch.setattr(time, "monotonic", lambda: now[2])
    watch = cores.Others()
    now = next(times)
    assert watch.share() == pytest.approx(9 / 20)


def test_cpus_of_one_name_are_told_apart(tmp_path: Path) -> None:
    core = "processor\t: {}\nvendor_id\t: AuthenticAMD\ncpu family\t: {}\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
    core += "cpu MHz\t: {}\n\n"
    found = []
    for family in (25, 26):
        write(tmp_path / "cpuinfo", "".join(core.format(i, family, 2000 + i) for i in range(2)))
        found.append(cores.cpu_model(tmp_path / "cpuinfo"))
    assert found[0] == "vendor_id AuthenticAMD, cpu family 25, model 17, model name AMD EPYC"
    assert found[1] != found[0]
    write(tmp_path / "cpuinfo", "".join(f"CPU implementer : 0x41\nCPU part : {part}\n" for part in ("0xd03", "0xd08")))
    assert cores.cpu_model(tmp_path / "cpuinfo") == "CPU implementer 0x41, CPU part 0xd03, CPU part 0xd08"
    assert cores.cpu_model(tmp_path / "nowhere") == ""


def test_headroom_of_a_container_counts_pages_that_nobody_uses(tmp_path: Path) -> None:
    write(tmp_path / "proc", "0::/a")
    assert cores.container_headroom(tmp_path / "proc", tmp_path / "cg") is None
    write(tmp_path / "cg/a/memory.max", "8000")
    write(tmp_path / "cg/a/memory.current", "7000")
    assert cores.container_headroom(tmp_path / "proc", tmp_path / "cg") == 1000
    write(tmp_path / "cg/a/memory.stat", "anon 100\nfile 5000\ninactive_file 4000\nactive_file 500")
    assert cores.container_headroom(tmp_path / "proc", tmp_path / "cg") == 5500


def test_headroom_in_version_1(tmp_path: Path) -> None:
    write(tmp_path / "proc", "3:memory:/docker/1")
    write(tmp_path / "cg/memory/docker/1/memory.limit_in_bytes", "8000")
    write(tmp_path / "cg/memory/docker/1/memory.usage_in_bytes", "7500")
    write(
        tmp_path / "cg/memory/docker/1/memory.stat",
        "cache 300\ninactive_file 7\ntotal_inactive_file 200\ntotal_active_file 0",
    )
    assert cores.container_headroom(tmp_path / "proc", tmp_path / "cg") == 700


@pytest.mark.parametrize(
    ("text", "stall"),
    [
        ("some avg10=9.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=6.25 avg60=0.00 avg300=0.00 total=2", 0.0625),
        ("some avg10=9.00 avg60=0.00 avg300=0.00 total=1", 0.0),
        ("", 0.0),
    ],
)
def test_how_long_all_programs_waited_for_memory(tmp_path: Path, text: str, stall: float) -> None:
    write(tmp_path / "pressure", text)
    assert cores.memory_stall(tmp_path / "pressure") == stall
    assert cores.memory_stall(tmp_path / "none") == 0.0


def test_all_memory_of_the_machine(tmp_path: Path) -> None:
    write(tmp_path / "meminfo", "MemTotal:  8000 kB\nMemFree: 10 kB\nMemAvailable: 2000 kB")
    assert cores.machine_memory_bytes(tmp_path / "meminfo") == 8_192_000
    assert cores.machine_free_bytes(tmp_path / "meminfo") == 2_048_000
    assert cores.machine_memory_bytes(tmp_path / "none") == 0
