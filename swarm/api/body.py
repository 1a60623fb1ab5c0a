"""The JSON object of a request, bounded in size, depth and number of values: no request holds the node's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from swarm.api.errors import BadRequest
from swarm.limits import MAX_REQUEST_BYTES
from swarm.text.bounded_json import TooMuch, parse_json
from swarm.units import size_text

Json = dict[str, object]
Result = TypeVar("Result")
ON_LOOP_BYTES = 16 * 1024  # a request of a few messages: read at once, for a thread costs more than reading it


async def body_json(request: Request) -> Json:
    """The request's JSON object; raise BadRequest when it is none or too large."""
    return await parsed_body(request, lambda body: body)


async def parsed_body(request: Request, parse: Callable[[Json], Result]) -> Result:
    """What `parse` makes of the request's JSON object; large ones are read and parsed on a thread."""
    data = bytearray()
    try:
        async for piece in request.stream():
            data += piece
            if len(data) > MAX_REQUEST_BYTES:
                raise BadRequest(f"the request is larger than {size_text(MAX_REQUEST_BYTES)}", status=413)
    except ClientDisconnect:
        raise BadRequest("the request was not finished") from None
    if len(data) <= ON_LOOP_BYTES:
        return parse(json_object(data))
    return await asyncio.to_thread(lambda: parse(json_object(data)))


def json_object(data: bytes | bytearray) -> Json:
    """The object that `data` spells; BadRequest when it is none, or one that only somebody hostile would send."""
    try:
        value = parse_json(data.decode("utf-8-sig") or "{}")
    except TooMuch as error:
        raise BadRequest(f"the request has {error}") from None
    except ValueError:
        raise BadRequest("the request is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the request must be a JSON object")
    return value
