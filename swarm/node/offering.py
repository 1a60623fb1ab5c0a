"""Files in the directory of models are offered to the swarm by themselves: at the start, and when one is put there.

A file is hashed once, on one thread, so that an answer hardly feels it; after that its stamp tells that it is the same.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from swarm.errors import SwarmError
from swarm.limits import OFFER_EVERY_S, OFFER_QUIET_S
from swarm.node.event_log import EventLog
from swarm.node.holdings import Holdings
from swarm.store.keeping import kept_models

Seen = tuple[Path, int, int]  # a file as it was: path, size, time of change


class Offering:
    """Looks at one directory, on the loop."""

    def __init__(self, holdings: Holdings, events: EventLog, folder: Path) -> None:
        self._holdings = holdings
        self._events = events
        self._folder = folder
        self._seen: set[Seen] = set()

    async def forever(self) -> None:
        """Again and again, until the node stops."""
        while True:
            await self.look()
            await asyncio.sleep(OFFER_EVERY_S)

    async def look(self) -> None:
        """Offer what is there and was not offered yet; what is still being written waits for the next time."""
        for path in kept_models(self._folder):
            try:
                status = path.stat()
            except OSError:
                continue  # it is gone again
            seen = (path, status.st_size, status.st_mtime_ns)
            if seen in self._seen or time.time() - status.st_mtime < OFFER_QUIET_S:
                continue
            self._seen.add(seen)
            try:
                await self._holdings.add_file(path, threads=1)
            except (SwarmError, OSError) as error:
                self._events.note("not_offered", file=path.name, why=str(error))
