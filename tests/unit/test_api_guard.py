"""Programs of this device are let in, web pages are not; only the node's user may change things."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from swarm.api.app import make_app
from swarm.api.guard import is_local, may_change
from tests.helpers.api_client import CHANGES, TOKEN, api_of


async def unused(*arguments: object) -> None:
    raise AssertionError("the node was made to work")


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
        ("evil.com@127.0.0.1", None, False),
        ("127.0.0.1#.evil.com", None, False),
        ("127.0.0.1/.evil.com", None, False),
        ("127.0.0.1:x", None, False),
        ("localhost.", None, False),
        ("127.0.0.1\n", None, False),
        ("localhost", "file://localhost", False),
        ("localhost", "http://localhost/", False),
        ("localhost", "http://a@localhost", False),
    ],
)
def test_only_this_device_is_local(host: str, origin: str | None, fine: bool) -> None:
    assert is_local([host], [] if origin is None else [origin], []) is fine


@pytest.mark.parametrize(
    ("origins", "sites", "fine"),
    [
        ([], ["none"], True),
        ([], ["same-origin"], True),
        ([], ["same-site"], False),
        ([], ["cross-site"], False),
        ([], ["none", "none"], False),
        (["https://evil.example"], ["same-origin"], False),
        (["http://localhost"], ["cross-site"], True),  # a page that a program of this device serves
        (["http://localhost", "https://evil.example"], [], False),
    ],
)
def test_what_a_browser_says_of_a_request_is_believed(origins: list[str], sites: list[str], fine: bool) -> None:
    assert is_local(["localhost"], origins, sites) is fine


def test_a_request_has_one_host() -> None:
    assert not is_local([], [], []) and not is_local(["localhost", "localhost"], [], [])


@pytest.mark.parametrize("path", ["/swarm/model?name=m", "/swarm/plan?model=m", "/v1/models", "/health"])
def test_a_picture_of_a_web_page_gets_and_changes_nothing(path: str) -> None:
    reply = api_of(find=unused, plan=unused).get(path, headers={"sec-fetch-site": "cross-site"})
    assert reply.status_code == 403
    assert reply.json()["error"] | {"message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_local",
    }


@pytest.mark.parametrize("path", ["/swarm/model", "/swarm/plan"])
def test_no_get_makes_the_node_work(path: str) -> None:
    reply = api_of(find=unused, plan=unused).get(path)
    assert reply.status_code == 405 and reply.headers["allow"] == "POST"
    assert reply.json()["error"]["code"] == "method_not_allowed"


def test_a_bug_is_told_in_the_shape_of_errors_and_reported_once() -> None:
    def fails() -> None:
        raise ZeroDivisionError("secret")

    bugs: list[Exception] = []
    reply = api_of(doctor=fails, events=SimpleNamespace(bug=bugs.append)).get("/swarm/doctor")
    assert reply.status_code == 500
    assert reply.json()["error"] | {"param": 0} == {
        "message": "a bug in Swarm: ZeroDivisionError",
        "type": "server_error",
        "param": 0,
        "code": "bug",
    }
    assert len(bugs) == 1


def test_when_it_is_crowded_only_the_user_is_served() -> None:
    app = make_app(SimpleNamespace(doctor=lambda: []), TOKEN)  # type: ignore[arg-type]

    async def crowded(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"crowded": True}}, receive, send)

    api = TestClient(crowded, base_url="http://127.0.0.1")
    refused = api.get("/swarm/doctor")
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "too_many"
    assert refused.headers["retry-after"] == "2"
    assert api.get("/swarm/doctor", headers=CHANGES).json() == {"findings": []}


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


def test_a_page_of_this_device_may_ask_and_read_and_another_may_not() -> None:
    api = api_of(doctor=lambda: [])
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for origin in ("http://localhost:3000", "http://[::1]"):
        allowed = api.options("/v1/chat/completions", headers={"origin": origin, **ask})
        assert allowed.status_code == 204 and allowed.headers["access-control-allow-origin"] == origin
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert "content-type" in allowed.headers["access-control-allow-headers"]
        read = api.get("/swarm/doctor", headers={"origin": origin})
        assert read.headers["access-control-allow-origin"] == origin and read.headers["vary"] == "origin"
    refused = api.options("/v1/chat/completions", headers={"origin": "https://evil.example", **ask})
    assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-origin" not in api.get("/swarm/doctor").headers


@pytest.mark.parametrize(
    ("origin", "allowed", "fine"),
    [
        ("app://obsidian.md", ("app://obsidian.md",), True),
        ("app://obsidian.md", (), False),
        ("https://evil.example", ("app://obsidian.md",), False),
        ("https://evil.example", ("*",), False),
        ("*", ("*",), False),
    ],
)
def test_an_origin_that_its_user_let_in_may_ask_and_never_all_of_them(
    origin: str, allowed: tuple[str, ...], fine: bool
) -> None:
    assert is_local(["127.0.0.1:8642"], [origin], [], allowed=allowed) == fine
