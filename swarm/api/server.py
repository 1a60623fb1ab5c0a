"""The HTTP server: on 127.0.0.1 only, on the node's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from swarm.api.connection import LimitedConnection
from swarm.errors import SwarmNetworkError

HOST = "127.0.0.1"
PORTS_TRIED = 20  # from the wanted one on; then any
GRACE_S = 1  # for answers that are being streamed when the node stops


class ApiServer:
    """Serves one application until stopped."""

    def __init__(self, app: ASGIApp) -> None:
        self.port = 0
        config = uvicorn.Config(
            app,
            http=LimitedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, port: int) -> None:
        """Listen on `port`, or the next that is free; raise SwarmNetworkError when none is."""
        listener = _listen(port)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="swarm-api")
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Close, and end what is still being answered."""
        self._server.end()
        if self._task is not None:
            await self._task


class _Server(uvicorn.Server):
    """Signals are the node's business, and it sleeps until it is told to end: theirs looks ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Stop serving."""
        self.should_exit = True
        self._ended.set()

    async def main_loop(self) -> None:
        await self._ended.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(port: int) -> socket.socket:
    wanted = range(port, min(port + PORTS_TRIED, 65536)) if port else ()
    for candidate in (*wanted, 0):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, candidate))
            listener.listen(128)
        except OSError:
            listener.close()
            continue
        listener.setblocking(False)
        return listener
    raise SwarmNetworkError("no port is free on 127.0.0.1 for the local API")
