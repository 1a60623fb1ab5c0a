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

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str = HOST,
        connection: type[LimitedConnection] = LimitedConnection,
        certificate: str = "",
        private_key: str = "",
    ) -> None:
        """`host`: the address to listen on; `certificate` and `private_key`: files for TLS, where there are any."""
        self.port = 0
        self._host = host
        config = uvicorn.Config(
            app,
            http=connection,
            ssl_certfile=certificate or None,
            ssl_keyfile=private_key or None,
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
        listener = _listen(self._host, port)
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


def _listen(host: str, port: int) -> socket.socket:
    wanted = range(port, min(port + PORTS_TRIED, 65536)) if port else ()
    for candidate in (*wanted, 0):
        try:
            listener = _bound(host, candidate)
        except OSError:
            continue
        listener.setblocking(False)
        return listener
    raise SwarmNetworkError(f"no port is free on {host} for the local API")


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens; "::" is every address of either kind, where this system has both.

    It is said that it speaks TCP, for only then does asyncio send small pieces at once: else each waits for 40 ms.
    """
    if host == HOST or not socket.has_dualstack_ipv6():
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        host = host if host == HOST else ""
    else:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
