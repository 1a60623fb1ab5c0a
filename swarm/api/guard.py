"""Who may talk to the local API: programs of this device, not web pages that a browser shows on it.

The socket is bound to 127.0.0.1, but a browser's page reaches that, too: by a request to http://127.0.0.1, which
carries the page's Origin or, where it has none (a picture, a link), Sec-Fetch-Site; or by a name that resolves to
127.0.0.1 (DNS rebinding), which stands in Host.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from swarm.api.errors import BadRequest, bug_of, response_of
from swarm.api.gate import Gate
from swarm.api.lan_guard import REALM, lan_refusal

_HOST = r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?"
_LOCAL_HOST = re.compile(_HOST, re.IGNORECASE)
_LOCAL_ORIGIN = re.compile(f"https?://{_HOST}", re.IGNORECASE)
_OWN_SITES = {"same-origin", "none"}  # none: the user typed the address


class Door:
    """Refuses what does not come from this device, and answers what fails inside; all in the one shape of errors."""

    def __init__(self, app: ASGIApp, token: str, report: Callable[[Exception], None]) -> None:
        """`report` is told of errors that are bugs."""
        self._app = app
        self._token = token
        self._report = report
        self._gate = Gate()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = self._refusal(Request(scope))
        if refusal is not None:
            headers = REALM if refusal.status == 401 else None
            await response_of(refusal, scope["path"], headers)(scope, receive, send)
            return
        has_begun = False
        origin = Request(scope).headers.get("origin")

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            if origin is not None and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_shared_with(origin)]
            await send(message)

        if scope["method"] == "OPTIONS" and origin is not None:
            await _preflight(Request(scope))(scope, receive, send_on)
            return

        if scope["method"] == "POST":
            await self._gate.turn()
        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            self._report(error)
            if has_begun:
                raise  # the server breaks the connection off: the client must not take a part for the whole
            await response_of(bug_of(error), scope["path"])(scope, receive, send)

    def _refusal(self, request: Request) -> BadRequest | None:
        headers = request.headers
        state = request.scope.get("state", {})
        access = state.get("lan")
        if access is not None:
            refusal = lan_refusal(request, access)
            crowd = BadRequest("too many connections are open; try again later", status=503, code="too_many")
            return refusal or (crowd if state.get("crowded") else None)
        asked = (headers.getlist("host"), headers.getlist("origin"), headers.getlist("sec-fetch-site"))
        if not is_local(*asked, allowed=getattr(request.app.state, "origins", ())):
            text = "this API answers programs on this device only; call it as http://127.0.0.1"
            return BadRequest(text, status=403, code="not_local")
        if state.get("crowded") and not may_change(request, self._token):
            return BadRequest("too many connections are open; try again later", status=503, code="too_many")
        return None


def _preflight(request: Request) -> Response:
    """What a browser asks before it sends the request of a page: clients add headers of their own, and may."""
    wanted = request.headers.get("access-control-request-headers", "")
    allowed = {"access-control-allow-methods": "GET, POST", "access-control-max-age": "600"}
    return Response(None, 204, headers={**allowed, "access-control-allow-headers": wanted})


def _shared_with(origin: str) -> list[tuple[bytes, bytes]]:
    """The headers that let a page of that origin, which was let in, read the response."""
    return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]


def is_local(hosts: list[str], origins: list[str], sites: list[str], *, allowed: Sequence[str] = ()) -> bool:
    """True when the headers Host, Origin and Sec-Fetch-Site, each there once at most, name this device.

    `allowed`: origins beside its own that its user lets in, such as a browser's extension. "*" is not one of them:
    there is no key here that a page would have to know.
    """
    if len(hosts) != 1 or not _LOCAL_HOST.fullmatch(hosts[0]):
        return False
    if origins:
        origin = origins[0]
        is_fine = _LOCAL_ORIGIN.fullmatch(origin) is not None or (origin in allowed and origin != "*")
        return len(origins) == 1 and is_fine
    return not sites or (len(sites) == 1 and sites[0] in _OWN_SITES)


def may_change(request: Request, token: str) -> bool:
    """True for those who can read the node's own file: the user whose node it is."""
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(sent.encode(), token.encode())
