"""The state of the swarm for whoever looks at it: collected once for all, and not at all while there is nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from swarm import limits

Json = dict[str, object]
LOOK_S = 1.0  # between two looks while nothing happens: figures change
NEWS_S = 0.1  # after which an event of the node makes us look at once: a device that is gone is seen so soon
ANSWER_S = 0.4  # that a look waits for devices; one that is late is shown as it was
KEEP_ALIVE_S = 5.0  # a comment in a silent stream: the page knows by it that the node is there
VOLATILE = ("uptime_s", "clock_offset_s")  # of a device: what changes all the time and is not shown
SHOWN = ("software", "name", "peer", "devices", "models", "chats", "events", "discovery", "other_swarms")


class StateFeed:
    """Readers come and go; each gets the newest state, and skips what it was too slow for."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Json]],
        news: Callable[[], object],
        *,
        is_ending: Callable[[], bool],
        on_bug: Callable[[BaseException], None],
    ) -> None:
        """`look` collects the state; `news` returns another value after each event that is worth a look at once."""
        self._look = look
        self._news = news
        self._is_ending = is_ending
        self._on_bug = on_bug
        self._latest = b""
        self._changed = asyncio.Event()  # of the state that is the latest now; another one for each state
        self._n_readers = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether nobody else is let in."""
        return self._n_readers >= limits.MAX_PAGE_READERS

    async def read(self) -> AsyncIterator[bytes]:
        """Server-sent events: the state now, and again whenever it has changed."""
        self._n_readers += 1
        if self._task is None:
            self._latest = b""
            self._task = asyncio.create_task(self._watch(), name="swarm-page-feed")
        try:
            seen = b""
            while True:
                changed, latest = self._changed, self._latest
                if latest is not seen:
                    seen = latest
                    yield latest
                    continue
                if self._is_ending():
                    return
                try:
                    await asyncio.wait_for(changed.wait(), KEEP_ALIVE_S)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._n_readers -= 1
            if not self._n_readers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _watch(self) -> None:
        before: Json = {}
        while not self._is_ending():
            news = self._news()
            try:
                before = as_shown(await self._look(), before)
                self._say(b"event: state\ndata: " + json.dumps(before, separators=(",", ":")).encode() + b"\n\n")
            except Exception as error:  # a bug in one look must not end the looking
                self._on_bug(error)
            await self._until_worth_a_look(news)
        self._changed.set()

    async def _until_worth_a_look(self, news: object) -> None:
        for _ in range(round(LOOK_S / NEWS_S)):
            await asyncio.sleep(NEWS_S)
            if self._news() != news or self._is_ending():
                return

    def _say(self, text: bytes) -> None:
        if text != self._latest:
            self._latest = text
            self._changed.set()
            self._changed = asyncio.Event()


def as_shown(view: Json, before: Json) -> Json:
    """What the page shows of a view: a device that did not answer in time keeps what it last said of itself."""
    last = {device["peer"]: device for device in _devices(before)}
    devices = [_device(device, last.get(device["peer"], {})) for device in _devices(view)]
    return {name: view[name] for name in SHOWN if name in view} | {"devices": devices}


def _devices(view: Json) -> list[Json]:
    devices = view.get("devices", [])
    assert isinstance(devices, list)
    return devices


def _device(device: Json, last: Json) -> Json:
    kept = last if device.get("capabilities") is None and device.get("health") != "lost" else {}
    told = {name: kept[name] for name in ("capabilities", "shards", "models", "links", "software") if name in kept}
    return {name: value for name, value in (device | told).items() if name not in VOLATILE}
