"""`swarm rm --everywhere`: a model is deleted here and, by telling them, on all devices that are there."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from swarm.cluster.core import Core
from swarm.errors import ModelNotFound
from swarm.limits import REMOVE_PATIENCE_S
from swarm.node.driver import Driver
from swarm.node.holdings import Holdings
from swarm.store import shelf
from swarm.store.chunks import ChunkStore
from swarm.store.origins import origin_of
from swarm.wire.ids import ModelId, PeerId

Json = dict[str, object]


def model_to_remove(holdings: Holdings, store: ChunkStore, text: str, path: str) -> ModelId:
    """The model of the swarm that a name, or a file here, means. Raise ModelNotFound."""
    library = holdings.library
    by_path = [entry.id for entry in library.entries() if path and str(store.source_of(entry.id)) == path]
    found = by_path[0] if by_path else library.find(text)
    if found is None:
        raise library.not_found(text)
    return found


def take_off_shelf(text: str, folder: Path) -> None:
    """Delete the file of a model that the swarm does not know yet, where Swarm has fetched it. Raise ModelNotFound."""
    file = shelf.find(text, shelf.kept(folder))
    if file is None or origin_of(file.path) is None:
        raise shelf.not_on_it(text, folder)
    shelf.take_off(file.files)


async def remove(driver: Driver, holdings: Holdings, store: ChunkStore, model: ModelId, *, everywhere: bool) -> Json:
    """Delete a model here, then everywhere; tell which devices are rid of it and which are not.

    The file of this device's user is left to the command: it knows whether it was asked for.
    """
    chunks = store.model(model)
    n_bytes = chunks.stored_bytes if chunks is not None else 0
    before = _holders(holdings, model)
    if chunks is None and not (everywhere and before):
        raise ModelNotFound("this device has nothing of that model; --everywhere deletes it on the others")
    if chunks is not None:
        await holdings.remove(model, with_file=False)
    if everywhere:
        holdings.tell_to_remove(model)
        deadline = time.monotonic() + REMOVE_PATIENCE_S
        while _holders(holdings, model) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
    left = _holders(holdings, model) if everywhere else []
    names = driver.read(lambda core: {peer: _name(core, peer) for peer in before})
    gone = [names[peer] for peer in before if everywhere and peer not in left]
    refused = {names[peer]: "it still has it: an answer may be passing through it" for peer in left if peer in names}
    return {"bytes": n_bytes, "devices": sorted(gone), "refused": refused}


def _holders(holdings: Holdings, model: ModelId) -> list[PeerId]:
    """Other devices that say they have something of it."""
    catalogs = holdings.library.fetcher.catalogs
    return [peer for peer, models in catalogs.items() if model in models and models[model].n_have]


def _name(core: Core, peer: PeerId) -> str:
    return core.members.name_of(peer)
