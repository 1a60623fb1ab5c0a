"""What `swarm join` shows while it runs: a live table on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from swarm import config
from swarm.cli import logs, status
from swarm.cli.terminal import note

if TYPE_CHECKING:
    from swarm.node.node import Node

REFRESH_S = 0.5


class Live:
    """`async with Live(node):` shows the node until the block ends."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Live:
        node = self._node
        url = f"http://127.0.0.1:{node.api_port}/v1"
        note(f"swarm: {node.name} takes part on port {node.transport.me.port}; API for chat programs: {url}")
        note("swarm: `swarm page` opens its page: chat, devices, plans")
        if sys.stderr.isatty() and config.over_ssh():
            note(
                "swarm: this window is over ssh, and the node ends with it; `swarm join --background` stays, and "
                "`swarm service install` also comes back after a restart"
            )
        show = self._show_table() if sys.stderr.isatty() else self._show_lines()
        self._task = asyncio.create_task(show, name="swarm-live")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if kind is None:
            why = self._node.starts_anew
            note(f"swarm: starting anew: {why}" if why else "swarm: this device has left")

    async def _show_lines(self) -> None:
        shown, changed = 0.0, asyncio.Event()
        self._node.events.on_entry = lambda: self._node.background.post(changed.set)
        while True:
            changed.clear()
            for at, event, fields in [entry for entry in list(self._node.events.entries) if entry[0] > shown]:
                shown = at
                words = " ".join(f"{name}={value}" for name, value in fields.items())
                note(f"{time.strftime('%H:%M:%S', time.localtime(at))} {event} {words}".rstrip())
                logs.keep_short(self._node.options.home.log_file)
            await changed.wait()

    async def _show_table(self) -> None:
        from rich.console import Console, Group
        from rich.live import Live as RichLive
        from rich.text import Text

        with RichLive(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            while True:
                view = await self._node.status.collect(patience_s=REFRESH_S)
                table = status.table(view)
                hint = Text(
                    "Ctrl-C leaves; `swarm chat` in another window talks, `swarm invite` lets a device in", "dim"
                )
                told = [Text(line) for line in status.other_swarms(view)]
                live.update(Group(table, *status.event_lines(view, 6), *told, hint), refresh=True)
                await asyncio.sleep(REFRESH_S)
