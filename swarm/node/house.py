"""Pulling a model with the whole house: each device brings from the hub what it will hold, and nobody brings it twice.

The device where the pull was asked for reads the header, plans the placement, and tells each device which ranges of the
files are its own (pull_plan.py). All bring theirs at the same time and tell the hashes of the chunks. When all hashes
are known they are the manifest: what was brought becomes chunks of a model of the swarm, and whoever lacks some fetches
them from the others, verified. At last the device that pulls reads all chunks in the order of the files, and compares
the SHA-256 that the hub promises.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from swarm.cluster.cost import Device, LinkSpeed
from swarm.cluster.explain import explain
from swarm.cluster.planner import Demand, Plan, plan
from swarm.config import HubSettings, Settings
from swarm.errors import DiskFull, DoesNotFit, DownloadError, SwarmError
from swarm.limits import ADOPT_PATIENCE_S, PULL_SILENCE_S
from swarm.models.appraise import beside_weights
from swarm.models.registry import spec_from_gguf
from swarm.models.spec import ModelSpec, tensors_needed
from swarm.node.background import Background
from swarm.node.driver import Driver
from swarm.node.event_log import EventLog
from swarm.node.helping import records_of
from swarm.node.holdings import Holdings
from swarm.node.library import KnownModel
from swarm.node.model_cost import model_cost
from swarm.node.outbox import Outbox
from swarm.node.plan import cost_as_kept, default_plan_context
from swarm.node.routes import Routes
from swarm.node.shares import Share
from swarm.parts import Part, all_parts, parts_of
from swarm.store.chunks import ChunkStore
from swarm.store.getting import Found, Room, look
from swarm.store.hub_names import HubName
from swarm.store.importing import model_name
from swarm.store.manifest import DIGEST_BYTES, HEADER_STEP, ChunkedTensor, Manifest
from swarm.store.model_table import NamedModel
from swarm.store.naming import remote_of, slug
from swarm.store.origins import Remote
from swarm.store.pull_plan import PullPlan, plan_pull
from swarm.store.rectangles import Rectangle
from swarm.store.stored_model import StoredModel
from swarm.store.web_file import Web
from swarm.units import size_text
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.messages import PullBegin, PullDone, PullReport, PullShare

Json = dict[str, object]
_LOOK_S = 0.2
_NOBODY_HAS_IT = ModelId("0" * 64)


@dataclass(eq=False)
class HousePull:
    """One pull, as the device sees it where it was asked for."""

    found: Found
    plan: PullPlan
    share: Share  # of this device
    units: dict[PeerId, list[int]]  # who brings what; this device included
    hashed: npt.NDArray[np.bool_]  # chunks of which the hash is known
    digests: bytearray
    done: dict[PeerId, int] = field(default_factory=dict)  # bytes, as each device says
    heard_at: dict[PeerId, float] = field(default_factory=dict)
    failed: dict[PeerId, str] = field(default_factory=dict)
    helpers: set[PeerId] = field(default_factory=set)  # all that were ever asked
    phase: str = "Downloading"
    hashed_bytes: int = 0
    error: str = ""
    model: ModelId | None = None

    def learn(self, chunk: int, digest: bytes) -> None:
        """The hash of a chunk that some device has brought."""
        if 0 <= chunk < len(self.hashed):
            self.digests[chunk * DIGEST_BYTES : (chunk + 1) * DIGEST_BYTES] = digest
            self.hashed[chunk] = True


class House:
    """Owner of the pulls that were asked for here; on the loop."""

    def __init__(
        self,
        driver: Driver,
        background: Background,
        holdings: Holdings,
        store: ChunkStore,
        *,
        outbox: Outbox,
        events: EventLog,
        me: PeerId,
        settings: Settings,
    ) -> None:
        self._driver = driver
        self._background = background
        self._holdings = holdings
        self._store = store
        self._outbox = outbox
        self._events = events
        self._me = me
        self._settings = settings
        self._pulls: dict[ModelId, HousePull] = {}

    def take_messages(self, routes: Routes) -> None:
        """What the devices that help say."""
        routes.take_framed(PullReport, self._on_report)

    async def stop(self) -> None:
        """Bring nothing more."""
        for pull in self._pulls.values():
            await self._background.run_io(pull.share.stop)
            pull.share.gathering.close()

    # --- for the API

    async def start(self, text: str, hub: HubSettings) -> Json:
        """Begin to pull a model together; `alone` where one device is enough, or the model is not on the hub.

        Raise SwarmError when it is not to be had, does not run, or does not fit.
        """
        remote = remote_of(text)
        devices = self._driver.read(lambda core: core.devices(_NOBODY_HAS_IT, self._driver.now))
        if not isinstance(remote, NamedModel | HubName) or len(devices) < 2:
            return {"alone": True}
        found = await self._background.run_io(self._look, remote, hub, devices)
        header = found.header
        spec = spec_from_gguf(header.metadata, header.tensors)
        holders, lines = await self._holders(found, spec, devices)
        if len(holders) < 2:
            return {"alone": True}
        pull_plan = plan_pull(
            model_name(header.metadata),
            found.place,
            found.listing.commit,
            found.variant.files,
            header_bytes=header.header_bytes,
            tensors=header.tensors,
        )
        present = self._present(pull_plan, found)
        if present is not None:
            return {"model": present}
        running = self._pulls.get(pull_plan.id)
        if running is None or running.error or running.phase == "done":
            await self._begin(found, pull_plan, shares_of(pull_plan, spec, holders, self._me), hub)
        names = {device.id: device.name for device in devices}
        units = self._pulls[pull_plan.id].units
        told = [f"{names[peer]} {_bytes_of(pull_plan, numbers)}" for peer, numbers in units.items() if peer in names]
        return {"pull": pull_plan.id, "what": str(found), "place": found.place, "devices": told, "lines": lines}

    def progress(self, pull_id: str) -> Json:
        """How far a pull is."""
        pull = self._pulls.get(ModelId(pull_id))
        if pull is None:
            raise DownloadError("this node knows nothing of that pull: it was started anew; pull again, it goes on")
        done = pull.share.done_bytes + sum(n for peer, n in pull.done.items() if peer != self._me)
        is_reading = pull.phase == "Verifying"
        total = sum(file.n_bytes for file in pull.plan.files)
        return {
            "phase": pull.phase,
            "done": pull.hashed_bytes if is_reading else min(done, total),
            "total": total,
            "waits": pull.share.waits,
            "error": pull.error,
            "model": pull.model or "",
        }

    # --- within

    def _look(self, remote: Remote, hub: HubSettings, devices: Sequence[Device]) -> Found:
        judge = partial(beside_weights, kv=self._settings.kv, context=self._settings.context, overhead=0)
        room = Room(sum(device.memory_bytes for device in devices), f"the {len(devices)} devices of the swarm", judge)
        with Web(hub) as web:
            return look(remote, web, room)

    async def _holders(
        self, found: Found, spec: ModelSpec, devices: Sequence[Device]
    ) -> tuple[dict[PeerId, list[Part]], list[str]]:
        """Who is to hold which parts, and how that will be, in words."""
        cost = cost_as_kept(model_cost(slug(found.name), spec, found.header.tensors), spec, self._settings.kv)
        context = default_plan_context(spec.context_length, self._settings.context)

        def link(a: PeerId, b: PeerId) -> LinkSpeed | None:
            return self._driver.read(lambda core: core.link(a, b))

        result = await self._background.run_io(plan, Demand(cost, context), devices, link)
        if isinstance(result, Plan):
            holders = {
                # Each part once, also where all of them share every layer: slices they get from each other.
                member.device: list(parts_of(stage.first, stage.end, spec.n_layers)[i :: len(stage.members)])
                for stage in result.stages
                for i, member in enumerate(stage.members)
            }
            return holders, explain(result)
        if not found.listing.is_named:
            raise DoesNotFit(
                f"{result.reason}; name a quant to pull it all the same, as in {found.place}:{found.variant.label}"
            )
        parts = all_parts(spec.n_layers)  # for devices that are to come: as evenly as can be
        return {device.id: list(parts[i :: len(devices)]) for i, device in enumerate(devices)}, explain(result)

    def _present(self, pull_plan: PullPlan, found: Found) -> ModelId | None:
        """The model of the swarm that has this very header, when devices have all of it."""
        n_header = pull_plan.manifest.header_bytes
        header = found.header.parts[0].beginning[:n_header]
        steps = range(0, n_header, HEADER_STEP)
        digests = b"".join(blake3(header[start : start + HEADER_STEP]).digest() for start in steps)
        for known_model in self._holdings.library.known.values():
            manifest = known_model.manifest
            same = (manifest.header_bytes, manifest.tensors) == (n_header, pull_plan.manifest.tensors)
            if same and manifest.digests.startswith(digests) and self._is_all_there(known_model):
                return known_model.id
        return None

    def _is_all_there(self, known_model: KnownModel) -> bool:
        """True when every part is on the disk of some device that is there."""
        devices = self._driver.read(lambda core: core.devices(known_model.id, self._driver.now))
        return frozenset[Part]().union(*(device.held for device in devices)) >= known_model.all_parts

    async def _begin(self, found: Found, pull_plan: PullPlan, units: dict[PeerId, list[int]], hub: HubSettings) -> None:
        share = await self._background.run_io(Share, pull_plan, self._store, hub)
        n_chunks = pull_plan.manifest.n_chunks
        hashed = np.zeros(n_chunks, np.bool_)
        pull = HousePull(found, pull_plan, share, units, hashed, bytearray(n_chunks * DIGEST_BYTES))
        self._pulls[pull_plan.id] = pull
        self._background.spawn(self._run(pull))

    async def _run(self, pull: HousePull) -> None:
        try:
            await self._bring(pull)
            pull.model = await self._adopt(pull)
            await self._verify(pull, pull.model)
            pull.phase = "done"
            self._events.note("pulled", model=pull.plan.manifest.name, place=pull.found.place)
        except (SwarmError, OSError) as error:
            pull.error = str(error)
            self._events.note("pull_failed", model=pull.plan.manifest.name, why=pull.error)
            await self._background.run_io(pull.share.stop)
            pull.share.gathering.close()

    async def _bring(self, pull: HousePull) -> None:
        """Until the hash of every chunk is known."""
        header = pull.found.header
        beginning = header.parts[0].beginning[: header.header_bytes]
        await self._background.run_io(pull.share.gathering.put_header, beginning)
        for peer in list(pull.units):
            self._hand_out(pull, peer)
        while not pull.hashed.all():
            await asyncio.sleep(_LOOK_S)
            for chunk, digest in pull.share.news(pull.plan.manifest.n_chunks):
                pull.learn(chunk, digest)
            if pull.share.error:
                pull.failed[self._me] = pull.share.error
            self._look_after(pull)

    def _hand_out(self, pull: HousePull, peer: PeerId) -> None:
        """Tell a device what it is to bring."""
        pull.heard_at[peer] = time.monotonic()
        if peer == self._me:
            pull.share.bring(pull.units[peer])
            return
        pull.helpers.add(peer)
        units = np.array(pull.units[peer], "<u4").tobytes()
        self._outbox.send(peer, PullBegin(pull.plan.id), pull.plan.encoded)
        self._outbox.send(peer, PullShare(pull.plan.id), units)

    def _on_report(self, peer: PeerId, message: PullReport, frame: memoryview) -> None:
        pull = self._pulls.get(message.pull)
        if pull is None or peer not in pull.units:
            return
        records = records_of(frame)
        if records or message.done_bytes > pull.done.get(peer, 0):
            pull.heard_at[peer] = time.monotonic()
        pull.done[peer] = message.done_bytes
        for chunk, digest in records:
            pull.learn(chunk, digest)
        if message.error:
            pull.failed[peer] = message.error

    def _look_after(self, pull: HousePull) -> None:
        """What a device cannot bring, because it is gone, or says so, or is silent, goes to the others."""
        there = {self._me, *self._driver.read(lambda core: core.others())}
        now = time.monotonic()
        for peer in list(pull.units):
            left = [unit for unit in pull.units[peer] if not self._is_known(pull, unit)]
            is_silent = bool(left) and peer != self._me and now - pull.heard_at[peer] > PULL_SILENCE_S
            if peer in there and peer not in pull.failed and not is_silent:
                continue
            # What a device took away with it is brought again; what one that only failed has brought is still there.
            lost = pull.units.pop(peer) if peer not in there else left
            pull.units.pop(peer, None)
            pull.done.pop(peer, None)
            why = pull.failed.get(peer, "it does not answer")
            self._share_out(pull, lost, [other for other in pull.units if other in there], why)

    def _share_out(self, pull: HousePull, units: list[int], others: list[PeerId], why: str) -> None:
        if not units:
            return
        if not others and self._me in pull.failed:
            raise DownloadError(f"{why}; what has come is kept: the same command goes on there")
        for unit in units:
            chunks = pull.plan.units[unit].chunks
            pull.hashed[chunks.start : chunks.stop] = False
        takers = others or [self._me]
        for i, peer in enumerate(takers):
            mine = units[i :: len(takers)]
            pull.units.setdefault(peer, []).extend(mine)
            if mine:
                self._hand_out(pull, peer)

    def _is_known(self, pull: HousePull, unit: int) -> bool:
        chunks = pull.plan.units[unit].chunks
        return bool(pull.hashed[chunks.start : chunks.stop].all())

    async def _adopt(self, pull: HousePull) -> ModelId:
        """Make chunks of a model of what was brought, here and where devices helped."""
        planned = pull.plan.manifest
        manifest = Manifest(planned.name, planned.header_bytes, planned.tensors, bytes(pull.digests))
        await self._background.run_io(pull.share.stop)
        await self._background.run_io(self._store.adopt, pull.share.gathering, manifest)
        helpers = [peer for peer in pull.units if peer != self._me]
        for peer in pull.helpers:
            self._outbox.send(peer, PullDone(pull.plan.id, manifest.id))
        catalogs = self._holdings.library.fetcher.catalogs
        deadline = time.monotonic() + ADOPT_PATIENCE_S
        while time.monotonic() < deadline:
            if all(manifest.id in catalogs.get(peer, {}) for peer in helpers):
                break
            await asyncio.sleep(_LOOK_S)
        await self._holdings.offer(manifest.id)
        return manifest.id

    async def _verify(self, pull: HousePull, model: ModelId) -> None:
        """Read all files as they are on the hub, from chunks of all devices, and compare their hashes."""
        pull.phase = "Verifying"
        source = self._store.open(model)
        for number, file in enumerate(pull.plan.files):
            if not file.sha256:
                continue
            digest = hashlib.sha256()
            position = 0
            for offset, name in sorted((o, t.name) for t, (f, o) in self._places(pull) if f == number):
                digest.update(_before(pull.found.header.parts[number].beginning, position, offset))
                await self._have(model, source, name)
                await self._background.run_io(_hash_tensor, digest, source, name)
                position = offset + source.tensors[name].n_bytes
                pull.hashed_bytes += source.tensors[name].n_bytes
            digest.update(bytes(file.n_bytes - position))
            if digest.hexdigest() != file.sha256:
                await self._throw_away(model)
                raise DownloadError(
                    f"{file.path}: what came has SHA-256 {digest.hexdigest()[:12]}..., and the hub says "
                    f"{file.sha256[:12]}...; it was thrown away on all devices: pull it again"
                )

    def _places(self, pull: HousePull) -> list[tuple[ChunkedTensor, tuple[int, int]]]:
        return list(zip(pull.plan.manifest.tensors, pull.plan.places, strict=True))

    async def _have(self, model: ModelId, source: StoredModel, name: str) -> None:
        """Have a tensor's chunks here, for a moment at least: where the disk is small, those before it go."""
        tensor = source.tensors[name]
        fetcher = self._holdings.library.fetcher
        try:
            await fetcher.fetch(model, tensor.chunks)
        except DiskFull:
            chunks = self._store.model(model)
            if chunks is None:
                raise
            await self._background.run_io(chunks.trim, chunks.manifest.header_chunks)
            await fetcher.fetch(model, tensor.chunks)

    async def _throw_away(self, model: ModelId) -> None:
        self._holdings.tell_to_remove(model)
        await self._holdings.remove(model, with_file=False)


