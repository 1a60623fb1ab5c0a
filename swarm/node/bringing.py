"""A model that a program of this device's user asks the node to fetch, with word of how far it is.

With all devices of the swarm where several can each bring a part (house.py), else here as one file.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from swarm.config import HubSettings, Settings
from swarm.errors import DownloadError, ModelNotFound
from swarm.models.appraise import beside_weights
from swarm.node.background import Background
from swarm.node.holdings import Holdings
from swarm.node.house import House
from swarm.store.fetching import DOWNLOADS, StepProgress, fetch
from swarm.store.getting import Room, get, is_here, look
from swarm.store.naming import remote_of
from swarm.store.web_file import Web

LOOK_S = 0.3  # between two looks at what the devices bring


class PullStep(NamedTuple):
    """What is being done, and how far: bytes done of all; 0 of 0 where that is not known."""

    what: str
    done: int = 0
    total: int = 0


async def bring(
    text: str,
    hub: HubSettings,
    memory_bytes: int,
    *,
    house: House,
    holdings: Holdings,
    background: Background,
    settings: Settings,
) -> AsyncGenerator[PullStep, None]:
    """Have the model that a name means, and offer it to the swarm. Raise SwarmError.

    Whoever stops iterating stops a pull of this device alone; what has come is kept, and the next one goes on there.
    """
    if text.lower() not in DOWNLOADS:
        begun = await house.start(text, hub)
        if "model" in begun:
            return
        if not begun.get("alone"):
            async for step in _together(house, str(begun["pull"])):
                yield step
            return
    judge = partial(beside_weights, kv=settings.kv, context=settings.context, overhead=0)
    room = Room(memory_bytes, "this device", judge)
    steps: asyncio.Queue[PullStep | None] = asyncio.Queue()
    loop, stopped = asyncio.get_running_loop(), False

    def progress(what: str, done: int, total: int) -> None:
        if stopped:
            raise DownloadError("whoever asked for the model went away; what has come is kept")
        loop.call_soon_threadsafe(steps.put_nowait, PullStep(what, done, total))

    task = asyncio.ensure_future(background.run_io(_here, text, hub, room, settings.models_path, progress))
    task.add_done_callback(lambda _: steps.put_nowait(None))
    try:
        while (news := await steps.get()) is not None:
            yield news
        await holdings.add_file(await task)
    finally:
        stopped = True
        with contextlib.suppress(Exception):  # it was told above, or nobody is there any more
            await task


async def _together(house: House, pull: str) -> AsyncGenerator[PullStep, None]:
    while True:
        state = house.progress(pull)
        if state["error"]:
            raise DownloadError(str(state["error"]))
        if state["phase"] == "done":
            return
        yield PullStep(str(state["waits"] or state["phase"]), int(str(state["done"])), int(str(state["total"])))
        await asyncio.sleep(LOOK_S)


def _here(text: str, hub: HubSettings, room: Room, folder: Path, progress: StepProgress) -> Path:
    """The file, fetched if need be; as long as that takes."""
    if text.lower() in DOWNLOADS:
        return fetch(DOWNLOADS[text.lower()], folder, progress)
    remote = remote_of(text)
    if remote is None:
        raise ModelNotFound(f"{text[:80]} is no model of the table, of the hub or of the web")
    with Web(hub) as web:
        found = look(remote, web, room, folder=folder)
        return is_here(found, folder) or get(found, folder, web, progress)
