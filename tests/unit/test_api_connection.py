"""Connections that do not do their part are closed, and lock nobody out; over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from swarm import limits
from swarm.api.connection import LimitedConnection
from swarm.api.server import ApiServer

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def hello(request: Request) -> JSONResponse:
    await request.body()
    return JSONResponse({"crowded": request.scope["state"]["crowded"]})


async def endless(request: Request) -> StreamingResponse:
    async def pieces() -> object:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(pieces())  # type: ignore[arg-type]


async def held(request: Request) -> JSONResponse:
    await asyncio.Event().wait()
    return JSONResponse({})


async def whose(request: Request) -> JSONResponse:
    return JSONResponse(id(request.scope["state"]["user"]))


APP = Starlette(
    routes=[
        Route("/", hello, methods=["GET", "POST"]),
        Route("/endless", endless),
        Route("/held", held),
        Route("/whose", whose),
    ]
)


def with_api(story: Callable[[Callable[[bytes], Awaitable[Streams]]], Awaitable[None]]) -> None:
    """Run a story that is given how to open a connection and say something."""

    async def play() -> None:
        api = ApiServer(APP)
        await api.start(0)
        writers = []

        async def say(data: bytes) -> Streams:
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writers.append(writer)
            writer.write(data)
            await writer.drain()
            return reader, writer

        try:
            await story(say)
        finally:
            for writer in writers:
                writer.close()
            await api.stop()

    asyncio.run(asyncio.wait_for(play(), 20))


async def rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""


def error_in(reply: bytes) -> tuple[int, str]:
    """The status and the code of an error, which must have the one shape."""
    head, _, body = reply.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"REQUEST_HEAD_S": 0.2, "REQUEST_BODY_S": 0.4, "UNREAD_REPLY_S": 0.3}.items():
        monkeypatch.setattr(limits, name, value)


@pytest.mark.parametrize("data", [b"", b"GET / HT", GET[:-2], POST, POST + b"{"])
def test_a_request_that_is_not_finished_is_ended(data: bytes) -> None:
    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        reader, _ = await say(data)
        assert error_in(await rest(reader)) == (408, "request_timeout")

    with_api(story)


def test_a_client_that_sends_a_byte_now_and_then_is_ended_too() -> None:
    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        reader, writer = await say(b"GET / HTTP/1.1\r\nx: ")

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert error_in(await rest(reader))[0] == 408
        dripping.cancel()

    with_api(story)


def test_of_a_long_request_a_piece_is_looked_at_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    received = LimitedConnection.data_received

    def counted(connection: LimitedConnection, data: bytes) -> None:
        sizes.append(len(data))
        received(connection, data)

    monkeypatch.setattr(LimitedConnection, "data_received", counted)

    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        head = POST.replace(b"length: 10", b"length: 1000000").replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        reader, _ = await say(head + bytes(1_000_000))
        assert b"200 OK" in await rest(reader)

    with_api(story)
    assert max(sizes) <= limits.API_READ_BYTES


def test_one_connection_may_ask_again_and_again() -> None:
    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        reader, writer = await say(b"")
        for _ in range(8):
            writer.write(GET)
            await asyncio.sleep(0.1)
            assert b"200 OK" in await reader.readuntil(b"}")
        writer.write(GET + GET + POST)  # at once, and a third that is not finished
        assert error_in((await rest(reader)).rpartition(b"}HTTP")[2])[0] == 408

    with_api(story)


def test_an_answer_that_takes_longer_than_a_request_may_is_not_cut_off() -> None:
    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        reader, _ = await say(GET.replace(b"/", b"/held", 1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 1)

    with_api(story)


def test_a_client_that_takes_nothing_of_its_answer_is_cut_off() -> None:
    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        reader, writer = await say(GET.replace(b"/", b"/endless", 1))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await asyncio.wait_for(reader.readexactly(1 << 40), 5)

    with_api(story)


@pytest.mark.parametrize("data", [b"", b"GET / HT", POST + b"{"])
def test_silent_connections_make_way(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_API_CONNECTIONS": 4, "REQUEST_HEAD_S": 9.0, "REQUEST_BODY_S": 9.0}.items():
        monkeypatch.setattr(limits, name, value)

    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        silent = [await say(data) for _ in range(10)]
        reader, _ = await say(GET)
        assert b'{"crowded":false}' in await reader.readuntil(b"}")
        assert await rest(silent[0][0]) == b""  # the oldest went

    with_api(story)


def test_places_are_kept_while_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_API_CONNECTIONS", 2)
    monkeypatch.setattr(limits, "KEPT_API_CONNECTIONS", 1)

    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        for _ in range(2):
            await say(GET.replace(b"/", b"/held", 1))
        third, _ = await say(GET)
        assert b'{"crowded":true}' in await third.readuntil(b"}")  # the application serves only the user then
        await say(GET.replace(b"/", b"/held", 1))
        fourth, _ = await say(GET)
        assert error_in(await rest(fourth)) == (503, "service_unavailable")

    with_api(story)


def test_what_is_not_http_is_told_so_in_the_shape_of_errors(capfd: pytest.CaptureFixture[str]) -> None:
    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        reader, _ = await say(b"\x16\x03\x01 hello\r\n\r\n")
        assert error_in(await rest(reader)) == (400, "bad_request")
        reader, _ = await say(GET[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"}")

    with_api(story)
    assert capfd.readouterr() == ("", "")


def test_a_connection_knows_its_user_from_one_request_to_the_next() -> None:
    ask = GET.replace(b"GET /", b"GET /whose")

    async def story(say: Callable[[bytes], Awaitable[Streams]]) -> None:
        async def told(reader: asyncio.StreamReader) -> bytes:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            return await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))

        reader, writer = await say(ask)
        first = await told(reader)
        writer.write(ask)
        assert await told(reader) == first
        other, _ = await say(ask)
        assert await told(other) != first

    with_api(story)
