"""The doctor on machines that are made up: each trouble is one line with what to do, and a healthy one has none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm import config
from swarm.cli import doctor_device
from swarm.cli.finding import Finding
from swarm.node.home import Home
from tests.helpers.fake_machine import FakeMachine

Check = Callable[[config.Settings], list[Finding]]


@pytest.fixture
def machine(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    root = tmp_path / "machine"
    monkeypatch.setenv("SWARM_MACHINE_ROOT", str(root))
    monkeypatch.setattr(doctor_device, "disk_speed", lambda folder: 90e6)
    return FakeMachine(root)


def told(check: Check) -> tuple[str, str, str]:
    (found,) = check(config.load())
    return found.level, found.text, found.advice


def test_a_healthy_machine_has_nothing_to_mend(machine: FakeMachine) -> None:
    machine.heat(55.0)
    machine.firmware(0)
    machine.supply(5000)
    machine.port("eth0", 1000)
    findings = [found for check in doctor_device.CHECKS for found in check(config.load())]
    assert {found.level for found in findings} == {"ok"}
    assert not [found for found in findings if found.advice]


def test_a_machine_that_tells_nothing_has_nothing_to_mend_either(machine: FakeMachine) -> None:
    findings = [found for check in doctor_device.CHECKS for found in check(config.load())]
    assert {found.level for found in findings} == {"ok"}


def test_heat_that_slows_the_processor_down(machine: FakeMachine) -> None:
    machine.heat(84.0, 0.625)
    level, text, advice = told(doctor_device.check_heat)
    assert (level, text) == ("warning", "84 °C; the processor is held to 62% of its clock") and "fan" in advice


def test_heat_that_soon_will(machine: FakeMachine) -> None:
    machine.heat(81.0)
    assert told(doctor_device.check_heat)[:2] == ("warning", "81 °C: it will slow down soon")


def test_heat_of_the_past(machine: FakeMachine) -> None:
    machine.heat(50.0)
    machine.firmware(0x40000)
    assert "too hot since the start" in told(doctor_device.check_heat)[1]


@pytest.mark.parametrize(("bits", "when"), [(0x50005, "just now"), (0x50000, "since the start")])
def test_undervoltage_is_told_with_the_power_supply_to_use(machine: FakeMachine, bits: int, when: str) -> None:
    machine.firmware(bits)
    level, text, advice = told(doctor_device.check_power)
    assert level == "warning" and f"too little voltage {when}" in text and "27 W" in advice


def test_a_power_supply_that_is_too_small_is_told_before_anything_happens(machine: FakeMachine) -> None:
    machine.firmware(0)
    machine.supply(3000)
    assert told(doctor_device.check_power)[:2] == ("warning", "the power supply gives 3 A, 5 A are needed")


def test_swap_on_an_sd_card(machine: FakeMachine) -> None:
    machine.write("proc/swaps", "Filename Type Size Used Priority\n/var/swap file 524284 0 -2\n")
    level, text, advice = told(doctor_device.check_swap)
    assert level == "warning" and "wears the card out" in text and "dphys-swapfile" in advice


def test_memory_that_was_swapped_out(machine: FakeMachine) -> None:
    machine.write("proc/swaps", "Filename Type Size Used Priority\n/dev/sda3 partition 2097148 1048576 -2\n")
    level, text, advice = told(doctor_device.check_swap)
    assert level == "warning" and text.startswith("1 GiB of memory lies on a disk") and "--memory" in advice


def test_compressed_memory_is_fine(machine: FakeMachine) -> None:
    machine.write("proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 2097148 1048576 100\n")
    assert told(doctor_device.check_swap)[:2] == ("ok", "compressed memory (/dev/zram0 2 GiB)")


def test_a_slow_card_is_told_with_how_much_is_written_to_it(
    machine: FakeMachine, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_device, "disk_speed", lambda folder: 9e6)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: 2 * 86_400.0)
    machine.disk(own_home.stat().st_dev, "mmcblk0", kind="SD", written_sectors=4 * 2**21)
    level, text, advice = told(doctor_device.check_storage)
    assert text == "SD card mmcblk0, reads 9 MB/s; 2 GiB a day written since the start, by all programs"
    assert level == "warning" and "SSD" in advice


def test_what_was_measured_is_not_measured_again(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(config.load().home_path)
    home.make()
    home.measured_file.write_text('{"disk_bytes_per_s": 2e8}')
    monkeypatch.setattr(doctor_device, "disk_speed", lambda folder: pytest.fail("an SD card is worn by writing"))
    assert "reads 200 MB/s" in told(doctor_device.check_storage)[1]


def test_folders_that_cannot_be_written_are_problems(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_MODELS_DIR", "/proc/nowhere")
    level, text, advice = told(doctor_device.check_writable)
    assert level == "problem" and "models cannot be written into /proc/nowhere" in text and "models_dir" in advice


def test_looking_leaves_nothing_behind(machine: FakeMachine, tmp_path: Path) -> None:
    assert doctor_device.why_not_writable(tmp_path / "a" / "b") == ""
    assert not [name for name in os.listdir(tmp_path) if "doctor" in name]


def test_a_disk_without_room_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_device, "spare_bytes", lambda folder: 0)
    assert doctor_device.why_not_writable(tmp_path) == "less than 64 MiB is free"


def test_a_clock_that_was_never_set(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000.0)
    level, text, advice = told(doctor_device.check_clock)
    assert level == "warning" and "the clock says" in text and "set-ntp" in advice


def test_a_clock_that_is_not_set_yet(machine: FakeMachine) -> None:
    machine.write("run/systemd/timesync/clock", "")
    assert told(doctor_device.check_clock)[0] == "warning"


def test_a_cable_with_four_wires(machine: FakeMachine) -> None:
    machine.port("eth0", 100)
    level, text, advice = told(doctor_device.check_cables)
    assert (level, text) == ("warning", "eth0 runs at 100 Mbit/s") and "eight wires" in advice


@pytest.mark.parametrize("saves", [True, False])
def test_wifi_that_sleeps_between_packets(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, saves: bool) -> None:
    machine.port("wlan0", wireless=True)
    monkeypatch.setattr(doctor_device, "wifi_saves_power", lambda name: saves)
    level, _, advice = told(doctor_device.check_cables)
    assert (level == "warning") is saves and ("power_save off" in advice) is saves


def test_an_interface_that_is_not_there_saves_no_power() -> None:
    assert doctor_device.wifi_saves_power("no-such-if") is False


def test_a_node_without_a_service_is_told_how_to_get_one(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from swarm.cli import systemd
    from swarm.node.home import Running

    monkeypatch.setattr(systemd, "BOOTED", tmp_path)
    assert doctor_device.check_service(config.load()) == []
    home = Home(config.load().home_path)
    home.make()
    home.say_running(Running(1, "ab", "attic", 7417, 8642, "x"))
    assert "swarm service install" in told(doctor_device.check_service)[1]


def test_a_kernel_that_limits_no_memory_is_told_with_the_line_to_add(machine: FakeMachine, own_home: Path) -> None:
    unit = own_home / ".config/systemd/user/swarm.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    machine.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n")
    level, _, advice = told(doctor_device.check_service)
    assert level == "warning" and "cgroup_enable=memory" in advice
    machine.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
    assert told(doctor_device.check_service)[0] == "ok"
