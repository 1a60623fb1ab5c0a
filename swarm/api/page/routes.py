"""What the page asks of its node: its files and the state of the swarm. To see is free; to change needs the key."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from swarm.api.body import body_json
from swarm.api.errors import BadRequest
from swarm.api.guard import may_change
from swarm.api.page.entering import CODE_S, Codes
from swarm.api.page.feed import ANSWER_S, StateFeed
from swarm.api.page.serving import page_file, root
from swarm.node.node import Node


async def events(request: Request) -> Response:
    """GET /swarm/events: the state of the swarm as server-sent events, for as long as somebody reads them."""
    feed = _feed(request.app)
    if feed.is_full:
        raise BadRequest("too many pages look at this node; close some", status=503, code="too_many")
    return StreamingResponse(feed.read(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def new_code(request: Request) -> JSONResponse:
    """POST /swarm/page: a code for the address that `swarm page` opens."""
    if not may_change(request, request.app.state.token):
        raise BadRequest("only the user of this node may do that", status=403)
    return JSONResponse({"code": _codes(request.app).make(), "seconds": CODE_S})


async def enter(request: Request) -> JSONResponse:
    """POST /swarm/page/enter: the key for a code, once."""
    body = await body_json(request)
    _codes(request.app).use(body.get("code"))
    return JSONResponse({"key": request.app.state.token}, headers={"cache-control": "no-store"})


def _codes(app: Starlette) -> Codes:
    codes = getattr(app.state, "codes", None)
    if codes is None:
        codes = app.state.codes = Codes()
    assert isinstance(codes, Codes)
    return codes


def _feed(app: Starlette) -> StateFeed:
    """The one of this application: made when somebody looks for the first time."""
    feed = getattr(app.state, "feed", None)
    if feed is None:
        node: Node = app.state.node
        feed = app.state.feed = StateFeed(
            lambda: node.status.collect(ANSWER_S),
            lambda: node.events.entries[-1] if node.events.entries else None,
            is_ending=node.stopping.is_set,
            on_bug=node.events.bug,
        )
    assert isinstance(feed, StateFeed)
    return feed


ROUTES = [
    Route("/", root, methods=["GET"]),
    Route("/page/{name}", page_file, methods=["GET"]),
    Route("/swarm/events", events, methods=["GET"]),
    Route("/swarm/page", new_code, methods=["POST"]),
    Route("/swarm/page/enter", enter, methods=["POST"]),
]
