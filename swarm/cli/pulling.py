"""Fetching a model for a command: how much memory there is for it, what was chosen, how far it is."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm import config
from swarm.cli import local
from swarm.cli.progress import ProgressBar
from swarm.cli.terminal import harmless, note
from swarm.errors import DownloadError, ModelNotFound
from swarm.units import size_text

if TYPE_CHECKING:
    from swarm.store.getting import Found, Room
    from swarm.store.origins import Remote
    from swarm.store.web_file import Web

LOOK_S = 0.3  # between two looks at what the devices bring
MAX_OTHERS_SHOWN = 12  # quants that were not chosen


def bring(remote: Remote, settings: config.Settings, bar: ProgressBar) -> Path:
    """Have the files of a model in the directory of models; return the first of them."""
    from swarm.store.getting import get, is_here, look

    with web_of(bar) as web:
        room = room_of(settings)
        if sys.stderr.isatty():
            bar("Looking what there is", 0, 0)
        found = look(remote, web, room, folder=settings.models_path)
        bar.end()
        tell(found, remote, room)
        present = is_here(found, settings.models_path)
        return present or get(found, settings.models_path, web, bar)


def ensure(node: local.LocalNode, model: str | None, settings: config.Settings) -> str:
    """How the node calls what MODEL means; what no device of the swarm has is fetched, and offered to all."""
    from swarm.store.naming import remote_of

    name = local.name_of_model(node, model)
    try:
        return str(node.post("/swarm/model", {"model": name}, local.IMPORT_S)["id"])
    except ModelNotFound:
        remote = remote_of(model) if model else None
        if remote is None:
            raise
    assert model is not None
    with ProgressBar() as bar:
        together = bring_together(node, model, bar)
        if together is not None:
            return together
        path = bring(remote, settings, bar)
    return str(node.post("/swarm/models", {"path": str(path)}, local.IMPORT_S)["id"])


def bring_together(node: local.LocalNode, model: str, bar: ProgressBar) -> str | None:
    """Have the devices of the swarm bring a model, each its own part; return its id.

    None where one device is enough, or the model does not lie on the hub: then it is brought here, as a file. What the
    devices do goes on when this command is cut off.
    """
    hub = config.hub()
    if hub.offline:
        return None  # the way to the hub says so
    wanted: dict[str, object] = {"model": model, "endpoint": hub.endpoint, "token": hub.token}
    begun = node.post("/swarm/pull", wanted, local.IMPORT_S)
    if begun.get("alone"):
        return None
    if "model" in begun:
        return str(begun["model"])  # it is in the swarm, under another name
    devices, lines = begun["devices"], begun["lines"]
    assert isinstance(devices, list) and isinstance(lines, list)
    for line in lines:
        note(f"swarm: {harmless(str(line))}")
    note(f"swarm: {harmless(str(begun['what']))} from {harmless(str(begun['place']))}, brought by")
    note(f"swarm:   {harmless(', '.join(map(str, devices)))}")
    while True:
        state = node.post("/swarm/pulled", {"pull": begun["pull"]})
        if state["error"]:
            raise DownloadError(str(state["error"]))
        if state["phase"] == "done":
            return str(state["model"])
        what = str(state["waits"]) or str(state["phase"])
        bar(f"{what[:1].upper()}{what[1:]}", int(str(state["done"])), int(str(state["total"])))
        time.sleep(LOOK_S)


def web_of(bar: ProgressBar) -> Web:
    """The network, whose waits are shown."""
    from swarm.store.web_file import Web

    return Web(config.hub(), waiting=lambda why: bar(f"{why[:1].upper()}{why[1:]}", 0, 0))


def room_of(settings: config.Settings) -> Room:
    """The memory that a model may take: of all devices of the swarm where a node runs on this one, else of this one."""
    from swarm.cli import machine
    from swarm.models.appraise import beside_weights
    from swarm.store.getting import Room

    node = local.find(settings)
    if node is None:
        judge = partial(beside_weights, kv=settings.kv, context=settings.context)
        return Room(machine.memory().available, "this device", judge)
    devices = [device for device in _devices(node.get("/swarm/status")) if device.get("capabilities")]
    there = [device for device in devices if device["health"] in ("here", "alive")]
    memory = sum(int(device["capabilities"]["memory_bytes"]) for device in there)
    where = "this device" if len(there) < 2 else f"the {len(there)} devices of the swarm"
    judge = partial(beside_weights, kv=settings.kv, context=settings.context, overhead=0)
    return Room(memory, where, judge)


def tell(found: Found, remote: Remote, room: Room) -> None:
    """Say what is taken, why, and what else there is."""
    need = f"it needs {size_text(found.need_bytes)} of memory, and {room.where} has {size_text(room.memory_bytes)}"
    listing = found.listing
    at = f" at {listing.commit[:12]}" if listing.commit else ""
    note(f"swarm: {harmless(f'{found} from {found.place}{at}')}")
    if found.need_bytes > room.memory_bytes:
        note(f"swarm: {need}: it runs where more devices take part")
    elif not listing.is_named:
        note(f"swarm: the best that fits: {need}")
    others = [variant for variant in listing.variants if variant is not found.variant]
    if others and not listing.is_named:
        more = f" and {len(others) - MAX_OTHERS_SHOWN} more" if len(others) > MAX_OTHERS_SHOWN else ""
        names = ", ".join(map(str, others[:MAX_OTHERS_SHOWN]))
        note(f"swarm: there is also {harmless(names)}{more}; to have one, write {remote}:{others[-1].label or 'FILE'}")


def _devices(status: dict[str, object]) -> list[dict[str, Any]]:
    devices = status.get("devices")
    return devices if isinstance(devices, list) else []
