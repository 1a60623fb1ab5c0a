"""Fetching models from peers: manifests whole, chunks through the pull scheduler, every byte verified before it counts.

Runs on the node's loop; hashing and writing happen on the store's own threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol, TypeVar, TypeVarTuple

import numpy as np
import numpy.typing as npt

from swarm import limits
from swarm.errors import ModelNotFound, RemoteProtocolError, SwarmError
from swarm.plain import one_line
from swarm.store.chunks import ChunkStore
from swarm.store.manifest import Manifest
from swarm.store.pull import AskChunk, AskHave, Ban, Cancel, Pull, PullEffect
from swarm.wire.ids import ModelId, PeerId
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
from swarm.wire.records import ModelHolding

log = logging.getLogger(__name__)
Bits = npt.NDArray[np.bool_]
TICK_S = 0.1  # while something is fetched; the pull scheduler says what is due
Result = TypeVar("Result")
Args = TypeVarTuple("Args")


class RunIo(Protocol):
    """Runs a function on one of the store's threads."""

    def __call__(self, function: Callable[[*Args], Result], *args: *Args) -> Awaitable[Result]: ...


@dataclass(frozen=True)
class Around:
    """What fetching needs of the node."""

    store: ChunkStore
    send: Callable[[PeerId, Message], bool]
    run_io: RunIo
    has_changed: Callable[[ModelId], None]  # this device has more of a model than before
    peer_has: Callable[[PeerId, ModelId, Bits], None]  # a peer said which chunks it has
    in_use: Callable[[], set[ModelId]]  # models that must not make way for others
    banned: Callable[[PeerId, str], None]  # a peer sent wrong bytes, or does not give what it says it has


@dataclass(eq=False)
class _Wait:
    """Somebody waits for these chunks."""

    missing: set[int]
    future: asyncio.Future[None]


@dataclass(eq=False)
class _Fetch:
    """Everything that is being fetched of one model."""

    model: ModelId
    pull: Pull
    waits: list[_Wait] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)  # the pull's request -> the number that travels
    moved_at: float = 0.0


