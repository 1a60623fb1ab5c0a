#!/usr/bin/env python3
"""Round trip of an activation and throughput of chunk pieces between two devices.

    tools/bench/net.py                      two processes over loopback
    tools/bench/net.py --lan 1gbit:0.15     two hosts of a LAN in a box: rate and one-way delay in ms (needs root)

Prints medians; `busy` repeats the round trips while the bulk lane is full, in the same direction.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from swarm.net.events import Event, PeerUp, Received  # noqa: E402
from swarm.net.inbox import Inbox  # noqa: E402
from swarm.net.transport import Transport  # noqa: E402
from swarm.wire.ids import ChunkId, SessionId  # noqa: E402
from swarm.wire.messages import Activation, ChunkReply, ChunkRequest, Message, SessionClose  # noqa: E402
from swarm.wire.proof import Credentials  # noqa: E402
from swarm.wire.records import Address, PeerId, TensorInfo  # noqa: E402

PIECE = bytes(4 * 1024 * 1024)
SESSION, CHUNK = SessionId("ab" * 16), ChunkId("cd" * 32)


class Node:
    """A transport whose events come from a plain queue."""

    def __init__(self, credentials: Credentials, host: str, port: int) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.transport = Transport.start(credentials, name="bench", inbox=Inbox(self.events.put), host=host, port=port)

    def wait(self, kind: type[Message]) -> Received:
        """Return the next message of a kind; others are dropped."""
        while True:
            event = self.events.get(timeout=30)
            if isinstance(event, Received) and isinstance(event.message, kind):
                return event


def serve() -> None:
    """The other device: echo activations, answer chunk requests, end at SessionClose."""
    setup = json.loads(sys.stdin.readline())
    node = Node(Credentials(bytes.fromhex(setup["key"]), os.urandom(32)), setup["host"], 0)
    print(json.dumps({"peer": node.transport.me.peer, "port": node.transport.me.port}), flush=True)
    while True:
        event = node.events.get(timeout=60)
        if not isinstance(event, Received):
            continue
        if isinstance(event.message, Activation):
            node.transport.send(event.peer, event.message, event.frame)
        elif isinstance(event.message, ChunkRequest):
            request = event.message
            reply = ChunkReply(request.request, request.chunk, request.offset, True)
            node.transport.send(event.peer, reply, memoryview(PIECE)[: request.n_bytes])
        elif isinstance(event.message, SessionClose):
            node.transport.stop()
            return


def round_trips(node: Node, peer: PeerId, n: int, frame: bytes) -> list[float]:
    """Return the seconds of n round trips of an activation with this frame (f16)."""
    tensor = TensorInfo("f16", (1, len(frame) // 2))
    times = []
    for position in range(n):
        start = time.perf_counter()
        node.transport.send(peer, Activation(SESSION, 1, position, 1, tensor, False, ()), frame)
        node.wait(Activation)
        times.append(time.perf_counter() - start)
    return sorted(times)


def fetch(node: Node, peer: PeerId, n: int, piece_bytes: int, probe: bytes = b"") -> tuple[float, list[float]]:
    """Fetch n pieces, four asked ahead; return MB/s and the round trips of activations sent meanwhile."""
    tensor = TensorInfo("f16", (1, len(probe) // 2))
    asked = came = 0
    sent_at, times = 0.0, []
    start = time.perf_counter()
    while came < n:
        while asked < min(n, came + 4):
            node.transport.send(peer, ChunkRequest(asked, CHUNK, 0, piece_bytes))
            asked += 1
        if probe and not sent_at:
            sent_at = time.perf_counter()
            node.transport.send(peer, Activation(SESSION, 1, 0, 1, tensor, False, ()), probe)
        event = node.events.get(timeout=30)
        if isinstance(event, Received) and isinstance(event.message, ChunkReply):
            came += 1
        elif isinstance(event, Received) and isinstance(event.message, Activation):
            times.append(time.perf_counter() - sent_at)
            sent_at = 0.0
    return n * piece_bytes / (time.perf_counter() - start) / 1e6, sorted(times)


def measure(server: list[str], host: str, local: str) -> None:
    """Start the other device with this command, and print the table."""
    key = os.urandom(32)
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"key": key.hex(), "host": host}) + "\n")
        process.stdin.flush()
        other = json.loads(process.stdout.readline())
        node = Node(Credentials(key, os.urandom(32)), local, 0)
        peer = PeerId(other["peer"])
        node.transport.learn(peer, [Address(host, other["port"])])
        while not isinstance(node.events.get(timeout=10), PeerUp):
            pass
        report(node, peer)
        node.transport.send(peer, SessionClose(SESSION, 1, False))
        process.wait(timeout=10)
        node.transport.stop()


def report(node: Node, peer: PeerId) -> None:
    """Print one line a case."""
    round_trips(node, peer, 200, bytes(8000))
    for n_bytes in (1200, 8000, 16384, 65536):
        times = round_trips(node, peer, 2000 if n_bytes < 60000 else 500, bytes(n_bytes))
        print(f"round trip {n_bytes:6d} B   median {_us(times, 0.5)}   p99 {_us(times, 0.99)}")
    for piece_bytes in (256 * 1024, 1024 * 1024, 4 * 1024 * 1024):
        rates = [fetch(node, peer, 32 * 1024 * 1024 // piece_bytes, piece_bytes)[0] for _ in range(3)]
        print(f"pieces of {piece_bytes // 1024:5d} KiB    {statistics.median(rates):6.0f} MB/s")
    rate, times = fetch(node, peer, 48, 1024 * 1024, bytes(8000))
    print(f"busy: round trip 8000 B   median {_us(times, 0.5)}   p99 {_us(times, 0.99)}   beside {rate:.0f} MB/s")


def _us(times: list[float], share: float) -> str:
    return f"{times[min(len(times) - 1, int(len(times) * share))] * 1e6:7.0f} us"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--local", default="127.0.0.1", help=argparse.SUPPRESS)
    parser.add_argument("--host", help=argparse.SUPPRESS)
    parser.add_argument("--lan", metavar="RATE:DELAY_MS", help="in a LAN in a box")
    options = parser.parse_args()
    me = [sys.executable, str(Path(__file__).resolve())]
    if options.serve:
        serve()
    elif options.lan:
        from tests.helpers.lan import Lan

        rate, _, delay_ms = options.lan.partition(":")
        with Lan(2, rate=rate or None, delay_ms=float(delay_ms or 0)) as lan:
            server = lan.command(2, [*me, "--serve"])
            subprocess.run(
                lan.command(1, [*me, "--local", lan.address(1), "--host", json.dumps([lan.address(2), server])]),
                check=True,
            )
    elif options.host:
        host, server = json.loads(options.host)
        measure(server, host, options.local)
    else:
        measure([*me, "--serve"], "127.0.0.1", options.local)


if __name__ == "__main__":
    main()
