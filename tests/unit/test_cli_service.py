"""`swarm service`: what is installed, what stays, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.cli import main as cli
from swarm.cli import service, systemd
from swarm.cli.device_flags import Start, remember
from swarm.net.keys import new_swarm_key
from swarm.node.home import Home
from tests.unit.test_cli_systemd import Said

UNIT = ".config/systemd/user/swarm.service"


@pytest.fixture
def said(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """A device with systemd, and a user who is not root."""
    said = Said()
    monkeypatch.setattr(systemd, "_run", said)
    monkeypatch.setattr(systemd, "BOOTED", own_home)
    monkeypatch.setattr(systemd.shutil, "which", lambda name: "/bin/true")
    for module in (service, systemd):
        monkeypatch.setattr(module, "is_root", lambda: False)
    return said


def home_of(own_home: Path) -> Home:
    home = Home(own_home / ".local/share/swarm/node")
    home.make()
    return home


def test_flags_of_the_first_start_are_in_the_unit_and_new_ones_win(said: Said, own_home: Path) -> None:
    remember(home_of(own_home), Start({"memory": "300MiB", "name": "attic"}, ("192.168.1.20",)))
    assert cli.main(["service", "install", "--threads", "1"]) == 0
    text = (own_home / UNIT).read_text()
    assert "--name attic --memory 300MiB --threads 1 --peer 192.168.1.20" in text
    assert cli.main(["service", "install", "--memory", "200MiB"]) == 0
    assert "--memory 200MiB" in (own_home / UNIT).read_text()


def test_an_upgrade_keeps_the_key(said: Said, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = home_of(own_home).keys
    keys.keep_swarm_key(new_swarm_key())
    secret, device = keys.swarm_key(), keys.device_secret()
    for _ in range(2):
        assert cli.main(["service", "install"]) == 0
    assert cli.main(["service", "remove"]) == 0
    assert not (own_home / UNIT).exists()
    assert (keys.swarm_key(), keys.device_secret()) == (secret, device)
    err = capsys.readouterr().err
    assert "its key and models are as they were" in err and "key and models stay" in err


def test_memory_is_limited_with_what_a_node_itself_needs(said: Said, own_home: Path) -> None:
    from swarm.node.measure import BASE_BYTES

    assert cli.main(["service", "install", "--memory", "100MiB"]) == 0
    limit = 100 * 2**20 + BASE_BYTES + service.HEADROOM_BYTES
    assert f"MemoryMax={limit}" in (own_home / UNIT).read_text()


def test_who_cannot_linger_is_told_the_command(said: Said, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said.answers["enable-linger"] = (1, "denied")
    assert cli.main(["service", "install"]) == 0
    assert "sudo loginctl enable-linger" in capsys.readouterr().err


def test_print_changes_nothing(said: Said, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["service", "install", "--print"]) == 0
    assert "[Service]" in capsys.readouterr().out
    assert not (own_home / UNIT).exists() and not said.commands


def test_the_systems_unit_has_its_own_home_and_models(
    said: Said, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["service", "install", "--system", "--print"]) == 0
    text = capsys.readouterr().out
    assert "--home /var/lib/swarm/node" in text and "SWARM_MODELS_DIR=/var/cache/swarm/models" in text


def test_a_program_that_the_services_user_could_not_read_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "venv/bin/python"
    program.parent.mkdir(parents=True)
    tmp_path.chmod(0o755)
    (tmp_path / "venv").chmod(0o700)
    assert service.closed_to_others(program) in (tmp_path / "venv", *tmp_path.parents)
    assert service.closed_to_others(Path("/usr/bin/env")) is None


def test_status_tells_a_script_by_its_exit_code(said: Said, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["service", "status"]) == 3
    assert "no service of Swarm is installed" in capsys.readouterr().out
    assert cli.main(["service", "install"]) == 0
    said.answers["show"] = (0, "ActiveState=active\nSubState=running\nUnitFileState=enabled\nMemoryCurrent=1048576\n")
    assert cli.main(["service", "status"]) == 0
    assert "service: active\nmemory: 1 MiB" in capsys.readouterr().out
    said.answers["show"] = (0, "ActiveState=failed\nSubState=failed\nUnitFileState=enabled\n")
    assert cli.main(["service", "status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["ActiveState"] == "failed"


def test_status_says_what_is_not_as_it_should_be() -> None:
    state = {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "2", "UnitFileState": "disabled"}
    text = "\n".join(service.status_lines(state, "0.0.1"))
    for piece in ("activating (auto-restart)", "2 times", "does not start with the device", "version 0.0.1 runs"):
        assert piece in text


def test_a_node_that_has_ended_does_not_say_that_it_takes_part() -> None:
    told = {"StatusText": "attic takes part with 2 other devices", "UnitFileState": "enabled"}
    assert "node: attic takes part with 2 other devices" in service.status_lines({**told, "ActiveState": "active"}, "")
    assert not any("takes part" in line for line in service.status_lines({**told, "ActiveState": "inactive"}, ""))


def test_what_is_not_there_cannot_be_removed(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["service", "remove"]) == 2
    assert "there is no service" in capsys.readouterr().err
