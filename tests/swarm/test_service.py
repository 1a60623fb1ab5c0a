"""A node under a service manager: it says when it is ready, that it is alive, and when it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from swarm.node.home import Home
from tests.helpers.nodes import PATIENCE_S, ROOT, SPEED, THREADS, free_port


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    """A manager that listens."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(PATIENCE_S)
    return listener


def test_the_manager_of_a_node_hears_of_its_life(tmp_path: Path, manager: socket.socket) -> None:
    home = Home(tmp_path / "home")
    home.make()
    home.measured_file.write_text(json.dumps(asdict(SPEED)))
    command = [sys.executable, "-P", "-m", "swarm", "join", "--home", str(home.root), "--name", "attic"]
    command += ["--threads", str(THREADS), "--memory", "50MB", "--no-discovery"]
    command += ["--port", str(free_port()), "--api-port", str(free_port())]
    env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000", "PYTHONPATH": str(ROOT)}
    node = subprocess.Popen(command, env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert manager.recv(999) == b"READY=1\nSTATUS=attic takes part with 0 other devices"
        for _ in range(3):
            assert manager.recv(999).startswith(b"WATCHDOG=1\nSTATUS=attic")
        os.kill(node.pid, signal.SIGSTOP)
        manager.settimeout(1.5)
        with pytest.raises(TimeoutError):
            while True:
                manager.recv(999)
        os.kill(node.pid, signal.SIGCONT)
        manager.settimeout(PATIENCE_S)
        node.send_signal(signal.SIGTERM)
        while manager.recv(999) != b"STOPPING=1":
            pass
        assert node.wait(PATIENCE_S) == 0
    finally:
        node.kill()
        node.wait()
        manager.close()
