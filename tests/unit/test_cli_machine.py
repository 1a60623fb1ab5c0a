"""What this device is."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli import machine


def test_a_raspberry_pi_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nCPU part\t: 0xd0b\nRevision\t: d04170\n")
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    named = machine.cpu_name(tmp_path / "cpuinfo", tmp_path / "model")
    assert named == "Raspberry Pi 5 Model B Rev 1.0, Cortex-A76"


def test_a_container_limit_counts_as_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.cores.cgroup_memory", lambda: (500_000_000, 200_000_000))
    memory = machine.memory()
    assert (memory.total, memory.limited_by_group) == (500_000_000, True)
    assert memory.available <= 300_000_000
