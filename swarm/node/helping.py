"""Helping another device to pull a model: bring what it asks for, tell the hashes, and keep it once all is known."""

from __future__ import annotations

import asyncio
import struct

import numpy as np

from swarm import config
from swarm.errors import RemoteProtocolError, ResourceError, SwarmError
from swarm.limits import MAX_PULLS_HELPED, MAX_REPORTED_CHUNKS, MAX_TEXT_BYTES, PULL_REPORT_S, SEND_RETRY_S
from swarm.node.background import Background
from swarm.node.event_log import EventLog
from swarm.node.holdings import Holdings
from swarm.node.outbox import Outbox
from swarm.node.routes import Routes
from swarm.node.shares import Share
from swarm.store.chunks import ChunkStore
from swarm.store.manifest_decoding import decode_manifest
from swarm.store.pull_plan import decode_plan
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.messages import PullBegin, PullDone, PullReport, PullShare

_RECORD = struct.Struct("<I32s")
_REPORT_TRIES = 2000  # while its queue is full


class Helping:
    """Owner of the shares that this device brings for others; on the loop."""

    def __init__(
        self, background: Background, store: ChunkStore, holdings: Holdings, outbox: Outbox, events: EventLog
    ) -> None:
        self._background = background
        self._store = store
        self._holdings = holdings
        self._outbox = outbox
        self._events = events
        self._shares: dict[ModelId, Share] = {}
        self._reporting: set[ModelId] = set()

    def take_messages(self, routes: Routes) -> None:
        """What a device that pulls a model asks of this one."""
        routes.take_framed(PullBegin, self._on_begin)
        routes.take_framed(PullShare, self._on_share)
        routes.take(PullDone, self._on_done)

    async def stop(self) -> None:
        """Bring nothing more."""
        for share in self._shares.values():
            await self._background.run_io(share.stop)
            share.gathering.close()

    def _on_begin(self, peer: PeerId, message: PullBegin, frame: memoryview) -> None:
        try:
            plan = decode_plan(bytes(frame))
            if plan.id != message.pull:
                raise RemoteProtocolError("a plan of a pull is not the one that was announced")
            if plan.id not in self._shares and len(self._shares) >= MAX_PULLS_HELPED:
                raise ResourceError(f"this device helps to pull {MAX_PULLS_HELPED} other models already")
            if plan.id not in self._shares:
                # By this device's own way to the hub, and its own token: no other place is asked for a peer's sake.
                self._shares[plan.id] = Share(plan, self._store, config.hub())
        except SwarmError as error:
            self._events.note("pull_refused", why=str(error))
            self._outbox.send(peer, PullReport(message.pull, 0, _short(str(error))), b"")

    def _on_share(self, peer: PeerId, message: PullShare, frame: memoryview) -> None:
        share = self._shares.get(message.pull)
        if share is None or len(frame) % 4:
            return
        units = [int(unit) for unit in np.frombuffer(frame, "<u4")]
        self._events.note("helps_to_pull", model=share.plan.manifest.name, units=len(units))
        share.bring(units)
        if message.pull not in self._reporting:
            self._reporting.add(message.pull)
            self._background.spawn(self._report(peer, message.pull, share))

    async def _report(self, peer: PeerId, pull: ModelId, share: Share) -> None:
        """Tell what has come, until all has and was told, or an error was."""
        try:
            while self._shares.get(pull) is share:
                news = share.news(MAX_REPORTED_CHUNKS)
                is_last = bool(share.error) or (share.is_done and not news)
                frame = b"".join(_RECORD.pack(chunk, digest) for chunk, digest in news)
                report = PullReport(pull, share.done_bytes, _short(share.error))
                if not await self._send(peer, report, frame) or is_last:
                    return
                await asyncio.sleep(0 if len(news) == MAX_REPORTED_CHUNKS else PULL_REPORT_S)
        finally:
            self._reporting.discard(pull)

    async def _send(self, peer: PeerId, report: PullReport, frame: bytes) -> bool:
        for _ in range(_REPORT_TRIES):
            if self._outbox.send(peer, report, frame):
                return True
            await asyncio.sleep(SEND_RETRY_S)
        return False

    def _on_done(self, peer: PeerId, message: PullDone) -> None:
        share = self._shares.pop(message.pull, None)
        if share is not None:
            self._background.spawn(self._adopt(peer, message.model, share))

    async def _adopt(self, peer: PeerId, model: ModelId, share: Share) -> None:
        try:
            await self._background.run_io(share.stop)
            manifest = decode_manifest(await self._holdings.library.fetcher.manifest_from(peer, model))
            if manifest.id != model:
                raise RemoteProtocolError("a manifest is not the one that was announced")
            await self._holdings.adopt(share.gathering, manifest)
        except (SwarmError, TimeoutError) as error:
            share.gathering.close()
            self._events.note("pull_lost", model=model[:12], why=str(error) or "no manifest came")


def records_of(frame: memoryview) -> list[tuple[int, bytes]]:
    """The chunks and hashes of a report."""
    whole = len(frame) // _RECORD.size * _RECORD.size
    return [(int(chunk), bytes(digest)) for chunk, digest in _RECORD.iter_unpack(frame[:whole])]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return "".join(char for char in line if char.isprintable()).encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
