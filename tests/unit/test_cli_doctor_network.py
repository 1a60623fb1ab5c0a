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
    return {"name": name, "health": "alive", "clock_offset_s": 0.1, "excluded": "", **fields}


def status(*devices: dict[str, Any], **fields: object) -> dict[str, Any]:
    mine = {"name": "attic", "health": "here"}
    return {"name": "attic", "devices": [mine, *devices], "discovery": "", "events": [], **fields}


def levels(found: list[doctor_network.Finding]) -> dict[str, str]:
    return {finding.subject: finding.level for finding in found}


def test_a_healthy_swarm_is_one_good_line() -> None:
    found = doctor_network.findings_of(status(device("kitchen"), device("old", health="lost")))
    assert [f.text for f in found] == ["attic takes part with 1 other device"]


def test_a_lonely_node_gets_advice() -> None:
    found = doctor_network.findings_of(status(discovery="no network interface is up"))
    assert levels(found) == {"swarm": "warning", "discovery": "warning"}
    assert "--peer" in found[0].advice


def test_clocks_and_cloned_devices_are_named() -> None:
    found = doctor_network.findings_of(
        status(device("kitchen", clock_offset_s=-3600.0), device("shed", excluded="two devices run with its id"))
    )
    assert levels(found) == {"swarm": "ok", "clock": "warning", "device": "problem"}
    assert "kitchen differs by -3600 s" in found[1].text


@pytest.mark.parametrize(
    ("event", "advice"),
    [
        ({"event": "not_let_in", "reason": "version", "why": "10.0.0.9 speaks protocol 2.0"}, "update"),
        ({"event": "not_let_in", "reason": "key", "why": "10.0.0.9 has another swarm key"}, "swarm forget"),
        ({"event": "clone", "why": "10.0.0.8 and 10.0.0.9 have the same id"}, "swarm forget"),
        ({"event": "garbage", "why": "shed broke the protocol"}, "update it"),
    ],
)
def test_devices_that_are_not_let_in_are_named_with_what_helps(event: dict[str, str], advice: str) -> None:
    found = doctor_network.findings_of(status(device("kitchen"), events=[event, event]))
    assert [f.text for f in found[1:]] == [event["why"]]
    assert advice in found[1].advice


def test_a_port_that_another_program_has_is_seen(own_home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        [found] = doctor_network.check_ports(config.load({"port": port}))
    assert found.level == "warning" and str(port) in found.text
    [found] = doctor_network.check_ports(config.load({"port": port}))
    assert found.level == "ok"


def test_a_key_that_others_can_read_is_a_problem(own_home: Path) -> None:
    from swarm.cli import doctor

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
