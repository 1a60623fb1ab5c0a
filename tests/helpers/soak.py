"""A household for a while: devices that die and come back, a bad member, floods of calls; what it takes all along."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import psutil

from swarm.errors import SwarmNetworkError
from swarm.net.events import Event, PeerUp, Received
from swarm.net.inbox import Inbox
from swarm.net.transport import Transport
from swarm.wire.ids import PeerId, SessionId
from swarm.wire.messages import Message, PlacementOffer, PlacementReply, SessionOpen, SessionProbe, SessionReply
from swarm.wire.proof import Credentials
from tests.helpers.lan import enter
from tests.helpers.nodes import NodeProcess, Swarm, wait_for

Made = TypeVar("Made")
SECONDS = float(os.environ.get("SWARM_SOAK_S", "30"))
PAUSE_S = float(os.environ.get("SWARM_SOAK_PAUSE_S", "0.02"))  # between two answers
CHURN_S = float(os.environ.get("SWARM_SOAK_CHURN_S", "6"))  # between two faults
FLOOD_S = 4.0  # between two floods
TELL_S = 60.0  # between two lines of what it takes
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
        if node.namespace:  # `ip netns exec` has become the node
            process = next((child for child in process.children() if "swarm" in child.cmdline()), process)
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())

    def __str__(self) -> str:
        return f"{self.rss_bytes / 1e6:.1f} MB, {self.n_files} files, {self.n_threads} threads"


class BadMember:
    """Has the key: takes every offer, opens no session, and sends more questions than any honest device."""

    def __init__(self, node: NodeProcess, host: str = "127.0.0.1", namespace: str = "") -> None:
        key = node.home.keys.swarm_key()
        assert key is not None
        self._peers: set[PeerId] = set()
        credentials = Credentials(key.secret, secrets.token_bytes(32))
        inbox = Inbox(self._on_event)
        self.transport = there(namespace, lambda: Transport.start(credentials, name="bad", inbox=inbox, port=0))
        self.transport.call(f"{host}:{node.port}")

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
def bad_member(node: NodeProcess, host: str = "127.0.0.1", namespace: str = "") -> Iterator[BadMember]:
    member = BadMember(node, host, namespace)
    try:
        yield member
    finally:
        member.transport.stop()


def there(namespace: str, make: Callable[[], Made]) -> Made:
    """Make something in a network namespace ("": here), on a thread that enters it, and so do its threads."""
    if not namespace:
        return make()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(enter, namespace).result()
        return pool.submit(make).result()


def knock(node: NodeProcess) -> None:
    """Connections that send nothing, halves of requests, and nonsense."""
    local = node.local
    if local is None:
        return

    def call() -> None:
        with contextlib.ExitStack() as stack:
            for i in range(N_SILENT):
                with contextlib.suppress(OSError):
                    caller = stack.enter_context(socket.create_connection(("127.0.0.1", local.api_port), timeout=2))
                    caller.sendall((b"", b"GET /hea", b"\xff" * 100)[i % 3])
            time.sleep(0.2)

    there(node.namespace, call)


def churn(nodes: Swarm, rng: Random, stop: threading.Event) -> None:
    """Kill one of the others again and again, and bring it back; in a LAN, its cable may be pulled instead."""
    while not stop.wait(CHURN_S):
        victim = rng.randrange(1, len(nodes.nodes))
        if nodes.lan is not None and rng.random() < 0.5:
            nodes.lan.cut(victim + 1)
            stop.wait(3.0)
            nodes.lan.heal(victim + 1)
        else:
            nodes.nodes[victim].kill()
            stop.wait(1.0)
            nodes.nodes[victim].start()


def soak(nodes: Swarm, bad: BadMember) -> None:
    """Ask the first node the same for SECONDS, under all that; fail when an answer differs, or what it takes grows."""
    entry, stop = nodes.nodes[0], threading.Event()
    body = {"model": nodes.model, "prompt": "The sea is", "max_tokens": 40, "temperature": 1.5}
    asked = (({**body, "seed": seed}) for seed in range(50))
    body, expected = next((b, tokens) for b in asked if len(tokens := entry.ask(b).tokens) == 40)
    churning = threading.Thread(target=churn, args=(nodes, Random(1), stop))
    churning.start()
    longest_s, n_answers, seen = 0.0, 0, list[Usage]()
    try:
        began, flooded, told = time.monotonic(), 0.0, 0.0
        while (passed := time.monotonic() - began) < SECONDS:
            heard = entry.ask(body)
            assert not heard.error and heard.tokens == expected, (n_answers, passed, heard.error, heard.notes)
            longest_s = max(longest_s, time.monotonic() - began - passed)
            n_answers += 1
            if passed - flooded > FLOOD_S:
                flooded = passed
                bad.flood()
                knock(entry)
            if passed > SECONDS / 3 and not seen:
                seen.append(Usage.of(entry))
            if passed - told > TELL_S:
                told = passed
                print(f"{passed:.0f} s: {n_answers} equal answers, {Usage.of(entry)}", flush=True)
            time.sleep(PAUSE_S)
    finally:
        stop.set()
        churning.join()
    (before,) = seen
    wait_for(lambda: Usage.of(entry).n_files <= before.n_files + 16, "connections to be closed", 30)
    after = Usage.of(entry)
    print(f"{n_answers} equal answers in {SECONDS:.0f} s, the longest took {longest_s:.1f} s; {before} -> {after}")
    assert n_answers > SECONDS / 5 / (1 + PAUSE_S)
    assert after.n_threads <= before.n_threads + 4
    assert after.rss_bytes <= 1.2 * before.rss_bytes + 16 * 1024 * 1024
