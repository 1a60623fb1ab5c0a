"""What `swarm doctor` says about the machine itself: heat, power, swap, the disk, the clock, cables and Wi-Fi."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from pathlib import Path

from swarm import config
from swarm.cli.finding import Finding
from swarm.files import existing, spare_bytes
from swarm.limits import MIN_FREE_DISK_BYTES
from swarm.node.home import Home, read_json
from swarm.node.measure import disk_speed
from swarm.node.sensors import SLOWED, Disk, NetworkPort, Sensors, Throttled
from swarm.units import rate_text, size_text

HOT_C = 80.0  # a Raspberry Pi slows down from here
GOOD_SUPPLY_MA = 5000  # of a Raspberry Pi 5
SLOW_DISK_BYTES_S = 15e6  # a layer of 100 MB takes seven seconds from there
NOT_BEFORE = 1_767_225_600  # 2026: a clock before that was never set
SWAPPING_BYTES = 64 * 2**20
SLOW_PORT_MBIT = 100
SIOCGIWPOWER = 0x8B2D  # linux/wireless.h
IW_PARAM = struct.Struct("16siBBH")


def check_heat(settings: config.Settings) -> list[Finding]:
    """The temperature, and whether heat slows the processor down now, or has since the start."""
    sensors = Sensors(config.machine_root())
    degrees, share, firmware = sensors.temperature_c(), sensors.clock_share(), sensors.firmware() or Throttled(0)
    if degrees is None and share is None:
        return [Finding("heat", "this machine does not tell its temperature")]
    text = f"{degrees:.0f} °C" if degrees is not None else "temperature unknown"
    advice = "give it a fan or heat sink, or more air; until then others count with its lower speed"
    if (share is not None and share < 1) or firmware & SLOWED:
        return [Finding("heat", f"{text}; the processor is held to {share or 0:.0%} of its clock", "warning", advice)]
    if degrees is not None and degrees >= HOT_C:
        return [Finding("heat", f"{text}: it will slow down soon", "warning", advice)]
    if firmware & (Throttled.WAS_THROTTLED | Throttled.WAS_SOFT_LIMIT):
        return [Finding("heat", f"{text} now; it was too hot since the start, and slowed down", "warning", advice)]
    return [Finding("heat", text)]


def check_power(settings: config.Settings) -> list[Finding]:
    """Undervoltage, a power supply that is too small, a battery."""
    sensors = Sensors(config.machine_root())
    firmware, supply_ma = sensors.firmware() or Throttled(0), sensors.supply_ma()
    advice = "use the power supply made for it (Raspberry Pi 5: 27 W), a short cable, and disks with power of their own"
    if firmware & (Throttled.UNDERVOLTAGE | Throttled.WAS_UNDERVOLTAGE):
        when = "just now" if firmware & Throttled.UNDERVOLTAGE else "since the start"
        return [Finding("power", f"too little voltage {when}: it slows down, and may lose data", "warning", advice)]
    if supply_ma is not None and supply_ma < GOOD_SUPPLY_MA:
        return [Finding("power", f"the power supply gives {supply_ma / 1000:.3g} A, 5 A are needed", "warning", advice)]
    if sensors.on_battery():
        return [Finding("power", "on battery; the setting pause says whether it takes part then")]
    return [Finding("power", "no undervoltage")] if sensors.firmware() is not None else []


def check_swap(settings: config.Settings) -> list[Finding]:
    """Weights that are swapped out make a token take minutes; on an SD card, swapping also wears it out."""
    swaps = [swap for swap in Sensors(config.machine_root()).swaps() if swap.total_bytes]
    if not swaps:
        return [Finding("swap", "none, as it should be for large models")]
    packed = [swap for swap in swaps if swap.is_compressed_memory]
    disks = [swap for swap in swaps if not swap.is_compressed_memory]
    used = sum(swap.used_bytes for swap in disks)
    names = ", ".join(f"{swap.name} {size_text(swap.total_bytes)}" for swap in swaps)
    if used > SWAPPING_BYTES:
        advice = "lend less memory (swarm join --memory), or close programs; `swarm service install` never swaps"
        return [Finding("swap", f"{size_text(used)} of memory lies on a disk ({names})", "warning", advice)]
    if disks and any("mmcblk" in swap.name or swap.name == "/var/swap" for swap in disks):
        advice = "sudo systemctl disable --now dphys-swapfile (Raspberry Pi OS), or see that the node is a service"
        return [Finding("swap", f"on the SD card ({names}): slow, and it wears the card out", "warning", advice)]
    what = "compressed memory" if packed and not disks else "little used"
    return [Finding("swap", f"{what} ({names})")]


def check_storage(settings: config.Settings) -> list[Finding]:
    """What the node's folder lies on, how fast that is, and how much is written to it."""
    home = Home(settings.home_path)
    disk = Sensors(config.machine_root()).disk_of(existing(home.root).stat().st_dev)
    measured = read_json(home.measured_file)
    speed = measured.get("disk_bytes_per_s", 0.0) if isinstance(measured, dict) else 0.0
    if not isinstance(speed, float) or speed <= 0:
        speed = disk_speed(existing(home.root))
    kind = kind_of(disk)
    text = f"{kind}, reads {rate_text(speed)}" if speed else f"{kind}; its speed cannot be measured"
    if disk is not None and disk.written_bytes:
        text += f"; {rate_of_writes(disk.written_bytes)} written since the start, by all programs"
    if 0 < speed < SLOW_DISK_BYTES_S:
        advice = (
            "loading a model takes minutes from there: an A2 card or an SSD at USB 3 is five to twenty times as fast"
        )
        return [Finding("storage", text, "warning", advice)]
    return [Finding("storage", text)]


