"""A request's JSON object, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence

import pytest
from starlette.requests import Request

from swarm.api import body
from swarm.api.errors import BadRequest
from swarm.limits import MAX_REQUEST_BYTES
from tests.helpers.pauses import PauseWatch


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
        ([b"[" * 900 + b"]" * 900], "more than 100 levels"),
        ([b"[" * 1_000_000], "more than 100000 objects"),
        ([b'{"a":', b"[" * 101, b"]" * 101, b"}"], "more than 100 levels of nesting"),
        ([b'{"a": ', b"[]," * 200_000, b"1]}"], "more than 100000 objects"),
        ([b'{"a": [', b"1," * 300_000, b"1]}"], "262144 values"),
        ([b'"a",' * 200_001], "100000 texts"),
        ([b'{"a": ' + b"1" * 65 + b"}"], "not JSON"),
        ([b'{"a": "\xff"}'], "not JSON"),
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


def test_what_stands_in_texts_is_not_counted() -> None:
    text = '[{,"\\' * 200_000
    assert read(json.dumps({"a": text}).encode()) == {"a": text}


def test_what_was_json_of_old_still_is() -> None:
    body = b'\xef\xbb\xbf{"a": NaN, "b": "\\ud800", "c": %s}' % (b"[" * 99 + b"]" * 99)
    assert read(body)["b"] == "\ud800"


N = MAX_REQUEST_BYTES - 100
HEAVY = {
    "backslashes": b'{"a":"' + b"\\\\" * (N // 2) + b'"}',
    "quotes": b'{"a":"' + b'\\"' * (N // 2) + b'"}',
    "texts": b'"' * N,
    "objects": b'{"a":[' + b"{}," * (N // 3) + b"1]}",
    "lists": b'{"a":[' + b"[]," * 33_000 + b"1]}",
    "keys": b"{" + b",".join(b'"k%d":1' % i for i in range(99_000)) + b"}",
    "floats": b'{"a":[' + b"1.234e5," * 262_000 + b"1]}",
    "digits": b'{"a":[' + b",".join([b"1" * 4000] * 2000) + b"]}",
    "brackets": b"[" * N,
}


@pytest.mark.parametrize("name", HEAVY)
def test_no_request_holds_the_interpreter(name: str) -> None:
    with PauseWatch() as watch, contextlib.suppress(BadRequest):
        read(HEAVY[name])
    assert watch.longest_s < 0.2
