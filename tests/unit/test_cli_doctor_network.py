"""What the doctor says of the network, from made-up states of a node and real sockets."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from swarm import config
from swarm.cli import doctor_network
from swarm.net.keys import new_swarm_key
from swarm.node.home import Home


def device(name: str, **fields: object) -> dict[str, Any]:
    return {"name": name, "health": "alive", "excluded": "", **fields}


def status(*devices: dict[str, Any]) -> dict[str, Any]:
    return {"name": "attic", "devices": [{"name": "attic", "health": "here"}, *devices]}


def test_a_swarm_is_told_by_who_is_there() -> None:
    found = doctor_network.members(status(device("kitchen"), device("old", health="lost")))
    assert (found.text, found.level) == ("attic takes part with 1 other device", "ok")
    lonely = doctor_network.members(status())
    assert lonely.level == "warning" and "--peer" in lonely.advice


def test_a_device_that_may_not_be_used_is_a_problem() -> None:
    [found] = doctor_network.excluded(status(device("kitchen"), device("shed", excluded="two run with its id")))
    assert (found.level, found.text) == ("problem", "shed: two run with its id")


def test_without_a_node_the_network_only_warns() -> None:
    bad = doctor_network.finding_of({"level": "bad", "text": "multicast is blocked", "advice": "open it"})
    assert bad.level == "problem" and doctor_network.milder(bad).level == "warning"


def test_a_port_that_another_program_has_is_seen(own_home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        [found] = doctor_network.check_ports(config.load({"port": port}))
    assert found.level == "warning" and str(port) in found.text
    [found] = doctor_network.check_ports(config.load({"port": port}))
    assert found.level == "ok"


def test_a_key_that_others_can_read_is_a_problem(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from swarm.cli import doctor

    monkeypatch.setattr(doctor_network, "looked_around", list)
    settings = config.load()
    assert doctor_network.check_swarm(settings)[0].text.startswith("this device is in no swarm")
    keys = Home(settings.home_path).keys
    keys.keep_swarm_key(new_swarm_key())
    assert "takes no part just now" in doctor_network.check_swarm(settings)[0].text
    keys.swarm_file.chmod(0o644)
    found = [f for f in doctor.examine(settings) if f.subject == "swarm"]
    assert [f.level for f in found] == ["problem"] and "chmod 600" in found[0].text


def test_firewalls_are_told_with_the_commands_that_open_them(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_network, "UFW", tmp_path / "ufw.conf")
    monkeypatch.setattr(doctor_network, "FIREWALLD", tmp_path / "firewalld")
    settings = config.load()
    assert doctor_network.check_firewall(settings)[0].level == "ok"
    (tmp_path / "firewalld").mkdir()
    assert "firewall-cmd" in doctor_network.check_firewall(settings)[0].advice
    (tmp_path / "ufw.conf").write_text("ENABLED=yes\n")
    assert "ufw allow 7417:7419/tcp" in doctor_network.check_firewall(settings)[0].advice
