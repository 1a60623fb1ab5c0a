"""The listener for other devices: open where the home says so, closed again when it says no more."""

from __future__ import annotations

import asyncio
import http.client
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm.api.app import make_app
from swarm.api.lan import LanServer
from swarm.errors import ConfigError
from swarm.node.home import Home
from swarm.node.lan_access import LanAccess, digest, keep_access
from tests.helpers.api_client import TOKEN
from tests.helpers.nodes import free_port

KEY = "swarm-secret"


def status(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, None, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, response.headers["www-authenticate"]


def test_it_opens_asks_for_the_key_and_closes(tmp_path: Path) -> None:
    home = Home(tmp_path)
    node: Any = SimpleNamespace(peer="ab", name="attic", n_others=0)

    async def scenario() -> None:
        server = LanServer(make_app(node, TOKEN), home)
        assert await server.apply() == []
        access = LanAccess(True, free_port(), digest(KEY))
        keep_access(home, access)
        addresses = await server.apply()
        assert all(address.endswith(f":{access.port}") for address in addresses)
        ask = asyncio.to_thread
        assert (await ask(status, access.port, "/health", authorization=f"Bearer {KEY}"))[0] == 200
        refused, challenge = await ask(status, access.port, "/health")
        assert refused == 401 and challenge is not None and challenge.startswith("Basic")
        mine = {"authorization": f"Bearer {TOKEN}"}  # the token of the local API opens nothing here
        assert (await ask(lambda: status(access.port, "/swarm/leave", "POST", **mine)))[0] == 401
        theirs = {"authorization": f"Bearer {KEY}"}
        assert (await ask(lambda: status(access.port, "/swarm/leave", "POST", **theirs)))[0] == 403
        keep_access(home, replace(access, on=False))
        assert await server.apply() == []
        with pytest.raises(OSError):
            await ask(status, access.port, "/health")

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    keep_access(home, LanAccess(True, free_port(), digest(KEY), certificate="/none.pem", private_key="/none.key"))
    node: Any = SimpleNamespace()

    async def scenario() -> None:
        with pytest.raises(ConfigError, match=r"there is no file /none\.pem"):
            await LanServer(make_app(node, TOKEN), home).apply()

    asyncio.run(scenario())
