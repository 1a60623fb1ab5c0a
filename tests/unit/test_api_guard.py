"""Programs of this device are let in, web pages are not; only the node's user may change things."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from swarm.api.guard import is_local, may_change


@pytest.mark.parametrize(
    ("host", "origin", "fine"),
    [
        ("127.0.0.1:8642", None, True),
        ("localhost", "http://localhost:3000", True),
        ("[::1]:8642", "http://127.0.0.1", True),
        ("LOCALHOST:1", None, True),
        ("", None, False),
        ("evil.example:8642", None, False),
        ("127.0.0.1.evil.example", None, False),
        ("localhost", "https://evil.example", False),
        ("localhost", "null", False),
        ("localhost", "http://localhost.evil.example", False),
        ("local[host", None, False),
    ],
)
def test_only_this_device_is_local(host: str, origin: str | None, fine: bool) -> None:
    assert is_local(host, origin) is fine


@pytest.mark.parametrize(
    ("header", "fine"),
    [
        ("Bearer secret", True),
        ("secret", True),
        ("Bearer other", False),
        ("", False),
        (None, False),
        ("Bearer s\xe9", False),
    ],
)
def test_who_has_the_token_may_change_things(header: str | None, fine: bool) -> None:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    assert may_change(Request({"type": "http", "headers": headers}), "secret") is fine
