"""Ranges of one file: redirects, addresses that run out, cuts, and the token that goes to the hub alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from swarm.config import HubSettings
from swarm.errors import DownloadError
from swarm.store.web_file import Interrupted, Later, Unreachable, Web, WebFile, wait_of
from tests.helpers.hub import COMMIT, TOKEN, StandInHub

CONTENT = np.random.default_rng(2).bytes(300_000)


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with StandInHub.of({"u/r": {"x.gguf": CONTENT}, "web/files": {"y.gguf": CONTENT}}) as server:
        yield server


@pytest.fixture
def web(hub: StandInHub) -> Iterator[Web]:
    with Web(HubSettings(hub.endpoint, TOKEN), sleep=lambda seconds: None) as client:
        yield client


def file_of(hub: StandInHub, web: Web, **known: object) -> WebFile:
    return WebFile(web, f"{hub.endpoint}/u/r/resolve/{COMMIT}/x.gguf", **known)  # type: ignore[arg-type]


def test_ranges_come_from_the_host_that_the_hub_names_and_the_token_does_not_go_there(
    hub: StandInHub, web: Web
) -> None:
    file = file_of(hub, web)
    assert b"".join(file.read(1000, 200_000)) == CONTENT[1000:200_000]
    assert b"".join(file.read(200_000, 300_000)) == CONTENT[200_000:]
    assert file.n_bytes == len(CONTENT)
    assert [(request.host, bool(request.token)) for request in hub.requests] == [
        ("127.0.0.1", True),
        ("localhost", False),
        ("localhost", False),
    ], "the signed address is kept for the next range"


def test_an_address_that_has_run_out_is_asked_for_anew(hub: StandInHub, web: Web) -> None:
    file = file_of(hub, web)
    assert b"".join(file.read(0, 10)) == CONTENT[:10]
    hub.faults.n_expired = 1
    with pytest.raises(Interrupted, match="run out"):
        list(file.read(10, 20))
    assert b"".join(file.read(10, 20)) == CONTENT[10:20]
    assert hub.paths[-2:] == [f"/u/r/resolve/{COMMIT}/x.gguf", "/cdn/u/r/x.gguf"]


def test_what_came_before_a_cut_is_not_lost(hub: StandInHub, web: Web) -> None:
    hub.faults.drop_after, hub.faults.n_drops = 100_000, 1
    came = bytearray()
    with pytest.raises(Interrupted):
        for part in file_of(hub, web).read(0, len(CONTENT)):
            came += part
    assert bytes(came) == CONTENT[: len(came)] and len(came) > 0


def test_a_server_without_ranges_is_stepped_through(hub: StandInHub, web: Web) -> None:
    hub.faults.ranges = False
    file = WebFile(web, f"{hub.endpoint}/web/y.gguf")
    assert b"".join(file.read(100_000, 100_010)) == CONTENT[100_000:100_010]
    assert not file.has_ranges and file.n_bytes == len(CONTENT)


@pytest.mark.parametrize(
    ("known", "says"),
    [({"sha256": "f" * 64}, "another file under that name"), ({"n_bytes": 5}, "another file under that name .300000")],
)
def test_another_file_than_was_promised_is_not_read(
    hub: StandInHub, web: Web, known: dict[str, object], says: str
) -> None:
    with pytest.raises(DownloadError, match=says):
        list(file_of(hub, web, **known).read(0, 10))


def test_a_redirect_away_from_encryption_is_refused(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "http://evil.example/x.gguf"})

    monkeypatch.setattr(web, "_client", httpx.Client(transport=httpx.MockTransport(answer)))
    with pytest.raises(DownloadError, match="not encrypted"):
        list(WebFile(web, "https://hub.example/x.gguf").read(0, 10))


def test_redirects_without_end_are_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "/again"})

    monkeypatch.setattr(web, "_client", httpx.Client(transport=httpx.MockTransport(answer)))
    with pytest.raises(DownloadError, match="without end"):
        list(WebFile(web, "https://hub.example/x.gguf").read(0, 10))


def test_offline_asks_nobody(hub: StandInHub) -> None:
    with Web(HubSettings(hub.endpoint, offline=True)) as web, pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        list(file_of(hub, web).read(0, 10))
    assert hub.requests == []


def test_nobody_at_the_address_is_said_at_once(web: Web) -> None:
    with socket.socket() as placeholder:  # bound and not listening: connections are refused
        placeholder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{placeholder.getsockname()[1]}/x.gguf"
        with pytest.raises(Unreachable, match=r"127.0.0.1 cannot be reached"):
            list(WebFile(web, url).read(0, 10))


def test_later_is_waited_for_as_long_as_the_server_says(hub: StandInHub) -> None:
    slept: list[float] = []
    said: list[str] = []
    hub.faults.n_busy, hub.faults.wait_s = 2, 55
    with Web(HubSettings(hub.endpoint), waiting=said.append, sleep=slept.append) as web:
        file = file_of(hub, web)
        assert web.patiently(lambda: b"".join(file.read(0, 10))) == CONTENT[:10]
        assert slept == [56.0, 56.0] and "wants 56 s of rest" in said[0]
        hub.faults.n_busy, hub.faults.wait_s = 1, 4000
        file = file_of(hub, web)
        with pytest.raises(Later):
            web.patiently(lambda: b"".join(file.read(0, 10)))


def test_a_wait_is_read_from_either_header() -> None:
    assert wait_of(httpx.Headers({"RateLimit": '"api";r=0;t=7'})) == 8
    assert wait_of(httpx.Headers({"Retry-After": "3"})) == 4
    assert wait_of(httpx.Headers({})) == 10
