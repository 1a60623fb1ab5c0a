"""The service manager of this device, as `swarm service` and `swarm logs` use it: systemctl, loginctl, journalctl."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm import config
from swarm.cli.unit import UNIT_NAME
from swarm.errors import ConfigError, SwarmError
from swarm.files import replace_file

SYSTEM_UNITS = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")  # sd_booted(3): there while systemd is the service manager
CALL_S = 330.0  # longer than the unit's own patience with a start
PROPERTIES = ("ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "MemoryCurrent", "StatusText")


@dataclass(frozen=True)
class Manager:
    """The system's manager, or that of the user who asks."""

    is_system: bool

    @property
    def unit_file(self) -> Path:
        """Where the unit lies while it is installed."""
        return (SYSTEM_UNITS if self.is_system else config.user_units_dir()) / UNIT_NAME

    @property
    def is_installed(self) -> bool:
        return self.unit_file.exists()

    def need(self) -> None:
        """Raise ConfigError where there is no such manager to talk to."""
        if shutil.which("systemctl") is None or not BOOTED.is_dir():
            raise ConfigError(
                "this device has no systemd that would keep a service; `swarm join --background` runs until the next "
                "restart, and a line `@reboot swarm join --background` in `crontab -e` starts it after that"
            )
        if self.is_system and not is_root():
            raise ConfigError("only root may change the system's services; put sudo in front")
        if not self.is_system and self.call("show", "--property=Version")[0] != 0:
            raise ConfigError(
                "the service manager of this user does not answer; log in as that user itself (not by su or sudo), "
                "or use the system's: sudo swarm service install --system"
            )

    def write(self, text: str) -> None:
        """Put the unit file into its place and have the manager read it."""
        self.unit_file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.unit_file, text.encode())
        self.do("daemon-reload")

    def remove(self) -> bool:
        """Stop the node and take the unit away; False when there was none."""
        if not self.is_installed:
            return False
        self.do("disable", "--now", UNIT_NAME)
        self.unit_file.unlink(missing_ok=True)
        self.do("daemon-reload")
        return True

    def start(self) -> None:
        """Start the node anew, now and at every boot; raise SwarmError when it does not come up."""
        self.do("enable", UNIT_NAME)
        code, text = self.call("restart", UNIT_NAME)
        if code:
            raise SwarmError(f"the service did not start ({_line(text)}); `swarm logs` shows what the node said")

    def state(self) -> dict[str, str]:
        """What the manager says of the unit, by the names of PROPERTIES."""
        _, text = self.call("show", UNIT_NAME, f"--property={','.join(PROPERTIES)}")
        pairs = [line.partition("=") for line in text.splitlines()]
        return {name: value for name, separator, value in pairs if separator}

    def stays_without_login(self) -> bool:
        """See that the user's manager runs without a login; False when somebody with more rights must allow it."""
        if self.is_system:
            return True
        user = getpass.getuser()
        code, text = _run(["loginctl", "show-user", user, "--property=Linger"])
        if code == 0 and text.strip() == "Linger=yes":
            return True
        return _run(["loginctl", "enable-linger", user])[0] == 0

    def make_user(self, name: str, folder: str) -> None:
        """See that the service has a user of its own, without a password or shell."""
        try:
            pwd.getpwnam(name)
        except KeyError:
            command = [
                "useradd",
                "--system",
                "--user-group",
                "--home-dir",
                folder,
                "--shell",
                "/usr/sbin/nologin",
                name,
            ]
            code, text = _run(command)
            if code:
                raise SwarmError(f"no user {name!r} could be made for the service: {_line(text)}") from None

    def journal_command(self, n_lines: int, *, follow: bool) -> list[str]:
        """The command that shows the node's log."""
        unit = "--unit" if self.is_system else "--user-unit"
        return ["journalctl", f"{unit}={UNIT_NAME}", "--output=short-iso", f"--lines={n_lines}", *["--follow"] * follow]

    def do(self, *words: str) -> None:
        """Call systemctl; SwarmError with what it said when it fails."""
        code, text = self.call(*words)
        if code:
            raise SwarmError(f"systemctl {' '.join(words)} failed: {_line(text)}")

    def call(self, *words: str) -> tuple[int, str]:
        """Call systemctl; its exit code and what it said."""
        return _run(["systemctl", *([] if self.is_system else ["--user"]), *words])


def is_root() -> bool:
    """Whether the system's services are this user's to change."""
    return os.geteuid() == 0


def installed() -> Manager | None:
    """The manager that keeps a node here: this user's, else the system's; None when none does."""
    return next((manager for manager in (Manager(False), Manager(True)) if manager.is_installed), None)


def _run(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=CALL_S,
        )  # fmt: skip
    except FileNotFoundError:
        return 127, f"there is no {command[0]}"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer within {CALL_S:.0f} s"
    return done.returncode, done.stdout


def _line(text: str) -> str:
    """The first line of what a program said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "it said nothing"
