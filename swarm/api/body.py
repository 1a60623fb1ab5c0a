"""The JSON object of a request, bounded."""

from __future__ import annotations

import json

from starlette.requests import ClientDisconnect, Request

from swarm.api.errors import BadRequest
from swarm.limits import MAX_REQUEST_BYTES
from swarm.units import size_text


async def body_json(request: Request) -> dict[str, object]:
    """The request's JSON object; raise BadRequest when it is none or too large."""
    data = bytearray()
    try:
        async for piece in request.stream():
            data += piece
            if len(data) > MAX_REQUEST_BYTES:
                raise BadRequest(f"the request is larger than {size_text(MAX_REQUEST_BYTES)}", status=413)
    except ClientDisconnect:
        raise BadRequest("the request was not finished") from None
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise BadRequest("the request is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the request must be a JSON object")
    return value
