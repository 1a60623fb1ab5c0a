"""What the system says of this machine's health: heat, throttling, power, swap, disks, network interfaces.

Everything is read from /sys, /proc and /run below one root, so that a test can make any machine up. What a machine does
not tell is None: no value here is ever guessed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

MAX_SENSOR_BYTES = 64 * 1024  # of a file of the kernel's
CPU_ZONES = ("cpu", "soc", "x86_pkg_temp", "acpitz", "coretemp", "k10temp")  # types of thermal zones, as they begin
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"  # Raspberry Pi, world-readable since Linux 5.4
POWER_MA = "proc/device-tree/chosen/power/max_current"  # Raspberry Pi 5: what its power supply says it can give


class Throttled(IntFlag):
    """Bits of the Raspberry Pi's firmware (raspberrypi.com, `vcgencmd get_throttled`)."""

    UNDERVOLTAGE = 1 << 0
    CAPPED = 1 << 1
    THROTTLED = 1 << 2
    SOFT_LIMIT = 1 << 3
    WAS_UNDERVOLTAGE = 1 << 16
    WAS_CAPPED = 1 << 17
    WAS_THROTTLED = 1 << 18
    WAS_SOFT_LIMIT = 1 << 19


SLOWED = Throttled.CAPPED | Throttled.THROTTLED | Throttled.SOFT_LIMIT
FIRMWARE_SHARES = ((Throttled.THROTTLED, 0.5), (Throttled.CAPPED, 0.6), (Throttled.SOFT_LIMIT, 0.8))


@dataclass(frozen=True)
class Swap:
    """One place that memory is swapped to."""

    name: str
    total_bytes: int
    used_bytes: int

    @property
    def is_compressed_memory(self) -> bool:
        return Path(self.name).name.startswith("zram")


@dataclass(frozen=True)
class Disk:
    """The device that a folder lies on."""

    name: str  # mmcblk0, sda, nvme0n1
    is_sd_card: bool
    spins: bool
    written_bytes: int  # since the boot, by everybody


@dataclass(frozen=True)
class NetworkPort:
    """A network interface of the machine itself."""

    name: str
    is_wireless: bool
    mbit_per_s: int | None


@dataclass(frozen=True)
class Sensors:
    """Reads below `root`."""

    root: Path = Path("/")

    def temperature_c(self) -> float | None:
        """Of the hottest part of the processor."""
        found = []
        for zone in self._all("sys/class/thermal/thermal_zone*"):
            milli = _number(zone / "temp")
            if milli is not None and _text(zone / "type").lower().startswith(CPU_ZONES) and 0 < milli < 150_000:
                found.append(milli / 1000)
        return max(found, default=None)

    def clock_share(self) -> float | None:
        """The clock that the processor may run at now, as a share of the highest: 1 when nothing slows it down."""
        shares = [self._capped_share(folder) for folder in self._all("sys/devices/system/cpu/cpufreq/policy*")]
        told = [share for share in shares if share is not None]
        firmware = self.firmware()
        if firmware is not None:
            told += [share for bit, share in FIRMWARE_SHARES if firmware & bit] or [1.0]
        return min(told, default=None)

    def firmware(self) -> Throttled | None:
        """What a Raspberry Pi's firmware says of heat and voltage."""
        try:
            return Throttled(int(_text(self.root / FIRMWARE), 16) & sum(Throttled))
        except ValueError:
            return None

    def throttled_ms(self) -> int | None:
        """Milliseconds since the boot in which an x86 processor was held back by its heat, on its worst core."""
        files = self._all("sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_total_time_ms")
        times = [_number(file) for file in files]
        return max((each for each in times if each is not None), default=None)

    def supply_ma(self) -> int | None:
        """What the power supply of a Raspberry Pi 5 can give, in milliamperes."""
        raw = _bytes(self.root / POWER_MA)
        return int.from_bytes(raw, "big") if len(raw) == 4 else None

    def on_battery(self) -> bool | None:
        """True while a battery is being emptied; None for a machine without one."""
        supplies = [(_text(each / "type"), each) for each in self._all("sys/class/power_supply/*")]
        batteries = [each for kind, each in supplies if kind == "Battery" and _text(each / "scope") != "Device"]
        if not batteries:
            return None
        mains = [_number(each / "online") for kind, each in supplies if kind in ("Mains", "USB")]
        is_plugged = any(each == 1 for each in mains)
        return not is_plugged and any(_text(each / "status") == "Discharging" for each in batteries)

    def swaps(self) -> tuple[Swap, ...]:
        """Where memory is swapped to."""
        rows = [line.split() for line in _text(self.root / "proc/swaps").splitlines()[1:]]
        return tuple(Swap(row[0], int(row[2]) * 1024, int(row[3]) * 1024) for row in rows if len(row) >= 4)

    def disk_of(self, device: int) -> Disk | None:
        """The disk with this number (st_dev of a file); None for what is no block device, such as tmpfs."""
        link = self.root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
        if not link.exists():
            return None
        folder = link.resolve()
        if (folder / "partition").exists():
            folder = folder.parent
        fields = _text(folder / "stat").split()
        kind = _text(folder / "device/type")
        return Disk(
            name=folder.name,
            is_sd_card=folder.name.startswith("mmcblk") and kind != "MMC",  # which is soldered: eMMC
            spins=_text(folder / "queue/rotational") == "1" and not folder.name.startswith(("mmcblk", "vd", "xvd")),
            written_bytes=int(fields[6]) * 512 if len(fields) > 6 and fields[6].isdigit() else 0,
        )

    def ports(self) -> tuple[NetworkPort, ...]:
        """Network interfaces of the machine itself that are connected."""
        found = []
        for folder in self._all("sys/class/net/*"):
            if not (folder / "device").exists() or _text(folder / "operstate") != "up":
                continue
            speed = _number(folder / "speed")
            is_wireless = (folder / "wireless").exists() or (folder / "phy80211").exists()
            found.append(NetworkPort(folder.name, is_wireless, speed if speed is not None and speed > 0 else None))
        return tuple(found)

    def is_clock_set(self) -> bool | None:
        """Whether the clock was set from the network since the boot; None where systemd does not keep it."""
        folder = self.root / "run/systemd/timesync"
        return (folder / "synchronized").exists() if folder.is_dir() else None

    def groups_limit_memory(self) -> bool | None:
        """Whether the kernel can limit the memory of a service; None where that cannot be told."""
        text = _text(self.root / "sys/fs/cgroup/cgroup.controllers")
        return "memory" in text.split() if text else None

    # --- within

    def _all(self, pattern: str) -> Iterator[Path]:
        return iter(sorted(self.root.glob(pattern)))

    def _capped_share(self, policy: Path) -> float | None:
        now, most = _number(policy / "scaling_max_freq"), _number(policy / "cpuinfo_max_freq")
        return min(now / most, 1.0) if now and most else None


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace").strip("\0 \n\t")


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SENSOR_BYTES)
    except OSError:
        return b""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.removeprefix("-").isdecimal() else None
