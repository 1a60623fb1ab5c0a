"""What this process may use of the machine: cores by affinity, quota and hyper-threads; memory by cgroup."""

from __future__ import annotations

import os
import time
from pathlib import Path

SYS_CPU = Path("/sys/devices/system/cpu")
CGROUP = Path("/sys/fs/cgroup")
PROC_CGROUP = Path("/proc/self/cgroup")
PROC_MEMORY = Path("/proc/meminfo")
PROC_CPUINFO = Path("/proc/cpuinfo")
# What tells CPUs apart whose names are the same, as those of virtual machines are.
MODEL_FIELDS = ("vendor_id", "cpu family", "model", "model name", "stepping", "CPU implementer", "CPU part")
NOT_BUSY = frozenset(("idle", "iowait", "guest", "guest_nice"))  # of what a core does (time of guests is in user, too)
PROC_PRESSURE = Path("/proc/pressure/memory")


def default_threads() -> int:
    """Threads to compute with when nobody says: one for each physical core that this process may use, at least 1.

    The second hyper-thread of a core adds nothing to memory bandwidth, which is what decoding waits for.
    """
    cores = physical_cores(allowed_cpus())
    quota = cgroup_quota()
    return max(1, min(cores, int(quota)) if quota is not None else cores)


def allowed_cpus() -> set[int]:
    """The CPUs that the scheduler may put this process on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def physical_cores(cpus: set[int], sys_cpu: Path = SYS_CPU) -> int:
    """How many distinct cores `cpus` are; each CPU counts as its own core where the system does not tell."""
    return len({_siblings(cpu, sys_cpu) for cpu in cpus})


def cgroup_quota(proc_cgroup: Path = PROC_CGROUP, root: Path = CGROUP) -> float | None:
    """The cores' worth of time that a container or service may use; None when there is no limit.

    Version 2 has cpu.max, version 1 cpu.cfs_quota_us; the tightest of this group and those above it counts.
    """
    quotas = [_v2_quota(folder) for folder in _ancestors(_group(proc_cgroup, ""), root)]
    v1_root = root / "cpu"
    quotas += [_v1_quota(folder) for folder in _ancestors(_group(proc_cgroup, "cpu"), v1_root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def cgroup_memory(proc_cgroup: Path = PROC_CGROUP, root: Path = CGROUP) -> tuple[int | None, int]:
    """The tightest limit in bytes on the memory of this process's groups (None: no limit), and what is used of it.

    Version 2 has memory.max and memory.current, version 1 memory.limit_in_bytes and memory.usage_in_bytes.
    """
    groups = [(folder, "memory.max", "memory.current") for folder in _ancestors(_group(proc_cgroup, ""), root)]
    v1_root = root / "memory"
    v1_folders = _ancestors(_group(proc_cgroup, "memory"), v1_root)
    groups += [(folder, "memory.limit_in_bytes", "memory.usage_in_bytes") for folder in v1_folders]
    limits = [(int(text), folder / used) for folder, name, used in groups if (text := _read(folder / name)).isdigit()]
    if not limits:
        return None, 0
    limit, used_file = min(limits)
    now = _read(used_file)
    return limit, int(now) if now.isdigit() else 0


def free_memory_bytes() -> int:
    """What this process may still take: free memory of the machine, or of its container where that is less."""
    free, headroom = machine_free_bytes(), container_headroom()
    return free if headroom is None else min(free, headroom)


def machine_free_bytes(proc_memory: Path = PROC_MEMORY) -> int:
    """Memory that the machine can give without swapping."""
    if free := _kilobytes(proc_memory, "MemAvailable"):
        return free * 1024
    import psutil  # takes 10 ms to import, as long as all of our own of a command

    return int(psutil.virtual_memory().available)


def cpu_model(cpuinfo: Path = PROC_CPUINFO) -> str:
    """Of which make and model the CPU is, for what was measured on it; all kinds of cores that it has."""
    lines = (line.partition(":") for line in _read(cpuinfo).splitlines())
    values = [f"{name.strip()} {value.strip()}" for name, _, value in lines if name.strip() in MODEL_FIELDS]
    return ", ".join(dict.fromkeys(values))


class Others:
    """How busy other programs are, from when it is made."""

    def __init__(self) -> None:
        self._before = self._busy(), time.process_time(), time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._before[2]

    def share(self) -> float:
        """Of all cores, 0 to 1; 0 where the system does not tell."""
        busy, own, now = self._before
        seconds = max(time.monotonic() - now, 1e-3) * (os.cpu_count() or 1)
        return min(max(self._busy() - busy - (time.process_time() - own), 0.0) / seconds, 1.0)

    @staticmethod
    def _busy() -> float:
        import psutil

        times: dict[str, float] = psutil.cpu_times()._asdict()
        return sum(seconds for name, seconds in times.items() if name not in NOT_BUSY)


def machine_memory_bytes(proc_memory: Path = PROC_MEMORY) -> int:
    """All memory of the machine; 0 where the system does not tell."""
    return _kilobytes(proc_memory, "MemTotal") * 1024


def container_headroom(proc_cgroup: Path = PROC_CGROUP, root: Path = CGROUP) -> int | None:
    """What this process's groups may still take, page cache counted as free; None where nothing limits them."""
    limit, used = cgroup_memory(proc_cgroup, root)
    if limit is None:
        return None
    stats = [
        root / _group(proc_cgroup, "") / "memory.stat",
        root / "memory" / _group(proc_cgroup, "memory") / "memory.stat",
    ]
    lines = [line.split() for stat in stats for line in _read(stat).splitlines()]
    found = {words[0]: int(words[1]) for words in lines}
    cache = [found.get(f"{prefix}inactive_file", 0) + found.get(f"{prefix}active_file", 0) for prefix in ("", "total_")]
    return max(0, limit - used + max(cache))


def memory_stall(proc_pressure: Path = PROC_PRESSURE) -> float:
    """The share of the last ten seconds in which all programs waited for memory; 0 where the system does not tell."""
    for line in _read(proc_pressure).splitlines():
        words = dict(word.split("=") for word in line.split()[1:])
        if line.startswith("full") and "avg10" in words:
            return float(words["avg10"]) / 100.0
    return 0.0


def _kilobytes(proc_memory: Path, wanted: str) -> int:
    for line in _read(proc_memory).splitlines():
        name, _, value = line.partition(":")
        if name == wanted:
            return int(value.split()[0])
    return 0


def _siblings(cpu: int, sys_cpu: Path) -> str:
    return _read(sys_cpu / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu)


def _group(proc_cgroup: Path, controller: str) -> str:
    """This process's group of one controller ("" is version 2), from lines like `0::/user.slice/...`."""
    for line in _read(proc_cgroup).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.strip("/")
    return ""


def _ancestors(group: str, root: Path) -> list[Path]:
    folder = root / group
    return [folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)]


def _v2_quota(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    if len(words) != 2 or not words[0].isdigit():
        return None
    return int(words[0]) / int(words[1])


def _v1_quota(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if not quota.isdigit() or not period.isdigit():
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
