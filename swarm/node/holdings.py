"""Who has what of which model: known here, told to the core and to peers."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from swarm import limits
from swarm.cluster.cost import ModelCost
from swarm.cluster.effects import LookUp
from swarm.engine.expert_cache import learnt_ranks
from swarm.engine.expert_folder import ExpertFolder, delete_experts
from swarm.errors import ModelNotFound, ResourceError, SwarmError
from swarm.node.background import Background
from swarm.node.driver import Driver, is_serving
from swarm.node.event_log import EventLog
from swarm.node.fetch import Around
from swarm.node.library import KnownModel, Library
from swarm.node.outbox import Outbox
from swarm.node.routes import Routes
from swarm.parts import Part
from swarm.store.chunks import ChunkStore
from swarm.store.gathering import Gathering
from swarm.store.manifest import Manifest
from swarm.store.origins import origin_of
from swarm.store.shelf import take_off
from swarm.store.split_names import split_paths
from swarm.units import size_text
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.messages import Catalog, ChunkReply, Have, ManifestReply, RemoveModel

Bits = npt.NDArray[np.bool_]
HEAR_S = 1.0  # what a device has of a model is one message there and one back
LOOK_S = 0.02
MAX_ROUNDS = 3  # of fetching what was damaged on this disk


class Holdings:
    """Keeps the library, and tells of it."""

    def __init__(
        self,
        driver: Driver,
        background: Background,
        store: ChunkStore,
        *,
        outbox: Outbox,
        events: EventLog,
        me: PeerId,
        threads: int,
        experts: Path,
    ) -> None:
        """`experts`: the directory of experts that do not fit in memory (loads.py fills it)."""
        around = Around(
            store=store,
            send=outbox.send,
            run_io=background.run_io,
            has_changed=self._has_changed,
            peer_has=self._peer_has,
            in_use=self._models_in_use,
            banned=self._on_ban,
        )
        self.library = Library(around, Random(secrets.randbits(64)))
        self._driver = driver
        self._background = background
        self._store = store
        self._outbox = outbox
        self._events = events
        self._me = me
        self._threads = threads
        self._experts = experts
        self._missed: set[ModelId] = set()  # models that nobody gave when they were asked for: to be asked for again
        driver.carry_out(LookUp, lambda effect: self.look_up(effect.model), on_loop=True)

    # --- what the node asks

    async def know(self, model: ModelId) -> KnownModel:
        """Get to know a model, and tell the core; raise SwarmError when that cannot be."""
        known_model = await self.library.know(model)
        if not self._driver.read(lambda core: model in core.shards.models):
            cost = self.cost_of(known_model)
            self._driver.act(lambda core, now: core.model_known(model, cost, now))
            self._tell_core(known_model)
            await self._hear_who_has(model)
        return known_model

    def cost_of(self, known_model: KnownModel) -> ModelCost:
        """What a model costs, with what was seen here of how it uses its experts."""
        ranks = learnt_ranks(ExpertFolder(self._experts / known_model.id).path)
        return known_model.cost.with_ranks(ranks) if ranks else known_model.cost

    async def get_right(self, model: ModelId, chunks: list[int]) -> None:
        """Have these chunks on the disk, as they should be; what turns out to be damaged is fetched again."""
        for _ in range(MAX_ROUNDS):
            await self.library.fetcher.fetch(model, chunks)
            chunks_here = self._store.model(model)
            damaged = await self._background.run_io(chunks_here.check, chunks) if chunks_here is not None else []
            if chunks_here is None or not damaged:
                return
            n_bytes = int(chunks_here.manifest.chunk_sizes[damaged].sum())
            self._events.note("damaged", model=chunks_here.manifest.name, chunks=len(damaged), size=size_text(n_bytes))
            self._has_changed(model)
        raise ModelNotFound(
            f"chunks of {model[:12]} are damaged on this disk as soon as they are written: is it failing?"
        )

    def look_up(self, model: ModelId) -> None:
        """Get to know a model when that can be."""
        self._background.spawn(self._know_quietly(model))

    async def add_file(self, path: Path, threads: int = 0) -> ModelId:
        """Offer a model file to the swarm; 0 threads are all."""
        model = await self.library.add_file(path, threads or self._threads)
        await self.know(model)
        self._has_changed(model)
        return model

    async def remove(self, model: ModelId, *, with_file: bool) -> None:
        """Delete what is here of a model; `with_file`: also the file that it came from, where Swarm brought it.

        Raise ResourceError while answers pass through this device.
        """
        if self._driver.read(is_serving):
            raise ResourceError("an answer is being written with this device; try again when it is done")
        path = self._store.source_of(model)
        self.library.known.pop(model, None)
        await self._background.run_io(self._store.remove, model)
        await self._background.run_io(delete_experts, self._experts / model)
        if with_file and path is not None and origin_of(path) is not None:
            await self._background.run_io(take_off, split_paths(path))
        self._core_holdings(self._me, model, frozenset())
        self._events.note("removed", model=model[:12])
        self.tell_catalog()

    async def adopt(self, gathering: Gathering, manifest: Manifest) -> None:
        """Keep what was brought of a model, and offer it. Raise SwarmError."""
        self.library.known.pop(manifest.id, None)
        await self._background.run_io(self._store.adopt, gathering, manifest)
        self.library.known.pop(manifest.id, None)
        self.tell_catalog()
        self.look_up(manifest.id)

    async def offer(self, model: ModelId) -> None:
        """Tell everybody of a model that is in the store now. Raise SwarmError when it cannot be run."""
        self.library.known.pop(model, None)
        await self.know(model)
        self._has_changed(model)

    def tell_to_remove(self, model: ModelId) -> None:
        """Tell all peers to delete a model."""
        for peer in self._driver.read(lambda core: core.others()):
            self._outbox.send(peer, RemoveModel(model))

    def catalog(self) -> Catalog:
        """What this device has, as peers are told."""
        return Catalog(tuple(self._store.holdings())[: limits.MAX_MODELS])

    def tell_catalog(self) -> None:
        """Tell all peers what this device has."""
        catalog = self.catalog()
        for peer in self._driver.read(lambda core: core.others()):
            self._outbox.send(peer, catalog)

    # --- what peers say

    def take_messages(self, routes: Routes) -> None:
        """What peers tell of their models, and what they send of them."""
        fetcher = self.library.fetcher
        routes.take(Catalog, self._on_catalog)
        routes.take(RemoveModel, self._on_remove)
        routes.take_framed(ManifestReply, fetcher.manifest_piece)
        routes.take_framed(Have, fetcher.have)
        routes.take_framed(ChunkReply, fetcher.chunk)

    def _on_catalog(self, peer: PeerId, message: Catalog) -> None:
        """A peer told what it has."""
        before = self.library.fetcher.catalogs.get(peer, {})
        self.library.fetcher.catalog(peer, message.models)
        for gone in before.keys() - {holding.model for holding in message.models}:
            if gone in self.library.known:  # of others the core was told nothing: a device may invent any number
                self._core_holdings(peer, gone, frozenset())
        for holding in message.models:
            known_model = self.library.known.get(holding.model)
            if known_model is None:
                # Nothing is fetched because a device says that it has it; what was asked for before is.
                if holding.model in self._missed:
                    self.look_up(holding.model)
            elif holding.n_have == holding.n_chunks:
                self._core_holdings(peer, holding.model, known_model.parts_and_beside)
            else:
                self.library.fetcher.ask_have(peer, holding.model)

    def _on_remove(self, peer: PeerId, message: RemoveModel) -> None:
        self._background.spawn(self._remove_quietly(message.model))

    async def _remove_quietly(self, model: ModelId) -> None:
        try:
            await self.remove(model, with_file=True)
        except SwarmError as error:
            self._events.note("not_removed", model=model[:12], why=str(error))

    def _peer_has(self, peer: PeerId, model: ModelId, held: Bits) -> None:
        known_model = self.library.known.get(model)
        if known_model is not None and len(held) == known_model.manifest.n_chunks:
            self._core_holdings(peer, model, known_model.parts_in(held))

    def _on_ban(self, peer: PeerId, reason: str) -> None:
        name = self._driver.read(lambda core: core.members.name_of(peer))
        self._events.note("bad_peer", name=name, why=reason)
        self._driver.act(lambda core, now: core.misbehaved(peer, reason, now))

    # --- within

    async def _know_quietly(self, model: ModelId) -> None:
        try:
            await self.know(model)
            self._missed.discard(model)
        except SwarmError as error:
            if model not in self._missed:
                self._events.note("model_unknown", model=model[:12], why=str(error))
            if isinstance(error, ModelNotFound) and len(self._missed) < limits.MAX_MODELS:
                self._missed.add(model)

    def _tell_core(self, known_model: KnownModel) -> None:
        """What this device and its peers have of a model that the core has just come to know."""
        self._tell_core_of_ours(known_model)
        for peer, catalog in self.library.fetcher.catalogs.items():
            holding = catalog.get(known_model.id)
            if holding is None or not holding.n_have:
                continue
            if holding.n_have == holding.n_chunks:
                self._core_holdings(peer, known_model.id, known_model.parts_and_beside)
            else:
                self.library.fetcher.ask_have(peer, known_model.id)

    async def _hear_who_has(self, model: ModelId) -> None:
        """Devices that have a part of it say which, before anybody plans with it; a silent one is not waited for."""
        catalogs = self.library.fetcher.catalogs
        asked = {p for p, c in catalogs.items() if model in c and 0 < c[model].n_have < c[model].n_chunks}
        for _ in range(round(HEAR_S / LOOK_S)):
            if self._driver.read(lambda core: all((peer, model) in core.held for peer in asked)):
                return
            await asyncio.sleep(LOOK_S)

    def _tell_core_of_ours(self, known_model: KnownModel) -> None:
        chunks = self._store.model(known_model.id)
        if chunks is not None:
            self._core_holdings(self._me, known_model.id, known_model.parts_in(chunks.held))

    def _core_holdings(self, peer: PeerId, model: ModelId, parts: frozenset[Part]) -> None:
        self._driver.act(lambda core, now: core.holdings(peer, model, parts, now))

    def _has_changed(self, model: ModelId) -> None:
        """There is more of a model here than before: tell the core and everybody."""
        known_model = self.library.known.get(model)
        if known_model is not None:
            self._tell_core_of_ours(known_model)
        self.tell_catalog()

    def _models_in_use(self) -> set[ModelId]:
        return self._driver.read(lambda core: {model for model, _ in core.ledger.parts})
