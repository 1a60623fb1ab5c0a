"""What placements want in memory: fetched where the disk lacks it, packed, given to the compute worker."""

from __future__ import annotations

from pathlib import Path

from swarm.cluster.effects import Load, Unload
from swarm.engine.expert_folder import ExpertFolder
from swarm.engine.weights import Weights
from swarm.errors import SwarmError
from swarm.limits import MIN_PACKED_FREE_BYTES
from swarm.models.spec import ModelSpec
from swarm.node.background import Background
from swarm.node.compute import ComputeWorker
from swarm.node.driver import Driver
from swarm.node.event_log import EventLog
from swarm.node.holdings import Holdings
from swarm.node.loader import Loader, Loading
from swarm.parts import Part


class Loads:
    """Carries out `Load` and `Unload`."""

    def __init__(
        self,
        driver: Driver,
        background: Background,
        holdings: Holdings,
        *,
        worker: ComputeWorker,
        events: EventLog,
        threads: int,
        experts: Path,
    ) -> None:
        """`experts`: the directory for experts that do not fit in memory."""
        self._experts = experts
        self.loader = Loader(background.post, self._on_installed, self._on_ended, threads=threads)
        self._driver = driver
        self._background = background
        self._holdings = holdings
        self._worker = worker
        self._events = events
        self._loading: dict[int, Loading] = {}
        driver.carry_out(Load, self._begin)
        driver.carry_out(Unload, self._unload)

    def _begin(self, effect: Load) -> None:
        """On any thread that holds the lock: an `Unload` may follow at once."""
        loading = Loading(effect.ticket, effect.model, set(effect.parts), resident_share=effect.resident_share)
        if effect.resident_share < 1.0:
            loading.experts = ExpertFolder(self._experts / effect.model, setting="--home", spare=MIN_PACKED_FREE_BYTES)
        self._loading[effect.ticket] = loading
        self._background.post(lambda: self._background.spawn(self._fetch(loading)))

    def _unload(self, effect: Unload) -> None:
        for loading in list(self._loading.values()):
            if loading.model == effect.model:
                loading.parts -= effect.parts
        self._worker.put(effect)

    async def _fetch(self, loading: Loading) -> None:
        """Fetch what the disk lacks, then read it once all earlier work of the worker is done."""
        try:
            known_model = await self._holdings.know(loading.model)
            cost = known_model.cost.with_resident_share(loading.resident_share)
            loading.weight_bytes.update({part: cost.part_bytes(part) for part in loading.parts})
            await self._holdings.get_right(loading.model, known_model.chunks_of(loading.parts))
        except SwarmError as error:
            loading.error = str(error)
            self._on_ended(loading)
            return
        self._worker.call_after(lambda: self.loader.load(loading, known_model.source, known_model.spec_for))

    def _on_installed(self, loading: Loading, part: Part, spec: ModelSpec, weights: Weights) -> None:
        if part in loading.parts and loading.ticket in self._loading:
            self._worker.install(loading.model, spec, part, weights)

    def _on_ended(self, loading: Loading) -> None:
        ticket, error = loading.ticket, loading.error
        if self._loading.pop(ticket, None) is None:
            return
        if error:
            self._events.note("load_failed", why=error)
            self._worker.put(Unload(loading.model, frozenset(loading.parts)))
            self._driver.act(lambda core, now: core.load_failed(ticket, error, now))
        else:
            self._driver.act(lambda core, now: core.loaded(ticket, now))
