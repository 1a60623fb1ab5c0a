"""Who may ask from other devices: whoever has the key, by a name that is this device's."""

from __future__ import annotations

import base64
import platform
from typing import Any

import pytest
from starlette.requests import Request

from swarm.api.lan_guard import lan_refusal
from swarm.node.lan_access import LanAccess, digest

KEY = "swarm-secret"
ACCESS = LanAccess(True, key_digest=digest(KEY), hosts=("attic.example",), origins=("https://chat.example",))
BEARER = {"host": "192.168.1.5:8742", "authorization": f"Bearer {KEY}"}


def code(headers: dict[str, str], method: str = "GET", access: LanAccess = ACCESS) -> str | None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "method": method, "path": "/v1/models", "headers": raw}
    refusal = lan_refusal(Request(scope), access)
    return refusal.code if refusal is not None else None


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


@pytest.mark.parametrize(
    "key",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"authorization": basic(KEY)},
        {"x-api-key": KEY},
    ],
)
def test_the_key_opens_however_a_program_sends_it(key: dict[str, str]) -> None:
    assert code({"host": "192.168.1.5:8742", **key}) is None


@pytest.mark.parametrize(
    "key",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": basic("wrong")},
        {"authorization": "Basic ?"},
        {"x-api-key": ""},
    ],
)
def test_nothing_else_opens(key: dict[str, str]) -> None:
    assert code({"host": "192.168.1.5:8742", **key}) == "invalid_api_key"
    assert code({"host": "192.168.1.5:8742", **key}, access=LanAccess(True)) == "invalid_api_key"


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("192.168.1.5:8742", True),
        ("[fd00::5]:8742", True),
        ("attic.example", True),
        (f"{platform.node().partition('.')[0]}.local:8742", True),
        ("evil.example", False),
        ("192.168.1.5.evil.example", False),
        ("a b", False),
    ],
)
def test_the_device_is_called_by_an_address_or_by_a_name_that_is_its_own(host: str, fine: bool) -> None:
    assert (code({**BEARER, "host": host}) is None) == fine


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({"origin": "http://192.168.1.5:8742"}, True),
        ({"origin": "https://chat.example"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
    ],
)
def test_pages_of_other_sites_may_not_ask_though_the_browser_has_the_key(headers: dict[str, str], fine: bool) -> None:
    assert (code({**BEARER, **headers}) is None) == fine


def test_a_preflight_needs_no_key_and_a_page_that_is_let_in() -> None:
    asked = {"host": "192.168.1.5:8742"}
    assert code({**asked, "origin": "https://chat.example"}, "OPTIONS") is None
    assert code({**asked, "origin": "https://evil.example"}, "OPTIONS") == "unknown_origin"
    assert code(asked, "OPTIONS") == "invalid_api_key"
