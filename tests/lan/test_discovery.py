"""Real hosts with real interfaces: who finds whom, how fast, and again after the network was away."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.helpers.lan import Lan, why_not

pytestmark = [pytest.mark.lan, pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")]

ROOT = Path(__file__).resolve().parents[2]
FULL_MESH_S = 3.0


class Host:
    """A connecting node on one host of a LAN."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        self.peer = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait(self, event: str, timeout_s: float = 15.0, **fields: str) -> dict[str, str]:
        """Return the next event of this kind with these fields; fail when it does not come in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.events.get(timeout=max(0.001, deadline - time.monotonic()))
            if found["event"] == event and all(found[name] == value for name, value in fields.items()):
                return found

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with self.process.stdin:
            pass
        self.process.wait(timeout=15)
        self._reader.join()
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(json.loads(line))


@contextmanager
def node(
    lan: Lan, host: int, key: bytes, device: bytes | None = None, *, wait: bool = True, **setup: object
) -> Iterator[Host]:
    """A node of that swarm on that host."""
    command = lan.command(host, [sys.executable, "-m", "tests.helpers.net_node"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin is not None
    device = device or os.urandom(32)
    process.stdin.write(json.dumps({"key": key.hex(), "device": device.hex(), "name": f"host{host}", **setup}) + "\n")
    process.stdin.flush()
    running = Host(process)
    try:
        if wait:
            running.peer = running.wait("Started")["peer"]
        yield running
    finally:
        running.close()


def mesh_time_s(lan: Lan) -> float:
    """Start a node on every host at once; return the time from the last one's start to the last pair connected."""
    key, devices = os.urandom(32), [os.urandom(32) for _ in range(lan.n)]
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(node(lan, host, key, devices[host - 1], wait=False)) for host in range(1, lan.n + 1)
        ]
        started = [each.wait("Started") for each in nodes]
        everyone = {event["peer"] for event in started}
        up = [[each.wait("PeerUp") for _ in range(lan.n - 1)] for each in nodes]
        for mine, events in zip(started, up, strict=True):
            assert {event["peer"] for event in events} == everyone - {mine["peer"]}
        return max(float(event["at"]) for events in up for event in events) - max(
            float(event["at"]) for event in started
        )


def noticed_s(what: str, down: dict[str, str], since: float) -> float:
    """Return how long it took to notice, and print it for docs/network.md."""
    seconds = float(down["at"]) - since
    print(f"{what}: noticed after {seconds:.2f} s")
    return seconds


@pytest.mark.parametrize("n", [3, 5])
def test_hosts_form_a_full_mesh_within_three_seconds(n: int) -> None:
    with Lan(n, rate="1gbit", delay_ms=0.15) as lan:
        seconds = mesh_time_s(lan)
    print(f"{n} hosts: full mesh after {seconds:.2f} s")
    assert seconds <= FULL_MESH_S


def test_a_host_that_starts_during_a_split_is_found_after_it() -> None:
    key = os.urandom(32)
    with Lan(2) as lan, node(lan, 1, key) as first:
        lan.split(1, 2)
        with node(lan, 2, key) as second:
            lan.join(1, 2)
            assert first.wait("PeerUp", 20.0)["peer"] == second.peer


def test_a_cut_host_is_noticed_within_three_seconds_and_comes_back() -> None:
    key = os.urandom(32)
    with Lan(2) as lan, node(lan, 1, key) as first, node(lan, 2, key) as second:
        first.wait("PeerUp")
        lan.cut(2)
        cut_at = time.monotonic()
        down = first.wait("PeerDown")
        assert down["peer"] == second.peer
        assert noticed_s("cut off", down, cut_at) <= 3.0
        lan.heal(2)
        assert first.wait("PeerUp")["peer"] == second.peer


def test_a_killed_host_is_noticed_at_once() -> None:
    key = os.urandom(32)
    with Lan(2) as lan, node(lan, 1, key) as first:
        with node(lan, 2, key) as second:
            first.wait("PeerUp")
            killed_at = time.monotonic()
            second.process.kill()
            down = first.wait("PeerDown")
        assert noticed_s("killed", down, killed_at) <= 1.0


def test_a_frozen_host_is_noticed_within_three_seconds_and_comes_back() -> None:
    key = os.urandom(32)
    with Lan(2) as lan, node(lan, 1, key) as first, node(lan, 2, key) as second:
        first.wait("PeerUp")
        second.wait("PeerUp")
        frozen_at = time.monotonic()
        second.process.send_signal(signal.SIGSTOP)
        down = first.wait("PeerDown")
        assert noticed_s("frozen", down, frozen_at) <= 3.0
        second.process.send_signal(signal.SIGCONT)
        # The frozen one still holds the old link for alive; it is told, and both make a new one.
        second.wait("PeerDown")
        assert second.wait("PeerUp")["peer"] == first.peer
        assert first.wait("PeerUp")["peer"] == second.peer


def test_a_call_by_hand_works_where_multicast_does_not() -> None:
    key = os.urandom(32)
    with (
        Lan(3) as lan,
        node(lan, 1, key, discovery=False) as first,
        node(lan, 2, key, discovery=False, calls=[lan.address(1)]) as second,
        node(lan, 3, key, discovery=False, calls=[f"[{lan.address(1, ipv6=True)}]:7417"]) as third,
    ):
        assert {first.wait("PeerUp")["peer"], first.wait("PeerUp")["peer"]} == {second.peer, third.peer}
        # The two have never heard of each other but through the first one's gossip.
        second.wait("PeerUp", peer=third.peer)


def test_hosts_with_nothing_but_link_local_ipv6_find_each_other() -> None:
    key = os.urandom(32)
    with Lan(2, ipv6=False) as lan:
        for host in (1, 2):
            subprocess.run(lan.command(host, ["ip", "-4", "addr", "flush", "dev", "eth0"]), check=True)
        with node(lan, 1, key) as first, node(lan, 2, key) as second:
            up = first.wait("PeerUp")
            assert up["peer"] == second.peer and "fe80" in up["address"]


def test_a_container_bridge_is_not_announced() -> None:
    key = os.urandom(32)
    with Lan(2) as lan:
        for command in (
            "ip link add docker0 type bridge",
            "ip addr add 172.17.0.1/16 dev docker0",
            "ip link set docker0 up",
        ):
            subprocess.run(lan.command(1, command.split()), check=True)
        with node(lan, 1, key) as first, node(lan, 2, key) as second:
            up = second.wait("PeerUp")
            assert up["peer"] == first.peer and lan.address(1) in up["address"]


def test_a_host_that_gets_its_cable_later_is_found() -> None:
    key = os.urandom(32)
    with Lan(2) as lan, node(lan, 1, key) as first:
        lan.cut(2)
        with node(lan, 2, key) as second:
            lan.heal(2)
            assert first.wait("PeerUp", 20.0)["peer"] == second.peer


def test_two_devices_with_one_id_are_named() -> None:
    key, device = os.urandom(32), os.urandom(32)
    with (
        Lan(3) as lan,
        node(lan, 1, key) as first,
        node(lan, 2, key, device),
        node(lan, 3, key, device),
    ):
        seen = first.wait("CloneSeen", 20.0)
        assert lan.address(2) in seen["text"] and lan.address(3) in seen["text"]
