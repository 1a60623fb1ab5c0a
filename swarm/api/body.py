"""The JSON object of a request, bounded in size, depth and number of values: no request holds the node's loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from swarm.api.errors import BadRequest
from swarm.limits import (
    MAX_REQUEST_BYTES,
    MAX_REQUEST_DEPTH,
    MAX_REQUEST_ITEMS,
    MAX_REQUEST_NUMBER_CHARS,
    MAX_REQUEST_OBJECTS,
)
from swarm.units import size_text

Json = dict[str, object]
Result = TypeVar("Result")
ON_LOOP_BYTES = 16 * 1024  # a request of a few messages: read at once, for a thread costs more than reading it
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


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
    _check_shape(data)
    try:
        value = json.loads(data.decode("utf-8-sig") or "{}", parse_int=_whole_number)
    except (ValueError, RecursionError):
        raise BadRequest("the request is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the request must be a JSON object")
    return value


def _whole_number(text: str) -> int:
    if len(text) > MAX_REQUEST_NUMBER_CHARS:
        raise ValueError
    return int(text)


def _check_shape(data: bytes | bytearray) -> None:
    """Count what the parser would make, before it holds the interpreter for all of it."""
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > 2 * MAX_REQUEST_OBJECTS:
        raise BadRequest(f"the request has more than {MAX_REQUEST_OBJECTS} texts")
    outside = b"".join(bare.split(b'"')[::2])  # without what stands in texts
    brackets = outside.translate(None, _NOT_BRACKETS)
    if len(brackets) > 2 * MAX_REQUEST_OBJECTS or outside.count(b",") > MAX_REQUEST_ITEMS:
        raise BadRequest(f"the request has more than {MAX_REQUEST_OBJECTS} objects or {MAX_REQUEST_ITEMS} values")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_REQUEST_DEPTH:
            raise BadRequest(f"the request is not JSON that is nested at most {MAX_REQUEST_DEPTH} levels deep")
