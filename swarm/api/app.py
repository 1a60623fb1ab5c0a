"""The routes of the local API. Handlers only translate: the node answers.

GET  /health                       is the node there, and which one
GET  /v1/models                    models of the swarm
POST /v1/chat/completions          a conversation, streamed or whole
POST /v1/completions               a text to be continued
GET  /swarm/status, /swarm/doctor  for the command line
POST /swarm/...                    what changes or costs something; only with the node's token (control.py)

A GET changes nothing and costs nothing: web pages can send one to anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from swarm.answers import Piece
from swarm.api import control
from swarm.api.body import parsed_body
from swarm.api.errors import BadRequest, body_of, response_of
from swarm.api.guard import Door
from swarm.api.openai import Json, Reply, Wanted, parse_chat, parse_completion, sse
from swarm.errors import SwarmError
from swarm.node.answer import Answer, Note, Pulse, Reading
from swarm.node.node import Node

Event = Piece | Note | Reading | Pulse
EARLY_S = 2.0  # an error within this is an HTTP status; later ones come inside the stream
KEEP_ALIVE_S = 10.0  # a comment in a silent stream, so that no client gives up while a long prompt is read
EVENTS_HEADER = "x-swarm-events"  # our own clients ask for the quiet lines, too


def make_app(node: Node, token: str) -> Starlette:
    """The application of a node; `token` is what changes need."""
    routes = [
        Route("/health", health),
        Route("/v1/health", health),
        Route("/v1/models", models),
        Route("/models", models),
        Route("/v1/models/{model:path}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completion, methods=["POST"]),
        Route("/completions", completion, methods=["POST"]),
        *control.ROUTES,
    ]

    def report(error: Exception) -> None:
        node.events.bug(error)

    app = Starlette(
        routes=routes,
        middleware=[Middleware(Door, token=token, report=report)],
        exception_handlers={SwarmError: _on_error, HTTPException: _on_http_error},
    )
    app.state.node, app.state.token = node, token
    return app


async def health(request: Request) -> JSONResponse:
    node: Node = request.app.state.node
    return JSONResponse({"status": "ok", "peer": node.peer, "name": node.name, "devices": 1 + node.n_others})


async def models(request: Request) -> JSONResponse:
    return JSONResponse({"object": "list", "data": [_model(entry.name) for entry in _entries(request)]})


async def model(request: Request) -> JSONResponse:
    node: Node = request.app.state.node
    found = node.library.find(request.path_params["model"])
    name = next((entry.name for entry in _entries(request) if entry.id == found), None)
    if name is None:
        raise node.library.not_found(request.path_params["model"])
    return JSONResponse(_model(name))


async def chat(request: Request) -> Response:
    return await _answer(request, parse_chat, "chatcmpl-")


async def completion(request: Request) -> Response:
    return await _answer(request, parse_completion, "cmpl-")


# ---- within


async def _answer(request: Request, parse: Callable[[Json], Wanted], prefix: str) -> Response:
    node: Node = request.app.state.node
    wanted = await parsed_body(request, parse)
    answer = await node.ask(replace(wanted.question, asker=_asker(request)))
    reply = Reply(parse is parse_chat, prefix + secrets.token_hex(12), int(time.time()), answer.model.name)
    if not wanted.stream:
        return await _whole(request, answer, reply)
    for_us = request.headers.get(EVENTS_HEADER) is not None
    events = answer.events()
    first = asyncio.ensure_future(anext(events, None))
    if not for_us:
        await asyncio.wait({first}, timeout=EARLY_S)
        if first.done() and first.exception() is not None:
            first.result()
    stream = _stream(events, first, answer, reply, usage=wanted.include_usage or for_us, for_us=for_us)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


def _asker(request: Request) -> str:
    """Whoever sends the same key, or none, is the same one; the key itself is not kept."""
    return hashlib.sha256(request.headers.get("authorization", "").encode()).hexdigest()


async def _whole(request: Request, answer: Answer, reply: Reply) -> Response:
    """Wait for the whole answer, unless the client goes away."""
    gone = asyncio.create_task(_until_gone(request))
    gone.add_done_callback(lambda task: answer.cancel() if not task.cancelled() else None)
    texts: dict[bool, list[str]] = {True: [], False: []}
    try:
        async with contextlib.aclosing(answer.events()) as events:
            async for event in events:
                if isinstance(event, Piece):
                    texts[event.thinking].append(event.text)
    finally:
        gone.cancel()
    return JSONResponse(reply.whole(answer, "".join(texts[False]), "".join(texts[True])))


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(
    events: AsyncGenerator[Event, None],
    first: asyncio.Future[Event | None],
    answer: Answer,
    reply: Reply,
    *,
    usage: bool,
    for_us: bool,
) -> AsyncIterator[bytes]:
    """The answer as server-sent events. Ended by the server when the client goes away; that cancels the answer."""
    watch = _SilenceWatch(lambda: answer.deliver(Pulse()))
    try:
        begin = reply.first()
        if begin is not None:
            yield sse(begin)
        event = await first
        while event is not None:
            watch.heard()
            if isinstance(event, Piece):
                yield sse(reply.piece(event.text, event.thinking))
            elif isinstance(event, Pulse):
                yield b": still at it\n\n"
            elif for_us:
                yield sse(_quiet(event), "swarm")
            event = await anext(events, None)
        yield sse(reply.last(answer))
        if usage:
            yield sse(reply.figures(answer, for_us=for_us))
        yield sse("[DONE]")
    except SwarmError as error:
        yield sse(body_of(error))
    finally:
        watch.stop()
        answer.cancel()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError, SwarmError):
            await first
        await events.aclose()


class _SilenceWatch:
    """Calls `remind` whenever nothing was heard for a while. One timer for the whole answer: a token costs nothing."""

    def __init__(self, remind: Callable[[], None]) -> None:
        self._remind = remind
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(KEEP_ALIVE_S, self._look)

    def heard(self) -> None:
        self._heard_at = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        wait_s = self._heard_at + KEEP_ALIVE_S - self._loop.time()
        if wait_s <= 0:
            self._remind()
        self._timer = self._loop.call_later(wait_s if wait_s > 0 else KEEP_ALIVE_S, self._look)


def _quiet(event: Note | Reading) -> Json:
    if isinstance(event, Note):
        return {"note": event.text, "kind": event.kind.value}
    return {"reading": [event.done, event.total]}


def _entries(request: Request) -> list[control.Entry]:
    node: Node = request.app.state.node
    return node.library.entries()


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "swarm"}


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SwarmError)
    return response_of(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path}: {error.detail.lower()}"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return response_of(BadRequest(text, status=error.status_code, code=code), error.headers)
