"""The HTTP server: on 127.0.0.1, on the next free port, and it ends when it is told to."""

from __future__ import annotations

import asyncio
import socket

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from swarm.api import server
from swarm.api.connection import LimitedConnection
from swarm.api.server import ApiServer


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


APP = Starlette(routes=[Route("/", hello)])


async def get(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    data = await reader.read()
    writer.close()
    return data


def test_it_serves_until_it_is_stopped() -> None:
    async def story() -> None:
        api = ApiServer(APP)
        await api.start(0)
        assert (await get(api.port)).endswith(b"hello")
        await asyncio.wait_for(api.stop(), 10)
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", api.port)) != 0, "nobody listens any more"

    asyncio.run(story())


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_small_pieces_leave_at_once(host: str) -> None:
    """Else a reply's body waits for the other side's word on its head, which takes 40 ms."""

    async def story() -> None:
        seen = []

        class Seen(LimitedConnection):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                made = transport.get_extra_info("socket")
                seen.append(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                super().connection_made(transport)

        api = ApiServer(APP, host=host, connection=Seen)
        await api.start(0)
        assert (await get(api.port)).endswith(b"hello")
        await api.stop()
        assert len(seen) == 1 and seen[0]

    asyncio.run(story())


def test_it_takes_the_next_port_when_the_wanted_one_is_taken() -> None:
    async def story() -> None:
        first, second = ApiServer(APP), ApiServer(APP)
        await first.start(0)
        await second.start(first.port)
        assert second.port != first.port and (await get(second.port)).endswith(b"hello")
        await first.stop()
        await second.stop()

    asyncio.run(story())


def test_it_does_not_wake_up_while_nobody_asks() -> None:
    """The server below would look ten times a second whether it is to end."""

    async def story() -> int:
        api = ApiServer(APP)
        await api.start(0)
        loop = asyncio.get_running_loop()
        timers = len(loop._scheduled)  # type: ignore[attr-defined]
        await api.stop()
        return timers

    assert asyncio.run(story()) == 0
    assert server.HOST == "127.0.0.1"
