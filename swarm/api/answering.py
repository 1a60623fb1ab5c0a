"""Answers become a response, whole or streamed, in whichever dialect was spoken."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from swarm.answers import Piece
from swarm.api.dialect import EVENT_STREAM, Dialect, Gathered, Wanted
from swarm.api.local_user import ConnectionUser
from swarm.api.resuming import NAMED, WANTED, streams_of
from swarm.errors import SwarmError
from swarm.node.answer import Answer, Note, Pulse, Question, Reading
from swarm.node.node import Node

Event = Piece | Note | Reading | Pulse
Ask = Callable[[Question], Awaitable[Answer]]
EARLY_S = 2.0  # an error within this is an HTTP status; later ones come inside the stream
KEEP_ALIVE_S = 10.0  # a comment in a silent stream, so that no client gives up while a long prompt is read


async def respond(request: Request, wanted: Wanted, *, patience_s: float = EARLY_S) -> Response:
    """Ask, and give what comes; `patience_s`: how long the response waits for what may still go wrong."""
    node: Node = request.app.state.node
    questions = [replace(question, asker=asker_of(request)) for question in wanted.questions]
    if not wanted.stream:
        return JSONResponse(wanted.dialect.whole(await _gathered(request, node.ask, questions)))
    begun = Begun(await node.ask(questions[0]))
    if patience_s:
        await begun.wait(patience_s)
    chunks = stream(begun, questions[1:], node.ask, wanted.dialect)
    kind, headers = wanted.dialect.media_type, {"cache-control": "no-store"}
    if WANTED in request.headers and kind == EVENT_STREAM:
        name, kept = streams_of(request).keep(chunks)
        return StreamingResponse(kept.read(0), media_type=kind, headers={**headers, NAMED: name})
    return StreamingResponse(chunks, media_type=kind, headers=headers)


def asker_of(request: Request) -> str:
    """Whoever sends the same key, or none, is the same one, if it is the same user; the key itself is not kept."""
    key = request.headers.get("authorization") or request.headers.get("x-api-key") or ""
    state = request.scope.get("state", {})
    if state.get("lan") is not None and request.client is not None:
        key = f"{key} {request.client.host}"  # the house has one key
    elif request.client is not None and request.scope.get("server"):
        host, port = request.scope["server"]
        user: ConnectionUser = state.get("user") or ConnectionUser()
        key = f"{key} {user.of((request.client.host, request.client.port), (host, port or 0))}"
    return hashlib.sha256(key.encode()).hexdigest()


class Begun:
    """An answer whose first event is awaited."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.events: AsyncGenerator[Event, None] = answer.events()
        self.first: asyncio.Future[Event | None] = asyncio.ensure_future(anext(self.events, None))

    async def wait(self, seconds: float) -> None:
        """Raise what goes wrong before the first event, as far as that is soon."""
        await asyncio.wait({self.first}, timeout=seconds)
        if self.first.done() and self.first.exception() is not None:
            self.first.result()

    async def end(self) -> None:
        """Cancel it, unless it has ended."""
        self.answer.cancel()
        self.first.cancel()
        with contextlib.suppress(asyncio.CancelledError, SwarmError):
            await self.first
        await self.events.aclose()


async def stream(
    begun: Begun, questions: Sequence[Question], ask: Ask, dialect: Dialect
) -> AsyncGenerator[bytes, None]:
    """An answer that has begun, and then those to `questions`, piece by piece.

    Ended by the server when the client goes away; that cancels the answer.
    """
    watch = SilenceWatch(lambda: begun.answer.deliver(Pulse()))
    answers: list[Answer] = []
    try:
        for index in range(1 + len(questions)):
            if index:
                begun = Begun(await ask(questions[index - 1]))
            if text := dialect.begin(index, begun.answer):
                yield text
            event = await begun.first
            while event is not None:
                text = _said(dialect, index, begun.answer, event)
                if text:
                    watch.heard()
                    yield text
                event = await anext(begun.events, None)
            answers.append(begun.answer)
            if text := dialect.end(index, begun.answer):
                yield text
        if text := dialect.close(answers):
            yield text
    except SwarmError as error:
        yield dialect.error(error)
    finally:
        watch.stop()
        await begun.end()


def _said(dialect: Dialect, index: int, answer: Answer, event: Event) -> bytes:
    if isinstance(event, Piece):
        return dialect.piece(index, answer, event)
    return dialect.silence if isinstance(event, Pulse) else dialect.quiet(event)


async def answers_to(request: Request, questions: Sequence[Question]) -> list[Answer]:
    """Ask one after the other, and wait for the end of each; fewer answers where the client goes away."""
    node: Node = request.app.state.node
    asked = [replace(question, asker=asker_of(request)) for question in questions]
    return [gathered.answer for gathered in await _gathered(request, node.ask, asked)]


async def _gathered(request: Request, ask: Ask, questions: Sequence[Question]) -> list[Gathered]:
    """Wait for all answers, unless the client goes away."""
    current: list[Answer] = []
    gone = asyncio.create_task(_until_gone(request))

    def end(task: asyncio.Task[None]) -> None:
        for answer in [] if task.cancelled() else current:
            answer.cancel()

    gone.add_done_callback(end)
    gathered = []
    try:
        for question in questions:
            if gone.done():
                break
            answer = await ask(question)
            current[:] = [answer]
            gathered.append(await _gather(answer))
    finally:
        gone.cancel()
    return gathered


async def _gather(answer: Answer) -> Gathered:
    gathered = Gathered(answer)
    async with contextlib.aclosing(answer.events()) as events:
        gathered.add([event async for event in events if isinstance(event, Piece)])
    return gathered


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class SilenceWatch:
    """Calls `remind` whenever nothing was said for a while. One timer for the whole stream: a token costs nothing."""

    def __init__(self, remind: Callable[[], None]) -> None:
        self._remind = remind
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(KEEP_ALIVE_S, self._look)

    def heard(self) -> None:
        """Something was said to this reader."""
        self._heard_at = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        wait_s = self._heard_at + KEEP_ALIVE_S - self._loop.time()
        if wait_s <= 0:
            self._remind()
        self._timer = self._loop.call_later(wait_s if wait_s > 0 else KEEP_ALIVE_S, self._look)
