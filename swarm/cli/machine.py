"""What this device is: processor, memory, disk. Read from the system, for `doctor`, `show` and `bench`."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from swarm import cores

CPUINFO = Path("/proc/cpuinfo")
DEVICE_TREE_MODEL = Path("/proc/device-tree/model")
# Arm cores by implementer 0x41 and part number, as /proc/cpuinfo has them (Arm's MIDR tables).
ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd41": "Cortex-A78",
}


@dataclass(frozen=True)
class SystemMemory:
    """Bytes of RAM that this process may use in all, and that are free for it now."""

    total: int
    available: int
    limited_by_group: bool  # a container or service limit is below what the machine has


def memory() -> SystemMemory:
    """RAM, within the limit of the cgroup this process is in."""
    machine = psutil.virtual_memory()
    limit, used = cores.cgroup_memory()
    if limit is None or limit >= machine.total:
        return SystemMemory(machine.total, machine.available, False)
    return SystemMemory(limit, min(machine.available, max(0, limit - used)), True)


def cpu_name(cpuinfo: Path = CPUINFO, device_tree: Path = DEVICE_TREE_MODEL) -> str:
    """What a person calls the processor; a Raspberry Pi names its board and core."""
    fields = _cpuinfo_fields(cpuinfo)
    board = _text(device_tree).strip("\0\n ")
    core = fields.get("model name") or ARM_PARTS.get(fields.get("CPU part", ""), "")
    named = ", ".join(part for part in (board, core) if part)
    return named or platform.processor() or platform.machine()


def _cpuinfo_fields(path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