def kind_of(disk: Disk | None) -> str:
    """What a person calls it."""
    if disk is None:
        return "a file system without a disk of its own"
    return f"{'SD card' if disk.is_sd_card else 'spinning disk' if disk.spins else 'disk'} {disk.name}"


def rate_of_writes(n_bytes: int) -> str:
    """How much a day was written, from what was written since the boot."""
    days = max(time.clock_gettime(time.CLOCK_BOOTTIME) / 86_400, 1 / 24)
    return f"{size_text(n_bytes / days)} a day"


def check_writable(settings: config.Settings) -> list[Finding]:
    """That files can be written where models, keys and chunks are kept: only trying tells."""
    found = []
    for what, setting, folder in (
        ("models", "models_dir", settings.models_path),
        ("keys and chunks", "home", settings.home_path),
    ):
        problem = why_not_writable(folder)
        if problem:
            advice = f"set {setting} to a folder that you can write, or mend this one"
            found.append(Finding("files", f"{what} cannot be written into {folder} ({problem})", "problem", advice))
    return found or [Finding("files", "models, keys and chunks can be written")]


def why_not_writable(folder: Path) -> str:
    """Why a file cannot be made there, or below the nearest folder that is there already; empty when it can."""
    path = existing(folder) / f".swarm-doctor-{os.getpid()}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return error.strerror or str(error)
    try:
        os.write(descriptor, b"x")
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)
    return "" if spare_bytes(folder) else f"less than {size_text(MIN_FREE_DISK_BYTES)} is free"


def check_clock(settings: config.Settings) -> list[Finding]:
    """A Raspberry Pi has no clock that runs while it is off: without network time, downloads are refused."""
    advice = "sudo timedatectl set-ntp true, and wait a minute"
    if time.time() < NOT_BEFORE:
        text = f"the clock says {time.strftime('%Y-%m-%d')}; downloads fail like this, and logs mislead"
        return [Finding("clock", text, "warning", advice)]
    if Sensors(config.machine_root()).is_clock_set() is False:
        return [Finding("clock", "not yet set from the network since the start", "warning", advice)]
    return [Finding("clock", time.strftime("%Y-%m-%d %H:%M %Z"))]


def check_cables(settings: config.Settings) -> list[Finding]:
    """How fast each interface is connected, and whether its Wi-Fi sleeps between packets."""
    return [finding for port in Sensors(config.machine_root()).ports() for finding in findings_of(port)]


def findings_of(port: NetworkPort) -> list[Finding]:
    """What there is to say of one interface."""
    name, mbit = port.name, port.mbit_per_s
    if port.is_wireless:
        if wifi_saves_power(name):
            advice = f"sudo iw dev {name} set power_save off (docs/raspberry-pi.md keeps it off)"
            return [Finding("Wi-Fi", f"{name} saves power: messages wait up to 100 ms", "warning", advice)]
        return [Finding("Wi-Fi", f"{name}; a cable would make a token arrive five to ten times as soon")]
    if mbit is not None and mbit <= SLOW_PORT_MBIT:
        advice = "use a cable with all eight wires (Cat 5e) and a gigabit port: models come ten times as fast"
        return [Finding("cable", f"{name} runs at {mbit} Mbit/s", "warning", advice)]
    return [Finding("cable", f"{name} runs at {mbit} Mbit/s")] if mbit is not None else []


def wifi_saves_power(name: str) -> bool:
    """Whether a Wi-Fi interface sleeps between packets; False where the system does not tell."""
    request = IW_PARAM.pack(name.encode()[:15], 0, 0, 0, 0).ljust(32, b"\0")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            reply = fcntl.ioctl(any_socket.fileno(), SIOCGIWPOWER, request)
    except OSError:
        return False
    return not IW_PARAM.unpack(reply[: IW_PARAM.size])[3]  # the field says whether saving is disabled


def check_service(settings: config.Settings) -> list[Finding]:
    """Whether the node comes back after a restart, and whether the kernel can keep it within its memory."""
    from swarm.cli.systemd import BOOTED, installed

    if installed() is None:
        if not BOOTED.is_dir() or Home(settings.home_path).running() is None:
            return []
        return [Finding("service", "the node does not come back after a restart; `swarm service install` sees to that")]
    if Sensors(config.machine_root()).groups_limit_memory() is False:
        advice = "add cgroup_enable=memory to /boot/firmware/cmdline.txt (one line) and restart"
        return [Finding("service", "this kernel does not limit a service's memory", "warning", advice)]
    return [Finding("service", "starts with the device")]


CHECKS = (
    check_heat,
    check_power,
    check_swap,
    check_storage,
    check_writable,
    check_clock,
    check_service,
    check_cables,
)
