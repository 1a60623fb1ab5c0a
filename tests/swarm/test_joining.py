"""A device's life in a swarm, by the commands a person types: join, invite, status, plan, rekey, leave, forget."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from swarm.node.home import Home
from tests.helpers.nodes import PATIENCE_S, ROOT, SPEED, free_port, wait_for


class Device:
    """A home directory and the commands run with it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.home = Home(folder / name)
        self.home.root.mkdir(parents=True)
        self.pids: list[int] = []
        self.home.measured_file.write_text(json.dumps(asdict(SPEED)))
        self.env = {**os.environ, "HOME": str(folder), "SWARM_HOME": str(self.home.root), "SWARM_NAME": name}
        self.env |= {"SWARM_THREADS": "1", "SWARM_MODELS_DIR": str(folder / "models"), "SWARM_MEMORY": "280MB"}

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end; what it printed, both streams."""
        command = [sys.executable, "-m", "swarm", *arguments]
        done = subprocess.run(
            command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def join(self, *arguments: str) -> str:
        """Join in the background; no multicast, whatever network this test runs in."""
        ports = ["--port", str(free_port()), "--api-port", str(free_port())]
        said = self.run("join", "--background", "--no-discovery", *ports, *arguments)
        self.pids.append(self.pid())
        return said

    def status(self) -> dict[str, str]:
        """Name and health of every device it knows."""
        devices = json.loads(self.run("status", "--json"))["devices"]
        return {device["name"]: device["health"] for device in devices}

    def token(self) -> str:
        """Another one in every run of its node."""
        running = self.home.running()
        return running.token if running is not None else ""

    def pid(self) -> int:
        running = self.home.running()
        return running.pid if running is not None else 0


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[list[Device]]:
    made = [Device(tmp_path, name) for name in ("attic", "kitchen", "shed")]
    yield made
    for pid in [pid for device in made for pid in device.pids]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def let_in(inviter: Device, device: Device) -> None:
    invitation = json.loads(inviter.run("invite", "--json"))
    device.join(invitation["code"], "--peer", f"127.0.0.1:{invitation['port']}")


def test_a_device_joins_by_a_code_and_remembers(devices: list[Device]) -> None:
    attic, kitchen, _ = devices
    assert "begins a new swarm" in attic.join()
    let_in(attic, kitchen)
    wait_for(lambda: kitchen.status() == {"kitchen": "here", "attic": "alive"}, "them to meet")
    found = json.loads(kitchen.run("doctor", "--json"))["findings"]
    assert "kitchen takes part with 1 other device" in [finding["text"] for finding in found]
    assert any("attic at 127.0.0.1" in finding["text"] for finding in found)
    for file in (kitchen.home.keys.swarm_file, kitchen.home.keys.device_file, kitchen.home.running_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "has left" in kitchen.run("leave")
    assert "no node runs" in kitchen.run("status", code=2)
    wait_for(lambda: attic.status()["kitchen"] == "lost", "the goodbye")
    kitchen.join()  # no code, no address: it remembers both
    wait_for(lambda: attic.status()["kitchen"] == "alive", "it to come back")
    key = kitchen.home.keys.swarm_key()
    assert key is not None
    assert key.secret.hex() not in kitchen.home.log_file.read_text() + attic.home.log_file.read_text()


def test_a_wrong_code_is_refused_and_the_third_ends_the_invitation(devices: list[Device]) -> None:
    attic, kitchen, shed = devices
    attic.join()
    invitation = json.loads(attic.run("invite", "--json"))
    right, peer = invitation["code"], f"127.0.0.1:{invitation['port']}"
    wrong = right[:-1] + str((int(right[-1]) + 1) % 10)
    for left in ("2 tries left", "1 try left", "ask for a new one"):
        assert left in kitchen.run("join", wrong, "--peer", peer, code=1)
    assert kitchen.home.keys.swarm_key() is None
    assert "the invitation could not be used" in shed.run("join", right, "--peer", peer, code=1)
    assert "this is not an invitation code" in shed.run("join", "12", code=1)


def test_a_lost_device_is_shut_out_by_a_new_key(devices: list[Device]) -> None:
    attic, kitchen, shed = devices
    attic.join()
    let_in(attic, kitchen)
    let_in(attic, shed)
    wait_for(lambda: len(attic.status()) == 3, "three devices")
    old, runs = attic.home.keys.swarm_key(), (attic.token(), kitchen.token())
    said = attic.run("rekey", "--without", "shed")
    assert "the new key is on kitchen" in said and "shut out: shed" in said

    for device, before in zip((attic, kitchen), runs, strict=True):
        wait_for(lambda d=device, t=before: d.token() not in ("", t), "both to start anew")  # type: ignore[misc]
    wait_for(lambda: attic.status().get("kitchen") == kitchen.status().get("attic") == "alive", "the two to meet again")
    assert attic.home.keys.swarm_key() == kitchen.home.keys.swarm_key() != old == shed.home.keys.swarm_key()
    assert "attic" not in [name for name, health in shed.status().items() if health == "alive"]
    assert "shed" not in attic.status()


def test_a_plan_is_explained_with_devices_that_one_might_buy(devices: list[Device], real_model: Path) -> None:
    attic = devices[0]
    before = attic.run("plan", str(real_model), "--add", "pi5:8GiB")
    assert "30 layers" in before and "predicted:" in before and "pi5" in before
    attic.join()
    plan = json.loads(attic.run("plan", str(real_model), "--json"))
    assert plan["fits"] and plan["stages"][0]["name"] == "attic" and plan["tokens_per_s"] > 0
    assert "needs" in attic.run("plan", str(real_model), "--context", "8192", "--add", "pi4:1KiB", code=1)
    assert "is no device" in attic.run("plan", str(real_model), "--add", "toaster", code=1)
    many = json.loads(attic.run("plan", str(real_model), "--json", *["--add", "pi5:8GiB"] * 17))
    assert len(many["stages"]) + len(many["left_out"]) == 18, "not one that was added is dropped"
    assert "at most 64 devices" in attic.run("plan", str(real_model), *["--add", "pi5x40"] * 2, code=1)


def test_forgetting_ends_the_node_and_drops_the_keys(devices: list[Device]) -> None:
    attic = devices[0]
    attic.join()
    assert "takes part already" in attic.run("join", code=2)
    pid = attic.pid()
    attic.home.kept_kv.mkdir(exist_ok=True)
    (attic.home.kept_kv / "conversation.kv").write_text("what was said")
    assert "the keys are gone" in attic.run("forget")
    assert not list(attic.home.kept_kv.iterdir())
    assert not attic.home.keys.swarm_file.exists() and not attic.home.keys.device_file.exists()
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or is_zombie(pid), "the node to end")
    assert "was in no swarm" in attic.run("forget")


def test_what_cannot_work_is_said_in_one_line(devices: list[Device]) -> None:
    attic = devices[0]
    for command in ("status", "invite", "leave", "rekey"):
        assert "no node runs on this device" in attic.run(command, code=2)
    assert "is not a swarm key" in attic.run("join", "--key", "swarm-abc", code=1)
    assert "must be a size" in attic.run("join", "--memory", "much", code=2)
    assert "is not HOST or HOST:PORT" in attic.run("join", "--peer", "host:port", code=1)


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
