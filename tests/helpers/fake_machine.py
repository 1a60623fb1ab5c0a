"""A made-up machine: files of /sys, /proc and /run below a folder."""

from __future__ import annotations

import os
from pathlib import Path

from swarm.node.sensors import FIRMWARE, POWER_MA, Sensors


class FakeMachine:
    """Write what its kernel would say; `sensors` reads it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sensors = Sensors(root)

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def heat(self, degrees: float, clock_share: float = 1.0) -> None:
        """A processor of 2.4 GHz with two clusters, of which one is held back."""
        self.write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
        self.write("sys/class/thermal/thermal_zone0/temp", f"{int(degrees * 1000)}\n")
        for policy, share in ((0, clock_share), (4, 1.0)):
            folder = f"sys/devices/system/cpu/cpufreq/policy{policy}"
            self.write(f"{folder}/cpuinfo_max_freq", "2400000\n")
            self.write(f"{folder}/scaling_max_freq", f"{int(2_400_000 * share)}\n")

    def firmware(self, bits: int) -> None:
        """A Raspberry Pi."""
        self.write(FIRMWARE, f"{bits:x}\n")

    def supply(self, milliamperes: int) -> None:
        """The power supply of a Raspberry Pi 5."""
        self.write(POWER_MA, milliamperes.to_bytes(4, "big"))

    def battery(self, status: str, *, plugged: bool) -> None:
        self.write("sys/class/power_supply/BAT0/type", "Battery\n")
        self.write("sys/class/power_supply/BAT0/status", f"{status}\n")
        self.write("sys/class/power_supply/AC/type", "Mains\n")
        self.write("sys/class/power_supply/AC/online", f"{int(plugged)}\n")

    def port(self, name: str, mbit: int | None = None, *, wireless: bool = False, state: str = "up") -> None:
        folder = f"sys/class/net/{name}"
        self.write(f"{folder}/device/uevent", "")
        self.write(f"{folder}/operstate", f"{state}\n")
        if mbit is not None:
            self.write(f"{folder}/speed", f"{mbit}\n")
        if wireless:
            self.write(f"{folder}/wireless/status", "")

    def disk(self, device: int, name: str, *, kind: str = "", rotational: int = 0, written_sectors: int = 0) -> None:
        """A disk with one partition, which has this number."""
        folder = f"sys/block/{name}"
        self.write(f"{folder}/stat", f"1 2 3 4 5 6 {written_sectors} 8 9 10 11\n")
        self.write(f"{folder}/queue/rotational", f"{rotational}\n")
        if kind:
            self.write(f"{folder}/device/type", f"{kind}\n")
        self.write(f"{folder}/{name}p1/partition", "1\n")
        link = self.root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(self.root / folder / f"{name}p1")
