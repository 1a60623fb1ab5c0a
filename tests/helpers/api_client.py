"""The local API in the test's own process: a node that the test plays, and a client."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from starlette.testclient import TestClient

from swarm.api.app import make_app

TOKEN = "secret"
CHANGES = {"authorization": f"Bearer {TOKEN}"}


def api_of(**node: object) -> TestClient:
    """A client of a node that has only what is given here."""
    played: Any = SimpleNamespace(**node)
    return TestClient(make_app(played, TOKEN), base_url="http://127.0.0.1", raise_server_exceptions=False)


def returns(value: object) -> Any:
    """A coroutine function that returns this, and remembers what it was called with."""

    async def function(*arguments: object, **options: object) -> object:
        calls.append((*arguments, *options.values()))
        return value

    calls: list[tuple[object, ...]] = []
    function.calls = calls  # type: ignore[attr-defined]
    return function
