"""What systemctl and loginctl are asked, with stand-ins for both."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli import systemd
from swarm.cli.systemd import Manager
from swarm.errors import ConfigError, SwarmError


class Said:
    """Records every command; answers those that are named."""

    def __init__(self, **answers: tuple[int, str]) -> None:
        self.commands: list[str] = []
        self.answers = answers

    def __call__(self, command: list[str]) -> tuple[int, str]:
        self.commands.append(" ".join(command))
        return next((answer for word, answer in self.answers.items() if word in command), (0, ""))


@pytest.fixture
def said(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    said = Said()
    monkeypatch.setattr(systemd, "_run", said)
    return said


def test_a_unit_is_written_enabled_and_started(said: Said, own_home: Path) -> None:
    manager = Manager(False)
    manager.write("[Unit]\n")
    manager.start()
    assert (own_home / ".config/systemd/user/swarm.service").read_text() == "[Unit]\n"
    assert said.commands == [
        "systemctl --user daemon-reload",
        "systemctl --user enable swarm.service",
        "systemctl --user restart swarm.service",
    ]
    assert systemd.installed() == manager


def test_removing_leaves_nothing(said: Said) -> None:
    manager = Manager(False)
    assert not manager.remove() and not said.commands
    manager.write("[Unit]\n")
    assert manager.remove()
    assert not manager.is_installed
    assert said.commands[1:] == ["systemctl --user disable --now swarm.service", "systemctl --user daemon-reload"]


def test_a_node_that_does_not_come_up_is_told_with_what_to_do(said: Said) -> None:
    said.answers["restart"] = (1, "Job for swarm.service failed.\nSee more.\n")
    with pytest.raises(SwarmError, match=r"did not start \(Job for swarm.service failed\.\); `swarm logs`"):
        Manager(False).start()


def test_what_the_manager_says_is_read(said: Said) -> None:
    said.answers["show"] = (0, "ActiveState=active\nStatusText=a = b\nnonsense\n")
    assert Manager(False).state() == {"ActiveState": "active", "StatusText": "a = b"}


@pytest.mark.parametrize(("answer", "stays"), [((0, ""), True), ((1, "Access denied"), False)])
def test_lingering_is_asked_for_once(said: Said, answer: tuple[int, str], stays: bool) -> None:
    said.answers["enable-linger"] = answer
    assert Manager(False).stays_without_login() is stays
    said.answers["show-user"] = (0, "Linger=yes\n")
    assert Manager(False).stays_without_login()
    assert sum("enable-linger" in command for command in said.commands) == 1


def test_without_systemd_there_is_another_way(said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "BOOTED", tmp_path / "no")
    with pytest.raises(ConfigError, match="@reboot swarm join --background"):
        Manager(False).need()


def test_who_may_not_change_services_is_told(said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "BOOTED", tmp_path)
    monkeypatch.setattr(systemd.shutil, "which", lambda name: "/bin/true")
    monkeypatch.setattr(systemd, "is_root", lambda: False)
    with pytest.raises(ConfigError, match="sudo"):
        Manager(True).need()
    said.answers["show"] = (1, "Failed to connect to bus")
    with pytest.raises(ConfigError, match="log in as that user itself"):
        Manager(False).need()
    said.answers["show"] = (0, "Version=252")
    Manager(False).need()


def test_a_service_gets_a_user_without_a_shell(said: Said) -> None:
    Manager(True).make_user("root", "/x")
    assert not said.commands
    Manager(True).make_user("swarm-nobody-has-this", "/var/lib/swarm")
    assert said.commands[0].startswith("useradd --system") and "nologin" in said.commands[0]


def test_the_journal_is_asked_for_the_right_unit() -> None:
    assert Manager(True).journal_command(5, follow=True)[1:] == [
        "--unit=swarm.service",
        "--output=short-iso",
        "--lines=5",
        "--follow",
    ]
    assert Manager(False).journal_command(5, follow=False)[1] == "--user-unit=swarm.service"
