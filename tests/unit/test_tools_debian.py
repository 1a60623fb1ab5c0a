"""The clean systems that a release is tried in: what reaches them of this machine, and what is left of them here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import debian


def test_a_command_there_has_nothing_of_this_machines_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/here")
    monkeypatch.setenv("SWARM_HOME", "/here")
    monkeypatch.setenv("QEMU_CPU", "cortex-a72")
    made = debian.environment("pi")
    assert not any("/here" in value for value in made.values())
    assert (made["HOME"], made["QEMU_CPU"]) == ("/home/pi", "cortex-a72")
    assert made["PATH"].startswith("/home/pi/.local/bin:")


def test_a_system_reaches_the_network_as_this_machine_does(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    debian.give_network(tmp_path)
    assert (tmp_path / "etc/hosts").read_bytes() == Path("/etc/hosts").read_bytes()
    assert not (tmp_path / debian.CERTIFICATES).exists(), "no folders are made for what it has not"


def test_every_hierarchy_of_this_machine_is_mounted_again_as_it_is() -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    hierarchies = [(where, kind) for _, where, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]
    for where, kind in hierarchies:
        found, options = debian.how_mounted(Path(where))
        assert found == kind and "rw" not in options.split(",")
        assert options == "" or options.startswith("-o ")


def test_a_hierarchy_that_is_not_there_is_said() -> None:
    with pytest.raises(SystemExit, match="/nowhere is not mounted"):
        debian.how_mounted(Path("/nowhere"))
