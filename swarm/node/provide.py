"""Giving models to peers: manifests, which chunks there are, and the chunks, read and checked off the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from swarm import limits
from swarm.errors import PeerBusy, SwarmError
from swarm.node.fetch import RunIo
from swarm.node.routes import Routes
from swarm.store.chunks import ChunkStore
from swarm.store.pacing import RateLimit
from swarm.wire.codec import Buffer
from swarm.wire.ids import PeerId
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


class Sender(Protocol):
    """The transport's `send`."""

    def __call__(self, peer: PeerId, message: Message, frame: Buffer | None = None) -> None: ...


class Provider:
    """Answers the store's messages of all peers; each peer has a queue of its own, so none waits for a slow one."""

    def __init__(self, store: ChunkStore, send: Sender, run_io: RunIo, clock: Callable[[], float]) -> None:
        self.bytes_given = 0
        self._store = store
        self._send = send
        self._run_io = run_io
        self._clock = clock
        self._limit = RateLimit()
        self._queues: dict[PeerId, deque[ChunkRequest]] = {}
        self._tasks: dict[PeerId, asyncio.Task[None]] = {}

    def take_messages(self, routes: Routes) -> None:
        """What peers ask of the store."""
        routes.take(ManifestRequest, self.manifest)
        routes.take(HaveRequest, self.have)
        routes.take(ChunkRequest, self.chunk)
        routes.take(ChunkCancel, self.cancel)

    def manifest(self, peer: PeerId, message: ManifestRequest) -> None:
        """Give a piece of a manifest."""
        chunks = self._store.model(message.model)
        data = chunks.manifest.encoded if chunks is not None else b""
        piece = data[message.offset : message.offset + limits.MAX_BULK_FRAME_BYTES]
        self._try_send(peer, ManifestReply(message.model, message.offset, len(data)), piece)

    def have(self, peer: PeerId, message: HaveRequest) -> None:
        """Say which chunks are here."""
        chunks = self._store.model(message.model)
        n_chunks = max(chunks.manifest.n_chunks - message.start, 0) if chunks is not None else 0
        bits = self._store.have_bits(message.model, message.start) if n_chunks else b""
        self._try_send(peer, Have(message.model, message.start, n_chunks), bits)

    def chunk(self, peer: PeerId, message: ChunkRequest) -> None:
        """Give bytes of a chunk when its turn comes."""
        queue = self._queues.setdefault(peer, deque(maxlen=2 * limits.MAX_PULL_REQUESTS))
        queue.append(message)
        if peer not in self._tasks:
            self._tasks[peer] = asyncio.create_task(self._give(peer, queue), name="swarm-give")

    def cancel(self, peer: PeerId, message: ChunkCancel) -> None:
        """The peer does not need that request any more."""
        queue = self._queues.get(peer, deque())
        for request in [request for request in queue if request.request == message.request]:
            queue.remove(request)

    def peer_gone(self, peer: PeerId) -> None:
        """Forget what it asked for."""
        self._queues.pop(peer, None)
        task = self._tasks.pop(peer, None)
        if task is not None:
            task.cancel()

    @property
    def is_giving(self) -> bool:
        return bool(self._tasks)

    def set_rate(self, bytes_per_s: float | None) -> None:
        """Give no more than this: an answer in progress needs the network. None lets go."""
        self._limit.set_rate(bytes_per_s, self._clock())

    def stop(self) -> None:
        """Give nothing more."""
        for peer in list(self._tasks):
            self.peer_gone(peer)

    async def _give(self, peer: PeerId, queue: deque[ChunkRequest]) -> None:
        try:
            while queue:
                request = queue.popleft()
                data = await self._run_io(self._store.read, request.chunk, request.offset, request.n_bytes)
                await self._wait_for_turn(len(data or b""))
                reply = ChunkReply(request.request, request.chunk, request.offset, data is not None)
                if not await self._send_when_free(peer, reply, data if data is not None else b""):
                    return
                self.bytes_given += len(data or b"")
        finally:
            if self._tasks.get(peer) is asyncio.current_task():
                del self._tasks[peer]

    async def _wait_for_turn(self, n_bytes: int) -> None:
        while not self._limit.may_go(self._clock()):
            await asyncio.sleep(min(self._limit.wait_s(self._clock()) or limits.SEND_RETRY_S, 0.1))
        self._limit.take(n_bytes)

    async def _send_when_free(self, peer: PeerId, message: Message, frame: Buffer) -> bool:
        """Send once the peer takes it; False when it is gone."""
        while True:
            try:
                self._send(peer, message, frame)
                return True
            except PeerBusy:
                await asyncio.sleep(limits.SEND_RETRY_S)
            except SwarmError:
                return False

    def _try_send(self, peer: PeerId, message: Message, frame: Buffer) -> None:
        try:
            self._send(peer, message, frame)
        except SwarmError:
            return  # gone or busy: whoever asked asks again
