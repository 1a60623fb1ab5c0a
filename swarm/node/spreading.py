"""A second copy of every model, in the background: so that no device is one that all depend on.

Of a stage of several devices each also copies what the next one needs for its slice: where that one is lost, the others
read from their own disks what falls to them, and the answer does not wait for the network.

It waits until nothing else is done, takes only disk that is free, and never makes another model go for it.
"""

from __future__ import annotations

import asyncio

from swarm.cluster.copies import second_copy
from swarm.errors import SwarmError
from swarm.limits import SPREAD_AFTER_S, SPREAD_EVERY_S
from swarm.node.driver import Driver, is_serving
from swarm.node.event_log import EventLog
from swarm.node.holdings import Holdings
from swarm.node.library import KnownModel
from swarm.store.chunks import ChunkStore
from swarm.wire.ids import PeerId


class Spreading:
    """Looks at what the swarm has, on the loop."""

    def __init__(self, driver: Driver, holdings: Holdings, store: ChunkStore, events: EventLog, me: PeerId) -> None:
        self._driver = driver
        self._holdings = holdings
        self._store = store
        self._events = events
        self._me = me

    async def forever(self) -> None:
        """Again and again, until the node stops; not at once: devices come one after the other."""
        await asyncio.sleep(SPREAD_AFTER_S)
        while True:
            for known_model in list(self._holdings.library.known.values()):
                await self.copy(known_model)
            await asyncio.sleep(SPREAD_EVERY_S)

    async def copy(self, known_model: KnownModel) -> None:
        """Copy the parts of a model that fall to this device, and its neighbour's, unless something is going on."""
        if self._driver.read(is_serving) or self._holdings.library.fetcher.is_fetching:
            return
        devices = self._driver.read(lambda core: core.devices(known_model.id, self._driver.now))
        beside = self._driver.read(lambda core: core.shards.neighbours_parts(known_model.id))
        parts = [*second_copy(self._me, devices, known_model.cost), *sorted(beside)]
        chunks_here = self._store.model(known_model.id)
        if not parts or chunks_here is None:
            return
        missing = [chunk for chunk in known_model.chunks_of(parts) if not chunks_here.held[chunk]]
        if not missing:
            return
        try:
            self._store.check_room(int(chunks_here.manifest.chunk_sizes[missing].sum()))
            await self._holdings.library.fetcher.fetch(known_model.id, missing)
        except SwarmError as error:
            self._events.note("not_copied", model=known_model.name, why=str(error))
            return
        self._events.note("copied", model=known_model.name, parts=len(parts))
