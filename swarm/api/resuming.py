"""Streams that go on when their reader is gone for a moment: a phone that slept, a page that was loaded again.

Only where a client asks with `X-Swarm-Resume: 1`: for all others a reader that goes away ends the answer. The reply's
header `X-Stream-Id` names the stream, and every event has a number. `GET /v1/streams/ID` with `Last-Event-ID: N` gives
what comes after event N; `DELETE /v1/streams/ID` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from swarm.api.dialect import sse
from swarm.api.errors import BadRequest, body_of, bug_of
from swarm.limits import MAX_KEPT_STREAM_BYTES, MAX_KEPT_STREAMS, RESUME_S

WANTED = "x-swarm-resume"
NAMED = "x-stream-id"


class KeptStream:
    """The events of one stream, for as long as somebody may come back for them."""

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], on_end: Callable[[], None], on_bug: Callable[[Exception], None]
    ) -> None:
        """`on_end` is called when nobody will come back, `on_bug` when the stream broke off for a fault of ours."""
        self._events: deque[bytes] = deque()
        self._n_bytes = 0
        self._first = 0  # number of the oldest event that is kept
        self._is_over = False
        self._n_readers = 0
        self._changed = asyncio.Event()
        self._on_end, self._on_bug = on_end, on_bug
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._keep(chunks), name="swarm-stream")

    @property
    def next_number(self) -> int:
        """Of the event that comes next."""
        return self._first + len(self._events)

    async def read(self, number: int) -> AsyncIterator[bytes]:
        """The events from that number on; raise BadRequest for one that is kept no more, or never was."""
        if not self._first <= number <= self.next_number:
            raise BadRequest(f"event {number} of this stream is not kept; ask again", status=410, code="gone")
        self._n_readers += 1
        self._stop_timer()
        try:
            while number < self.next_number or not self._is_over:
                while number < self.next_number:
                    yield self._events[max(number - self._first, 0)]
                    number += 1
                changed = self._changed
                if not self._is_over:
                    await changed.wait()
        finally:
            self._n_readers -= 1
            if not self._n_readers:
                self._timer = asyncio.get_running_loop().call_later(RESUME_S, self.end)

    def end(self) -> None:
        """Nobody comes back: cancel what is still being answered, and forget it."""
        self._stop_timer()
        self._task.cancel()
        self._on_end()

    async def _keep(self, chunks: AsyncGenerator[bytes, None]) -> None:
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    for event in filter(None, chunk.split(b"\n\n")):
                        self._add(event)
        except Exception as error:
            self._on_bug(error)
            self._add(sse(dict(body_of(bug_of(error)))).rstrip())
        finally:
            self._is_over = True
            self._changed.set()

    def _add(self, event: bytes) -> None:
        numbered = b"id: %d\n%b\n\n" % (self.next_number, event)
        self._events.append(numbered)
        self._n_bytes += len(numbered)
        while self._n_bytes > MAX_KEPT_STREAM_BYTES and len(self._events) > 1:
            self._n_bytes -= len(self._events.popleft())
            self._first += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class KeptStreams:
    """All such streams of a node, by their names."""

    def __init__(self, on_bug: Callable[[Exception], None]) -> None:
        self._on_bug = on_bug
        self._streams: dict[str, KeptStream] = {}

    def keep(self, chunks: AsyncGenerator[bytes, None]) -> tuple[str, KeptStream]:
        """Keep a stream from now on, and its name; raise BadRequest when there are too many."""
        if len(self._streams) >= MAX_KEPT_STREAMS:
            raise BadRequest("too many streams are kept; try again later", status=503, code="too_many")
        name = secrets.token_urlsafe(18)
        self._streams[name] = KeptStream(chunks, lambda: self._forget(name), self._on_bug)
        return name, self._streams[name]

    def find(self, name: str) -> KeptStream:
        """The stream of that name; raise BadRequest when it is forgotten."""
        stream = self._streams.get(name)
        if stream is None:
            raise BadRequest("there is no such stream; it is kept for a minute", status=404, code="not_found")
        return stream

    def _forget(self, name: str) -> None:
        self._streams.pop(name, None)


def streams_of(request: Request) -> KeptStreams:
    """Those of the application that was asked."""
    state = request.app.state
    if not hasattr(state, "streams"):
        state.streams = KeptStreams(state.node.events.bug)
    streams: KeptStreams = state.streams
    return streams


async def resume(request: Request) -> Response:
    """GET /v1/streams/ID: what comes after the event in Last-Event-ID; all of it without one."""
    stream = streams_of(request).find(request.path_params["name"])
    last = request.headers.get("last-event-id", "-1")
    try:
        number = int(last) + 1
    except ValueError:
        raise BadRequest(f"Last-Event-ID is {last!r:.40}; it must be a number", "Last-Event-ID") from None
    events = stream.read(number)
    first = await anext(events, b"")  # what cannot be given is refused before anything is said
    return StreamingResponse(
        _with(first, events), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def end(request: Request) -> Response:
    """DELETE /v1/streams/ID: its reader wants no more of it."""
    streams_of(request).find(request.path_params["name"]).end()
    return JSONResponse({"ended": True})


async def _with(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for event in events:
        yield event