class Fetcher:
    """`fetch` and `manifest` are coroutines; the other methods take what peers say."""

    def __init__(self, around: Around, rng: Random) -> None:
        self.catalogs: dict[PeerId, dict[ModelId, ModelHolding]] = {}
        self.bytes_fetched = 0
        self._around = around
        self._rng = rng
        self._fetches: dict[ModelId, _Fetch] = {}
        self._requests: dict[int, tuple[_Fetch, AskChunk]] = {}  # by the number that travels
        self._next_number = 1
        self._pieces: dict[tuple[PeerId, ModelId, int], asyncio.Future[tuple[bytes, int]]] = {}
        self._rate: float | None = None
        self._banned: set[PeerId] = set()
        self._disappointed: Counter[PeerId] = Counter()  # manifests that did not come
        self._ticking: asyncio.Task[None] | None = None

    # --- what the node asks

    async def fetch(self, model: ModelId, chunks: Iterable[int]) -> None:
        """Have these chunks on the disk. Raise DiskFull, or ModelNotFound when no device that is there has them."""
        chunks_here = self._around.store.model(model)
        if chunks_here is None:
            raise ModelNotFound(f"model {model[:12]} is not known here yet")
        missing = {chunk for chunk in chunks if not chunks_here.held[chunk]}
        if not missing:
            return
        n_bytes = int(chunks_here.manifest.chunk_sizes[list(missing)].sum())
        await self._around.run_io(self._around.store.make_room, n_bytes, self._in_use() | {model})
        fetch = self._fetches.get(model) or self._begin(model, chunks_here.manifest)
        wait = _Wait(missing, asyncio.get_running_loop().create_future())
        fetch.waits.append(wait)
        if self._ticking is None or self._ticking.done():
            self._ticking = _spawn(self._tick_while_fetching())
        self._do(fetch, fetch.pull.want(sorted(missing), time.monotonic()))
        self._settle(fetch, (chunk for chunk in missing if chunks_here.held[chunk]))  # what came while room was made
        await wait.future

    async def manifest(self, model: ModelId) -> Manifest:
        """The manifest of a model, from this device or from whoever has it; ModelNotFound when nobody gives it."""
        chunks_here = self._around.store.model(model)
        if chunks_here is not None:
            return chunks_here.manifest
        for peer in self.holders(model):
            try:
                async with asyncio.timeout(limits.MANIFEST_MAX_S):
                    data = await self._manifest_of(peer, model)
                return await self._around.run_io(self._around.store.add_manifest, data, model, self._in_use())
            except (TimeoutError, RemoteProtocolError) as error:
                why = one_line(str(error)) or "it does not come"
                log.warning("no manifest from %s: %s", peer, why)
                self._disappointed[peer] += 1
                self._around.banned(peer, f"does not give a manifest that it has ({why})")
        raise ModelNotFound(f"no device at hand has model {model[:12]}")

    async def manifest_from(self, peer: PeerId, model: ModelId) -> bytes:
        """The manifest that one device has, encoded; TimeoutError or RemoteProtocolError when it does not give it."""
        return await self._manifest_of(peer, model)

    def holders(self, model: ModelId) -> list[PeerId]:
        """Devices that said they have something of a model, those with most of it first."""
        have = {peer: catalog[model].n_have for peer, catalog in self.catalogs.items() if model in catalog}
        free = (peer for peer in have if peer not in self._banned)
        return sorted(free, key=lambda peer: (self._disappointed[peer], -have[peer], peer))

    def progress(self) -> tuple[int, int]:
        """Bytes done and wanted by what is being fetched now; (0, 0) when that is nothing."""
        pulls = [fetch.pull for fetch in self._fetches.values()]
        return sum(pull.bytes_done for pull in pulls), sum(pull.bytes_wanted for pull in pulls)

    def set_rate(self, bytes_per_s: float | None) -> None:
        """AskChunk for no more than this: an answer in progress needs the network. None lets go."""
        if bytes_per_s != self._rate:
            self._rate = bytes_per_s
            for fetch in list(self._fetches.values()):
                self._do(fetch, fetch.pull.set_rate(bytes_per_s, time.monotonic()))

    @property
    def is_fetching(self) -> bool:
        return bool(self._fetches)

    def tick(self) -> None:
        """Time has passed."""
        now = time.monotonic()
        for fetch in list(self._fetches.values()):
            due = fetch.pull.next_tick(now)
            if due is not None and due <= now:
                self._do(fetch, fetch.pull.tick(now))
            if now - fetch.moved_at > limits.FETCH_PATIENCE_S and self._rate is None:
                self._fail(fetch, ModelNotFound(self._why_stuck(fetch)))

    # --- what peers say

    def catalog(self, peer: PeerId, models: Sequence[ModelHolding]) -> None:
        """A peer told what it has."""
        self.catalogs[peer] = {holding.model: holding for holding in models}
        for holding in models:
            fetch = self._fetches.get(holding.model)
            if fetch is not None and holding.n_have and peer not in self._banned:
                self._do(fetch, fetch.pull.add_peer(peer, time.monotonic()))

    def peer_gone(self, peer: PeerId) -> None:
        """A peer is not there any more."""
        self.catalogs.pop(peer, None)
        for fetch in list(self._fetches.values()):
            self._do(fetch, fetch.pull.peer_gone(peer, time.monotonic()))
        for key, future in self._pieces.items():
            if key[0] == peer and not future.done():
                future.set_exception(TimeoutError("it is gone"))

    def have(self, peer: PeerId, message: Have, frame: memoryview) -> None:
        """A peer told which chunks of a model it has."""
        chunks_here = self._around.store.model(message.model)
        if chunks_here is None or message.start != 0:
            return
        bits = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[: chunks_here.manifest.n_chunks]
        self._around.peer_has(peer, message.model, bits.astype(np.bool_))
        fetch = self._fetches.get(message.model)
        if fetch is not None:
            self._do(fetch, fetch.pull.peer_has(peer, bytes(frame), 0, time.monotonic()))

    def ask_have(self, peer: PeerId, model: ModelId) -> None:
        """AskChunk a peer which chunks of a model it has."""
        self._around.send(peer, HaveRequest(model, 0))

    def manifest_piece(self, peer: PeerId, message: ManifestReply, frame: memoryview) -> None:
        """A piece of a manifest came."""
        future = self._pieces.get((peer, message.model, message.offset))
        if future is not None and not future.done():
            future.set_result((bytes(frame), message.total_bytes))

    def chunk(self, peer: PeerId, message: ChunkReply, frame: memoryview) -> None:
        """A chunk came, or that it is not there."""
        fetch, ask = self._requests.get(message.request, (None, None))
        if fetch is None or ask is None or ask.peer != peer:
            return  # not needed any more
        del self._requests[message.request]
        fetch.numbers.pop(ask.request, None)
        self._do(fetch, fetch.pull.arrived(ask.request, message.found, time.monotonic()))
        if message.found:
            self.bytes_fetched += len(frame)
            _spawn(self._keep(fetch, ask.request, ask.chunk, frame))

    # --- within

    def _in_use(self) -> set[ModelId]:
        """Models that must not make way: those in memory, and those that are being fetched."""
        return self._around.in_use() | self._fetches.keys()

    async def _tick_while_fetching(self) -> None:
        while self._fetches:
            try:
                self.tick()
            except Exception:  # a bug in one turn must not end all later ones
                log.exception("a bug")
            await asyncio.sleep(TICK_S)

    def _begin(self, model: ModelId, manifest: Manifest) -> _Fetch:
        pull = Pull(manifest.chunk_sizes, Random(self._rng.random()), manifest.name)
        fetch = self._fetches[model] = _Fetch(model, pull, moved_at=time.monotonic())
        now = time.monotonic()
        pull.set_rate(self._rate, now)
        for peer in self.holders(model):
            self._do(fetch, pull.add_peer(peer, now))
        return fetch

    def _do(self, fetch: _Fetch, effects: list[PullEffect]) -> None:
        for effect in effects:
            match effect:
                case AskChunk(peer, request, chunk, n_bytes):
                    number, self._next_number = self._next_number, self._next_number % (2**31 - 1) + 1
                    self._requests[number] = (fetch, effect)
                    fetch.numbers[request] = number
                    chunk_id = self._manifest(fetch).chunk_id(chunk)
                    self._around.send(peer, ChunkRequest(number, chunk_id, 0, n_bytes))
                case Cancel(peer, request):
                    asked = fetch.numbers.pop(request, None)
                    if asked is not None:
                        self._requests.pop(asked, None)
                        self._around.send(peer, ChunkCancel(asked))
                case AskHave(peer):
                    self.ask_have(peer, fetch.model)
                case Ban(peer, reason):
                    self._banned.add(peer)
                    self._around.banned(peer, f"sent wrong bytes: {reason}")

    async def _keep(self, fetch: _Fetch, request: int, chunk: int, data: memoryview) -> None:
        """Verify a chunk and write it."""
        try:
            right = await self._around.run_io(self._around.store.put, fetch.model, chunk, data)
        except (SwarmError, KeyError) as error:  # the disk is full, or the model was removed meanwhile
            self._do(fetch, fetch.pull.not_kept(request, time.monotonic()))
            self._fail(fetch, error if isinstance(error, SwarmError) else ModelNotFound("the model was removed"))
            return
        self._do(fetch, fetch.pull.verified(request, right, time.monotonic()))
        if right:
            fetch.moved_at = time.monotonic()
            self._settle(fetch, (chunk,))

    def _settle(self, fetch: _Fetch, chunks: Iterable[int]) -> None:
        """These chunks are here: tell who waited for them."""
        arrived = set(chunks)
        for wait in list(fetch.waits):
            wait.missing -= arrived
            if wait.future.cancelled() or not wait.missing:
                fetch.waits.remove(wait)
                if not wait.future.done():
                    wait.future.set_result(None)
        if not fetch.waits:
            self._end(fetch)
            self._around.has_changed(fetch.model)

    def _end(self, fetch: _Fetch) -> None:
        """Nobody waits any more: forget the fetch, and cancel what is on its way."""
        if self._fetches.get(fetch.model) is fetch:
            del self._fetches[fetch.model]
        for number in fetch.numbers.values():
            _, ask = self._requests.pop(number)
            self._around.send(ask.peer, ChunkCancel(number))
        fetch.numbers.clear()

    def _fail(self, fetch: _Fetch, error: SwarmError) -> None:
        waits, fetch.waits = fetch.waits, []
        self._end(fetch)
        for wait in waits:
            if not wait.future.done():
                wait.future.set_exception(error)

    def _why_stuck(self, fetch: _Fetch) -> str:
        missing = len(fetch.pull.unavailable())
        name = fetch.pull.name
        if missing:
            return f"no device at hand has {missing} chunks of {name}; start the device that has its file"
        return f"{name}: no chunk came for {limits.FETCH_PATIENCE_S:.0f} s from the devices that have it"

    def _manifest(self, fetch: _Fetch) -> Manifest:
        chunks_here = self._around.store.model(fetch.model)
        assert chunks_here is not None
        return chunks_here.manifest

    async def _manifest_of(self, peer: PeerId, model: ModelId) -> bytes:
        data = bytearray()
        while True:
            piece, total = await self._piece(peer, model, len(data))
            if total == 0:
                raise RemoteProtocolError(f"device {peer[:8]} does not have that manifest")
            # Each piece but the last is as long as may be: one byte at a time would take days.
            right = min(total - len(data), limits.MAX_BULK_FRAME_BYTES)
            if total > limits.MAX_MANIFEST_BYTES or right <= 0 or len(piece) != right:
                raise RemoteProtocolError(f"device {peer[:8]} sent a manifest whose pieces make no sense")
            data += piece
            if len(data) == total:
                return bytes(data)

    async def _piece(self, peer: PeerId, model: ModelId, offset: int) -> tuple[bytes, int]:
        key = (peer, model, offset)
        future = self._pieces[key] = asyncio.get_running_loop().create_future()
        try:
            self._around.send(peer, ManifestRequest(model, offset))
            return await asyncio.wait_for(future, limits.MANIFEST_TIMEOUT_S)
        finally:
            del self._pieces[key]


_tasks: set[asyncio.Task[None]] = set()


def _spawn(work: Awaitable[None]) -> asyncio.Task[None]:
    """Run on the loop; the task is kept until it ends."""
    task = asyncio.ensure_future(work)
    assert isinstance(task, asyncio.Task)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task
