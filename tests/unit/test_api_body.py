"""A request's JSON object, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from starlette.requests import Request

from swarm.api import body
from swarm.api.errors import BadRequest


def read(*pieces: bytes, ends: bool = True) -> dict[str, object]:
    """What a request of these pieces says."""
    messages: list[dict[str, object]] = [{"type": "http.request", "body": p, "more_body": True} for p in pieces]
    messages.append({"type": "http.request", "body": b""} if ends else {"type": "http.disconnect"})

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    return asyncio.run(body.body_json(Request({"type": "http", "headers": [], "method": "POST"}, receive)))


def test_an_object_may_come_in_pieces_and_nothing_is_an_empty_one() -> None:
    assert read(b'{"a": "', b"\xc3", b'\xbc"}') == {"a": "ü"}
    assert read() == {}


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([b"[]"], "must be a JSON object"),
        ([b"5"], "must be a JSON object"),
        ([b"{"], "not JSON"),
        ([b"\xff\xfe{"], "not JSON"),
        ([b"[" * 100_000], "not JSON"),
    ],
)
def test_what_is_no_object_is_refused_in_one_line(pieces: Sequence[bytes], text: str) -> None:
    with pytest.raises(BadRequest, match=text) as caught:
        read(*pieces)
    assert caught.value.status == 400


def test_a_request_that_is_too_large_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "MAX_REQUEST_BYTES", 10)
    with pytest.raises(BadRequest, match="larger than") as caught:
        read(b" " * 11, ends=False)
    assert caught.value.status == 413


def test_a_client_that_goes_away_in_the_middle_is_told_nothing_worse() -> None:
    with pytest.raises(BadRequest, match="not finished"):
        read(b"{", ends=False)
