"""Typical figures of device classes, for `swarm plan --add pi5:8GiB`: what a device would bring before anybody owns it.

These are typical, not measured here; a device in the swarm always counts with what it measured itself. Sources:
- pi4: 1312 ms a token for Llama 2 7B Q40 (4.1 GB) alone, distributed-llama's README: 3.1 GB/s. No dot product
  instructions: about a quarter of a Pi 5's multiply-adds.
- pi5: 2.17 tok/s for Llama 3.1 8B Q4 (4.7 GB), ollama: 10.2 GB/s; 15.1 tok/s prefill of a 3B model, llama.cpp on a CM5:
  48 G multiply-adds/s.
- n100, laptop, minipc: 0.8 of what their memory can do, which good kernels reach (one channel of DDR4-3200; two of
  DDR4-2666; two of DDR5-4800); multiply-adds of four small cores with AVX2, four with AVX2, eight with VNNI.

- disks: an SD card (pi4, pi5), a SATA SSD (n100), NVMe (laptop, minipc).

Usable memory is what a system without (pi, n100) or with (laptop, minipc) a desktop leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from swarm.cluster.cost import Device, LinkSpeed, exchange_of
from swarm.errors import ConfigError
from swarm.units import GIB, parse_size
from swarm.wire.ids import PeerId


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """One kind of device; all figures are typical."""

    name: str
    what: str
    memory_bytes: int  # when none is given
    usable_share: float
    read_bytes_per_s: float
    macs_per_s: float
    step_s: float  # Python and barriers of one step
    disk_bytes_per_s: float


CLASSES = {
    c.name: c
    for c in (
        DeviceClass("pi4", "Raspberry Pi 4", 8 * GIB, 0.90, 3.1e9, 12e9, 500e-6, 45e6),
        DeviceClass("pi5", "Raspberry Pi 5", 8 * GIB, 0.90, 10.2e9, 48e9, 300e-6, 85e6),
        DeviceClass("n100", "mini PC with an Intel N100", 16 * GIB, 0.92, 20e9, 100e9, 200e-6, 450e6),
        DeviceClass("laptop", "laptop with two channels of DDR4", 16 * GIB, 0.78, 34e9, 250e9, 150e-6, 1.5e9),
        DeviceClass(
            "minipc", "mini PC or laptop with two channels of DDR5", 32 * GIB, 0.92, 60e9, 500e9, 150e-6, 2.5e9
        ),
    )
}
WIRED = LinkSpeed(rtt_s=0.5e-3, bytes_per_s=117e6)  # gigabit Ethernet through one switch
WIFI = LinkSpeed(rtt_s=4e-3, bytes_per_s=25e6)  # good Wi-Fi 5
FREE_DISK_BYTES = 64 * GIB  # of a device that nobody owns yet: a common SD card or SSD, minus its system
MAX_ADDED = 64  # devices of one plan, in all: those of a large home; the search stays well under a second


def with_added(devices: Sequence[Device], texts: Sequence[str]) -> list[Device]:
    """The devices there are and those of every `--add`; ConfigError when one of these is none, or they are too many."""
    added: list[Device] = []
    for text in texts:
        added += typical_devices(text, start=len(added))
        if len(added) > MAX_ADDED:
            raise ConfigError(f"a plan can count with at most {MAX_ADDED} devices more; add fewer")
    return [*devices, *added]


def typical_devices(text: str, start: int = 0) -> list[Device]:
    """Devices of `CLASS[:MEMORY][xN]`, such as pi5, pi5:8GiB, n100:16GiBx3; `start` numbers them."""
    match = re.fullmatch(r"([a-z0-9]+?)(?::([0-9.]+)([A-Za-z]*?))?(?:x(\d+))?", text.strip())
    kind = CLASSES.get(match[1]) if match else None
    if match is None or kind is None:
        raise ConfigError(
            f"{text!r} is no device; write {', '.join(CLASSES)}, with its memory (pi5:8GiB or pi5:8GiBx4)"
        )
    memory = _memory(match[2], match[3], text) if match[2] else kind.memory_bytes
    count = int(match[4] or 1)
    if not 1 <= count <= MAX_ADDED:
        raise ConfigError(f"{text!r}: add from 1 to {MAX_ADDED} devices at once")
    return [_device(kind, memory, start + i) for i in range(count)]


def _memory(number: str, unit: str, text: str) -> int:
    n_bytes = parse_size(number + unit) or 0
    if not 0 < n_bytes < 2**50:
        raise ConfigError(f"{text!r}: {number}{unit} is no amount of memory; write it as 8GiB")
    return n_bytes


def _device(kind: DeviceClass, memory: int, index: int) -> Device:
    return Device(
        id=PeerId(f"{'f' * 24}{index:08x}"),  # after all real ones
        name=f"{kind.name} (added {index + 1})",
        memory_bytes=int(memory * kind.usable_share),
        disk_bytes=FREE_DISK_BYTES,
        read_bytes_per_s=kind.read_bytes_per_s,
        macs_per_s=kind.macs_per_s,
        step_s=kind.step_s,
        disk_bytes_per_s=kind.disk_bytes_per_s,
        slices=True,
        exchange=exchange_of(kind.step_s),
    )