def shares_of(
    pull_plan: PullPlan, spec: ModelSpec, holders: dict[PeerId, list[Part]], me: PeerId
) -> dict[PeerId, list[int]]:
    """Which units each device brings: those of its parts; what is of no part, and what two would have, once."""
    unit_of = np.zeros(pull_plan.manifest.n_chunks, np.int64)
    for number, unit in enumerate(pull_plan.units):
        unit_of[unit.chunks.start : unit.chunks.stop] = number
    n_header = len(pull_plan.manifest.header_chunks)
    free = np.ones(len(pull_plan.units), np.bool_)
    shares: dict[PeerId, list[int]] = {}
    for peer, parts in holders.items():
        refs = (need.ref for need in tensors_needed(spec, parts))
        chunks = pull_plan.manifest.chunks_of(Rectangle(ref.name, ref.rows, ref.columns, ref.slabs) for ref in refs)
        wanted = np.unique(unit_of[[chunk for chunk in chunks if chunk >= n_header]])
        shares[peer] = [int(unit) for unit in wanted if free[unit]]
        free[wanted] = False
    shares.setdefault(me, []).extend(int(unit) for unit in np.flatnonzero(free))
    return shares


def _before(beginning: bytes, position: int, offset: int) -> bytes:
    """What lies before a tensor: the header at first, then padding, which is zeros."""
    read = beginning[position:offset]
    return read + bytes(offset - position - len(read))


def _hash_tensor(digest: hashlib._Hash, source: StoredModel, name: str) -> None:
    tensor = source.tensors[name]
    if len(tensor.shape) > 1:
        for slab in source.slabs(name):
            digest.update(np.ascontiguousarray(slab).data)
    else:
        digest.update(np.ascontiguousarray(source.raw(name)).data)


def _bytes_of(pull_plan: PullPlan, numbers: Sequence[int]) -> str:
    return size_text(sum(pull_plan.units[n].end - pull_plan.units[n].start for n in numbers))
