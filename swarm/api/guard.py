"""Who may talk to the local API: programs of this device, not web pages that a browser shows on it.

The socket is bound to 127.0.0.1, but a browser's page reaches that, too: by a request to http://127.0.0.1, which
carries the page's Origin, or by a name that resolves to 127.0.0.1 (DNS rebinding), which stands in Host.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class LocalOnly:
    """Refuses requests whose Host or Origin is not this device itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Request(scope).headers
        if not is_local(headers.get("host", ""), headers.get("origin")):
            text = "this API answers programs on this device only; call it as http://127.0.0.1"
            response = JSONResponse({"error": {"message": text, "type": "forbidden", "code": "not_local"}}, 403)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_local(host: str, origin: str | None) -> bool:
    """True when both headers name this device."""
    return _name(f"//{host}") in LOCAL_NAMES and (origin is None or _name(origin) in LOCAL_NAMES)


def may_change(request: Request, token: str) -> bool:
    """True for those who can read the node's own file: the user whose node it is."""
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(sent.encode(), token.encode())


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
