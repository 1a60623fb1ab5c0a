"""What the service manager hears."""

from __future__ import annotations

import socket
from pathlib import Path

from swarm.node.supervisor import Supervisor


def test_the_manager_hears_that_the_node_is_ready_alive_and_stopping(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        supervisor = Supervisor(address, 90.0)
        supervisor.ready("attic takes part")
        supervisor.alive("attic takes part with 2 other devices")
        supervisor.stopping()
        assert manager.recv(999) == b"READY=1\nSTATUS=attic takes part"
        assert manager.recv(999) == b"WATCHDOG=1\nSTATUS=attic takes part with 2 other devices"
        assert manager.recv(999) == b"STOPPING=1"
    assert supervisor.beat_s == 30.0


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel chooses an abstract one
        name = manager.getsockname()
        Supervisor("@" + name[1:].decode(), 0.0).ready("x")
        assert manager.recv(999).startswith(b"READY=1")


def test_nobody_or_a_manager_that_is_gone_disturbs_nothing(tmp_path: Path) -> None:
    Supervisor("", 0.0).ready("x")
    Supervisor(str(tmp_path / "nobody"), 90.0).alive("x")
