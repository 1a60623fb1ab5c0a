"""Ollama's way to have models come and go: /api/pull, with lines that say how far it is, and /api/delete.

Both change this device, so they need the node's token, as all that does: as a bearer's token.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from swarm import config
from swarm.api.body import parsed_body
from swarm.api.dialect import Json, to_json
from swarm.api.errors import BadRequest, ollama_body
from swarm.api.fields import converted, refuse
from swarm.api.guard import may_change
from swarm.api.models import TAG
from swarm.errors import SwarmError
from swarm.node.bringing import PullStep
from swarm.node.node import Node

DEMANDS = {"insecure": "models come by https only"}


class PullRequest(msgspec.Struct, kw_only=True):
    """A model that is to be fetched, or deleted."""

    model: str = ""
    name: str = ""  # what older clients call it
    stream: bool | None = None


async def pull(request: Request) -> Response:
    """POST /api/pull."""
    node, asked = await _asked(request)
    hub = config.hub()
    if hub.offline:
        raise BadRequest("this node is told to stay offline (HF_HUB_OFFLINE)", status=503, code="offline")
    steps = node.bring(asked.model, hub)
    if asked.stream is not False:
        return StreamingResponse(_lines(steps, asked.model), media_type="application/x-ndjson")
    async with aclosing(steps):
        async for _ in steps:
            pass
    return JSONResponse({"status": "success"})


async def delete(request: Request) -> Response:
    """DELETE /api/delete: from this device; others keep theirs."""
    node, asked = await _asked(request)
    await node.remove_with_file(asked.model)
    return Response(None, 200)


async def _asked(request: Request) -> tuple[Node, PullRequest]:
    if not may_change(request, request.app.state.token):
        text = (
            "only the user of this device may do that: send the node's token, or use `swarm pull` and `swarm rm` there"
        )
        raise BadRequest(text, status=403, code="not_allowed")

    def parse(body: Json) -> PullRequest:
        refuse(body, DEMANDS)
        asked = converted(body, PullRequest)
        name = (asked.model or asked.name).removesuffix(TAG)
        if not name:
            raise BadRequest("model is missing", "model")
        return msgspec.structs.replace(asked, model=name)

    return request.app.state.node, await parsed_body(request, parse)


async def _lines(steps: AsyncGenerator[PullStep, None], name: str) -> AsyncGenerator[bytes, None]:
    """What Ollama's clients make a bar of."""
    digest = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"  # by it they tell bars apart
    yield _line({"status": "pulling manifest"})
    try:
        async with aclosing(steps):
            async for step in steps:
                sizes = {"digest": digest, "total": step.total, "completed": step.done} if step.total else {}
                yield _line({"status": step.what.lower(), **sizes})
        yield _line({"status": "success"})
    except SwarmError as error:
        yield _line(ollama_body(error))


def _line(value: Json) -> bytes:
    return to_json(value).encode() + b"\n"
