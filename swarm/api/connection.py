"""One connection to the local API: time limits for its requests, and a place among the others.

Whoever has not sent a whole request makes way when places are short, the oldest first; beside them some places are
kept for those who have the node's token. So nobody who only holds connections open locks the command line out.
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from swarm import limits
from swarm.api.local_user import ConnectionUser
from swarm.node.lan_access import LanAccess

_AWAITED = (h11.IDLE, h11.SEND_BODY)  # what their side is in while it still owes us something
# What the server below would tell the user's terminal about wrong requests; they get their answer.
_silent = logging.getLogger("swarm.api.connection")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class LimitedConnection(H11Protocol):
    """The protocol of the server below, with limits; `state["crowded"]` tells the application to serve only ours."""

    access: LanAccess | None = None  # of connections from other devices

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _silent
        self.app_state = {**self.app_state, "crowded": False, "lan": self.access, "user": ConnectionUser()}
        self._opened_at = self.loop.time()
        self._awaited: object = None  # the state of theirs for which the timer runs
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the client has not finished a request yet, or has none."""
        return self.conn.their_state in _AWAITED

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.max_size = limits.API_READ_BYTES  # type: ignore[attr-defined]
        super().connection_made(transport)
        self._make_room()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.app_state["crowded"] = len(self.connections) > limits.MAX_API_CONNECTIONS
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(limits.UNREAD_REPLY_S, self.transport.abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self.refuse(HTTPStatus.BAD_REQUEST, "the request is not HTTP")

    def refuse(self, status: HTTPStatus, text: str) -> None:
        """Say why, and hang up."""
        kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
        error = {"message": text, "type": kind, "param": None, "code": status.name.lower()}
        body = json.dumps({"error": error}).encode()
        head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.connections.discard(self)
        self.transport.close()

    # --- within

    def _should_upgrade(self) -> bool:
        return False  # a request to change the protocol is answered as any other

    def _make_room(self) -> None:
        if len(self.connections) <= limits.MAX_API_CONNECTIONS:
            return
        others = (c for c in self.connections if c is not self and isinstance(c, LimitedConnection) and c.is_waiting)
        oldest = min(others, key=lambda other: other._opened_at, default=None)
        if oldest is not None:
            self.connections.discard(oldest)
            oldest.transport.abort()
        elif len(self.connections) > limits.MAX_API_CONNECTIONS + limits.KEPT_API_CONNECTIONS:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open")

    def _watch(self) -> None:
        """Let the timer run for what their side owes us now."""
        state = self.conn.their_state if self.is_waiting and not self.transport.is_closing() else None
        if state is self._awaited:
            return
        self._awaited = state
        if self._timer is not None:
            self._timer.cancel()
        if state is not None:
            wait_s = limits.REQUEST_HEAD_S if state is h11.IDLE else limits.REQUEST_BODY_S
            self._timer = self.loop.call_later(wait_s, self._on_late)

    def _on_late(self) -> None:
        if self.conn.their_state is h11.SEND_BODY and self.cycle.response_started:
            self.transport.abort()
        else:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, "the request was not finished in time")
