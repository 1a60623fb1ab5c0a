"""A household for a while: devices that die and come back, a bad member, floods of calls. Answers stay, memory too.

SWARM_SOAK_S=1800 pytest -s tests/chaos/test_soak.py      half an hour; in CI half a minute
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
import pytest

from swarm.errors import SwarmNetworkError
from swarm.net.events import Event, PeerUp, Received
from swarm.net.inbox import Inbox
from swarm.net.transport import Transport
from swarm.wire.ids import PeerId, SessionId
from swarm.wire.messages import Message, PlacementOffer, PlacementReply, SessionOpen, SessionProbe, SessionReply
from swarm.wire.proof import Credentials
from tests.helpers.nodes import NodeProcess, Swarm, wait_for
from tests.helpers.tiny import make_tiny

SECONDS = float(os.environ.get("SWARM_SOAK_S", "30"))
CHURN_S = 6.0  # between two deaths
FLOOD_S = 4.0  # between two floods
N_SILENT = 40  # connections that send nothing
MEMORY = 400_000_000


@dataclass
class Usage:
    """What a process has of the system."""

    rss_bytes: int
    n_files: int
    n_threads: int

    @classmethod
    def of(cls, node: NodeProcess) -> Usage:
        assert node.process is not None
        process = psutil.Process(node.process.pid)
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())


class BadMember:
    """Has the key: takes every offer, opens no session, and sends more questions than any honest device."""

    def __init__(self, node: NodeProcess) -> None:
        key = node.home.keys.swarm_key()
        assert key is not None
        self._peers: set[PeerId] = set()
        credentials = Credentials(key.secret, secrets.token_bytes(32))
        inbox = Inbox(self._on_event)
        self.transport = Transport.start(credentials, name="bad", inbox=inbox, port=0, host="127.0.0.1")
        self.transport.call(f"127.0.0.1:{node.port}")

    def flood(self) -> None:
        for peer in list(self._peers):
            for _ in range(2000):
                self._send(peer, SessionProbe(SessionId(secrets.token_hex(16)), 1))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, PeerUp):
            self._peers.add(event.peer)
        elif isinstance(event, Received) and isinstance(event.message, PlacementOffer):
            placement = event.message.placement
            self._send(event.peer, PlacementReply(placement.model, placement.epoch, True, ""))
        elif isinstance(event, Received) and isinstance(event.message, SessionOpen):
            self._send(event.peer, SessionReply(event.message.session, event.message.epoch, False, "no"))

    def _send(self, peer: PeerId, message: Message) -> None:
        with contextlib.suppress(SwarmNetworkError):
            self.transport.send(peer, message)


@contextlib.contextmanager
def bad_member(node: NodeProcess) -> Iterator[BadMember]:
    member = BadMember(node)
    try:
        yield member
    finally:
        member.transport.stop()


def knock(node: NodeProcess) -> None:
    """Connections that send nothing, halves of requests, and nonsense."""
    assert node.local is not None
    with contextlib.ExitStack() as stack:
        for i in range(N_SILENT):
            with contextlib.suppress(OSError):
                caller = stack.enter_context(socket.create_connection(("127.0.0.1", node.local.api_port), timeout=2))
                caller.sendall((b"", b"GET /hea", b"\xff" * 100)[i % 3])
        time.sleep(0.2)


def churn(nodes: Swarm, rng: Random, stop: threading.Event) -> None:
    """Kill one of the others again and again, and bring it back."""
    while not stop.wait(CHURN_S):
        victim = rng.choice(nodes.nodes[1:])
        victim.kill()
        stop.wait(1.0)
        victim.start()


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
def test_a_household_answers_the_same_and_stays_the_same_size(tmp_path: Path) -> None:
    path, stop = make_tiny(tmp_path / "tiny.gguf", "glm4"), threading.Event()
    with Swarm(tmp_path / "swarm", [MEMORY] * 3, model=path, context=256) as nodes, bad_member(nodes.nodes[0]) as bad:
        entry = nodes.nodes[0]
        body = {"model": nodes.model, "prompt": "The sea is", "max_tokens": 40, "temperature": 1.5}
        asked = (({**body, "seed": seed}) for seed in range(50))
        body, expected = next((b, tokens) for b in asked if len(tokens := entry.ask(b).tokens) == 40)
        churning = threading.Thread(target=churn, args=(nodes, Random(1), stop))
        churning.start()
        try:
            began, flooded, n_answers = time.monotonic(), 0.0, 0
            before: Usage | None = None
            while (passed := time.monotonic() - began) < SECONDS:
                heard = entry.ask(body)
                assert not heard.error and heard.tokens == expected, (heard.error, heard.notes)
                n_answers += 1
                if passed - flooded > FLOOD_S:
                    flooded = passed
                    bad.flood()
                    knock(entry)
                if before is None and passed > SECONDS / 3:
                    before = Usage.of(entry)
                time.sleep(0.02)
        finally:
            stop.set()
            churning.join()
        assert before is not None and n_answers > SECONDS / 5
        wait_for(lambda: Usage.of(entry).n_files <= before.n_files + 16, "connections to be closed", 30)
        after = Usage.of(entry)
        print(f"{n_answers} equal answers in {SECONDS:.0f} s; {before} -> {after}")
        assert after.n_threads <= before.n_threads + 4
        assert after.rss_bytes <= 1.2 * before.rss_bytes + 16 * 1024 * 1024
