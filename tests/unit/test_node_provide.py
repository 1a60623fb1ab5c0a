"""Giving models to peers, with a store and a network that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from swarm.errors import PeerBusy, PeerLost
from swarm.node.provide import Provider
from swarm.wire.ids import ChunkId, ModelId, PeerId
from swarm.wire.messages import (
    ChunkCancel,
    ChunkReply,
    ChunkRequest,
    Have,
    HaveRequest,
    ManifestReply,
    ManifestRequest,
    Message,
)

MODEL, OTHER, CHUNK = ModelId("ab" * 32), ModelId("cd" * 32), ChunkId("ef" * 32)
PEER, SECOND = PeerId("1" * 32), PeerId("2" * 32)
CHUNKS = SimpleNamespace(manifest=SimpleNamespace(encoded=b"manifest", n_chunks=10), held=np.ones(10, bool))


class Network:
    """Remembers what is sent; `busy` sends fail first."""

    def __init__(self, busy: int = 0) -> None:
        self.sent: list[tuple[PeerId, Message, bytes]] = []
        self.busy = busy
        self.gone: set[PeerId] = set()

    def send(self, peer: PeerId, message: Message, frame: bytes | memoryview | None = None) -> None:
        if peer in self.gone:
            raise PeerLost("gone")
        if self.busy:
            self.busy -= 1
            raise PeerBusy("busy")
        self.sent.append((peer, message, bytes(frame or b"")))


def provider(network: Network) -> Provider:
    store: Any = SimpleNamespace(
        model=lambda model: CHUNKS if model == MODEL else None,
        have_bits=lambda model, start: b"\x01" * (10 - start),
        read=lambda chunk, offset, n_bytes: b"x" * n_bytes if chunk == CHUNK else None,
    )

    async def run_io(function: Callable[..., object], *arguments: object) -> Any:
        return function(*arguments)

    def run(function: Callable[..., object], *arguments: object) -> Awaitable[Any]:
        return run_io(function, *arguments)

    return Provider(store, network.send, run, lambda: 0.0)  # type: ignore[arg-type]


async def until_done(giving: Provider) -> None:
    while giving.is_giving:
        await asyncio.sleep(0)


def test_manifests_and_what_is_here_are_told() -> None:
    network = Network()
    giving = provider(network)
    giving.manifest(PEER, ManifestRequest(MODEL, 4))
    giving.manifest(PEER, ManifestRequest(OTHER, 0))
    giving.have(PEER, HaveRequest(MODEL, 8))
    giving.have(PEER, HaveRequest(OTHER, 0))
    assert network.sent == [
        (PEER, ManifestReply(MODEL, 4, 8), b"fest"),
        (PEER, ManifestReply(OTHER, 0, 0), b""),
        (PEER, Have(MODEL, 8, 2), b"\x01\x01"),
        (PEER, Have(OTHER, 0, 0), b""),
    ]


def test_chunks_are_given_in_order_and_what_is_not_here_is_said() -> None:
    async def story() -> None:
        network = Network(busy=2)
        giving = provider(network)
        giving.chunk(PEER, ChunkRequest(1, CHUNK, 0, 3))
        giving.chunk(PEER, ChunkRequest(2, ChunkId("0" * 64), 0, 3))
        await until_done(giving)
        assert network.sent == [
            (PEER, ChunkReply(1, CHUNK, 0, True), b"xxx"),
            (PEER, ChunkReply(2, ChunkId("0" * 64), 0, False), b""),
        ]
        assert giving.bytes_given == 3

    asyncio.run(story())


def test_what_is_cancelled_or_of_a_peer_that_is_gone_is_not_given() -> None:
    async def story() -> None:
        network = Network()
        giving = provider(network)
        giving.chunk(PEER, ChunkRequest(1, CHUNK, 0, 1))
        giving.chunk(PEER, ChunkRequest(2, CHUNK, 0, 1))
        giving.cancel(PEER, ChunkCancel(2))
        giving.cancel(SECOND, ChunkCancel(2))
        giving.chunk(SECOND, ChunkRequest(3, CHUNK, 0, 1))
        giving.peer_gone(SECOND)
        await until_done(giving)
        assert [message.request for _, message, _ in network.sent if isinstance(message, ChunkReply)] == [1]
        network.gone.add(PEER)
        giving.chunk(PEER, ChunkRequest(4, CHUNK, 0, 1))
        await until_done(giving)
        giving.chunk(PEER, ChunkRequest(5, CHUNK, 0, 1))
        giving.stop()
        assert not giving.is_giving and len(network.sent) == 1

    asyncio.run(story())
