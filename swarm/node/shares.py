"""What this device brings of models that several devices pull together, for itself or because another one asked."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np

from swarm.config import HubSettings
from swarm.errors import SwarmError
from swarm.limits import DOWNLOAD_STREAMS
from swarm.store.chunks import ChunkStore
from swarm.store.download import download
from swarm.store.gathering import Gathering, UnitPieces
from swarm.store.hub import file_of
from swarm.store.pull_plan import FileUnit, PullPlan
from swarm.store.web_file import Web


class Stopped(Exception):
    """Nobody wants the rest any more."""


class Share:
    """Units of one pull that this device brings, on a thread of its own; looked at from the loop."""

    def __init__(self, plan: PullPlan, store: ChunkStore, hub: HubSettings) -> None:
        """Raise ResourceError."""
        self.plan = plan
        self.gathering = Gathering(store.root, plan)
        self.error = ""
        self.waits = ""  # why nothing comes just now
        self._store = store
        self._hub = hub
        self._units: set[int] = set()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._reported = np.zeros(plan.manifest.n_chunks, np.bool_)

    def bring(self, units: Iterable[int]) -> None:
        """Bring these units too. Those that are here already are reported again: who asks may have forgotten them."""
        new = {unit for unit in units if 0 <= unit < len(self.plan.units)}
        for unit in new:
            chunks = self.plan.units[unit].chunks
            self._reported[chunks.start : chunks.stop] = False
        self._units |= new
        self.error = ""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="swarm-pull", daemon=True)
            self._thread.start()

    @property
    def done_bytes(self) -> int:
        """Of the units that it was told to bring."""
        units = (self.plan.units[unit] for unit in self._units)
        return sum(unit.end - unit.start for unit in units if self.gathering.has(unit))

    @property
    def is_done(self) -> bool:
        return all(self.gathering.has(self.plan.units[unit]) for unit in self._units)

    def news(self, most: int) -> list[tuple[int, bytes]]:
        """Chunks that came since the last time, with their hashes."""
        held = np.flatnonzero(self.gathering.held & ~self._reported)[:most]
        self._reported[held] = True
        return [(int(chunk), self.gathering.digest(int(chunk))) for chunk in held]

    def stop(self) -> None:
        """Bring nothing more; returns when nothing is written any more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        try:
            while not self._stopped.is_set() and not self.is_done:
                self._bring_all([self.plan.units[unit] for unit in self._units])
        except Stopped:
            return
        except (SwarmError, OSError) as error:
            self.error = str(error)

    def _bring_all(self, units: list[FileUnit]) -> None:
        missing = sum(unit.end - unit.start for unit in units if not self.gathering.has(unit))
        self._store.check_room(missing)
        with Web(self._hub) as web:
            for number, file in enumerate(self.plan.files):
                pieces = UnitPieces(self.gathering, [unit for unit in units if unit.file == number])
                if not pieces.have.all():
                    source = file_of(web, self.plan.repository, self.plan.commit, file)
                    download(source, pieces, self._look, self._wait, streams=DOWNLOAD_STREAMS)

    def _look(self, done: int, total: int) -> None:
        self.waits = ""
        if self._stopped.is_set():
            raise Stopped

    def _wait(self, why: str) -> None:
        self.waits = why
        if self._stopped.is_set():
            raise Stopped
