"""What the page asks of its node."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from types import SimpleNamespace

import pytest

from swarm import limits
from tests.helpers.api_client import api_of


def test_the_state_comes_as_events_until_the_node_ends() -> None:
    stopping = asyncio.Event()

    async def collect(patience_s: float) -> dict[str, object]:
        stopping.set()
        return {"name": "attic", "devices": [], "fetched_bytes": 7}

    events = SimpleNamespace(entries=deque(), bug=lambda error: None)
    api = api_of(status=SimpleNamespace(collect=collect), events=events, stopping=stopping)
    reply = api.get("/swarm/events")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-store"
    told = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    assert [json.loads(each) for each in told] == [{"name": "attic", "devices": []}]


def test_too_many_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PAGE_READERS", 0)
    events = SimpleNamespace(entries=deque(), bug=lambda error: None)
    api = api_of(status=SimpleNamespace(), events=events, stopping=asyncio.Event())
    reply = api.get("/swarm/events")
    assert reply.status_code == 503 and "too many pages" in reply.json()["error"]["message"]
