"""The machine's health is read as its kernel tells it; what it does not tell is None."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm.node.sensors import NetworkPort, Sensors, Swap, Throttled
from tests.helpers.fake_machine import FakeMachine


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def test_a_machine_that_tells_nothing_is_asked_in_vain(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path)
    assert sensors.temperature_c() is sensors.clock_share() is sensors.firmware() is sensors.throttled_ms() is None
    assert sensors.on_battery() is sensors.supply_ma() is sensors.is_clock_set() is sensors.disk_of(2049) is None
    assert sensors.swaps() == sensors.ports() == ()


def test_this_machine_can_be_asked() -> None:
    sensors = Sensors()
    for ask in (sensors.temperature_c, sensors.clock_share, sensors.firmware, sensors.on_battery, sensors.ports):
        ask()
    assert sensors.disk_of(os.stat("/proc").st_dev) is None


def test_the_hottest_part_of_the_processor_counts(machine: FakeMachine) -> None:
    machine.heat(61.5)
    machine.write("sys/class/thermal/thermal_zone1/type", "x86_pkg_temp\n")
    machine.write("sys/class/thermal/thermal_zone1/temp", "72000\n")
    machine.write("sys/class/thermal/thermal_zone2/type", "iwlwifi_1\n")
    machine.write("sys/class/thermal/thermal_zone2/temp", "99000\n")
    assert machine.sensors.temperature_c() == 72.0
    machine.write("sys/class/thermal/thermal_zone1/temp", "-274000\n")
    assert machine.sensors.temperature_c() == 61.5, "a broken sensor"


def test_a_clock_that_the_kernel_holds_down_is_told(machine: FakeMachine) -> None:
    machine.heat(85.0, 0.625)
    assert machine.sensors.clock_share() == 0.625


@pytest.mark.parametrize(
    ("bits", "share"), [(0x0, 1.0), (0x50000, 1.0), (0x4, 0.5), (0xE, 0.5), (0x2, 0.6), (0x8, 0.8)]
)
def test_what_a_raspberry_pis_firmware_says(machine: FakeMachine, bits: int, share: float) -> None:
    machine.heat(80.0)
    machine.firmware(bits)
    assert machine.sensors.clock_share() == share
    assert machine.sensors.firmware() == Throttled(bits)


def test_firmware_that_says_nonsense_says_nothing(machine: FakeMachine) -> None:
    machine.write("sys/devices/platform/soc/soc:firmware/get_throttled", "what?\n")
    assert machine.sensors.firmware() is None


def test_milliseconds_of_throttling_are_those_of_the_worst_core(machine: FakeMachine) -> None:
    for core, ms in ((0, 40), (1, 70)):
        machine.write(f"sys/devices/system/cpu/cpu{core}/thermal_throttle/package_throttle_total_time_ms", f"{ms}\n")
    assert machine.sensors.throttled_ms() == 70


@pytest.mark.parametrize(
    ("status", "plugged", "on_battery"),
    [("Discharging", False, True), ("Discharging", True, False), ("Charging", True, False), ("Full", False, False)],
)
def test_a_battery_that_is_emptied(machine: FakeMachine, status: str, plugged: bool, on_battery: bool) -> None:
    machine.battery(status, plugged=plugged)
    assert machine.sensors.on_battery() is on_battery


def test_the_battery_of_a_mouse_is_not_the_machines(machine: FakeMachine) -> None:
    machine.write("sys/class/power_supply/mouse/type", "Battery\n")
    machine.write("sys/class/power_supply/mouse/scope", "Device\n")
    machine.write("sys/class/power_supply/mouse/status", "Discharging\n")
    assert machine.sensors.on_battery() is None


def test_swap_is_on_a_disk_or_in_memory(machine: FakeMachine) -> None:
    machine.write(
        "proc/swaps", "Filename Type Size Used Priority\n/var/swap file 524284 1024 -2\n/dev/zram0 partition 10 0 5\n"
    )
    disk, memory = machine.sensors.swaps()
    assert disk == Swap("/var/swap", 524284 * 1024, 1024 * 1024) and not disk.is_compressed_memory
    assert memory.is_compressed_memory


@pytest.mark.parametrize(
    ("name", "kind", "rotational", "is_what"),
    [("mmcblk0", "SD", 0, "card"), ("mmcblk0", "MMC", 0, ""), ("sda", "", 1, "spins"), ("nvme0n1", "", 0, "")],
)
def test_the_disk_of_a_folder_is_known(
    machine: FakeMachine, name: str, kind: str, rotational: int, is_what: str
) -> None:
    number = os.makedev(179, 2)
    machine.disk(number, name, kind=kind, rotational=rotational, written_sectors=2048)
    disk = machine.sensors.disk_of(number)
    assert disk is not None and (disk.name, disk.written_bytes) == (name, 1 << 20)
    assert (disk.is_sd_card, disk.spins) == (is_what == "card", is_what == "spins")


def test_interfaces_of_the_machine_itself_that_are_connected(machine: FakeMachine) -> None:
    machine.port("eth0", 100)
    machine.port("eth1", -1)
    machine.port("wlan0", wireless=True)
    machine.port("eth2", 1000, state="down")
    machine.write("sys/class/net/docker0/operstate", "up\n")
    assert machine.sensors.ports() == (
        NetworkPort("eth0", False, 100),
        NetworkPort("eth1", False, None),
        NetworkPort("wlan0", True, None),
    )


def test_a_clock_that_was_set(machine: FakeMachine) -> None:
    machine.write("run/systemd/timesync/clock", "")
    assert machine.sensors.is_clock_set() is False
    machine.write("run/systemd/timesync/synchronized", "")
    assert machine.sensors.is_clock_set() is True


def test_the_power_supply_of_a_raspberry_pi_5(machine: FakeMachine) -> None:
    machine.supply(3000)
    assert machine.sensors.supply_ma() == 3000
