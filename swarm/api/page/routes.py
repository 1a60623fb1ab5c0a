"""What the page asks of its node: its files and the state of the swarm. To see is free."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from swarm.api.errors import BadRequest
from swarm.api.page.feed import ANSWER_S, StateFeed
from swarm.api.page.serving import page_file, root
from swarm.node.node import Node


async def events(request: Request) -> Response:
    """GET /swarm/events: the state of the swarm as server-sent events, for as long as somebody reads them."""
    feed = _feed(request.app)
    if feed.is_full:
        raise BadRequest("too many pages look at this node; close some", status=503, code="too_many")
    return StreamingResponse(feed.read(), media_type="text/event-stream", headers={"cache-control": "no-store"})


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
]
