"""The text of the service's unit: complete, quoted, and such as systemd itself takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.cli.unit import SANDBOX, SYSTEM_SANDBOX, Unit, quoted, unit_text
from swarm.errors import ConfigError

COMMAND = (sys.executable, "-P", "-m", "swarm", "join", "--home", "/srv/a b/node", "--name", "50% of $HOME")


def lines(**changes: object) -> list[str]:
    values: dict[str, object] = {"command": COMMAND, "memory_bytes": 6 * 2**30, "written_by": "1.2.3", **changes}
    return unit_text(Unit(**values)).splitlines()  # type: ignore[arg-type]


def test_it_starts_at_boot_comes_back_and_is_watched() -> None:
    text = lines()
    for line in (
        "Type=notify",
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        "WatchdogSec=90",
        "StartLimitIntervalSec=0",
        "WantedBy=default.target",
    ):
        assert line in text


def test_it_leaves_the_device_to_its_user() -> None:
    text = lines()
    for line in ("Nice=10", "MemoryMax=6442450944", "MemorySwapMax=0", "LimitMEMLOCK=infinity", "LimitCORE=0"):
        assert line in text


def test_a_users_unit_asks_for_nothing_that_a_users_manager_cannot_give() -> None:
    text = lines()
    assert set(SANDBOX) <= set(text)
    assert not set(SYSTEM_SANDBOX) & set(text)
    assert not [line for line in text if line.startswith(("User=", "StateDirectory=", "ProtectHome=", "After="))]


def test_a_systems_unit_has_a_user_of_its_own_and_sees_little() -> None:
    text = lines(is_system=True)
    assert {*SANDBOX, *SYSTEM_SANDBOX} <= set(text)
    for line in ("User=swarm", "StateDirectory=swarm", "ProtectHome=yes", "WantedBy=multi-user.target"):
        assert line in text
    assert "After=network-online.target" in text and "Wants=network-online.target" in text
    assert "ProtectHome=read-only" in lines(is_system=True, is_installed_in_home=True)


def test_words_are_quoted_so_that_systemd_reads_them_back() -> None:
    (command,) = (line for line in lines() if line.startswith("ExecStart="))
    assert command.endswith('swarm join --home "/srv/a b/node" --name "50%% of $$HOME"')
    assert quoted("plain-6GiB/x.y:7417") == "plain-6GiB/x.y:7417"
    assert quoted('a"b\\c') == '"a\\"b\\\\c"'
    assert quoted("") == '""'


def test_a_line_break_cannot_smuggle_in_another_line() -> None:
    with pytest.raises(ConfigError, match="line break"):
        lines(command=("python", "--name", "x\nExecStartPre=/bin/evil"))
    with pytest.raises(ConfigError, match="line break"):
        lines(environment={"SWARM_MODELS_DIR": "/a\nUser=root"})


def test_settings_of_the_environment_go_with_it() -> None:
    assert 'Environment="SWARM_MODELS_DIR=/mnt/my models"' in lines(environment={"SWARM_MODELS_DIR": "/mnt/my models"})


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize("is_system", [False, True])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, is_system: bool) -> None:
    path = tmp_path / "swarm.service"
    path.write_text("\n".join(lines(is_system=is_system)) + "\n")
    command = ["systemd-analyze", *([] if is_system else ["--user"]), "verify", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "swarm" in line]
    assert not said
