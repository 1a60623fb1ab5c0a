"""/api/pull and /api/delete: who may, and what is said meanwhile."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from swarm.errors import DownloadError, ModelNotFound, SwarmError
from swarm.node.bringing import PullStep
from tests.helpers.api_client import CHANGES, api_of, returns


def brings(*steps: PullStep, error: SwarmError | None = None) -> Any:
    """A node's `bring`, and what it was asked for."""

    async def bring(text: str, hub: object) -> AsyncGenerator[PullStep, None]:
        asked.append(text)
        for step in steps:
            yield step
        if error is not None:
            raise error

    asked: list[str] = []
    bring.asked = asked  # type: ignore[attr-defined]
    return bring


def test_lines_say_how_far_it_is() -> None:
    bring = brings(PullStep("Looking what there is"), PullStep("Downloading", 5, 10), PullStep("Verifying", 10, 10))
    reply = api_of(bring=bring).post("/api/pull", json={"model": "glm-4-9b:latest"}, headers=CHANGES)
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert reply.headers["content-type"] == "application/x-ndjson" and bring.asked == ["glm-4-9b"]
    assert [line["status"] for line in lines] == [
        "pulling manifest",
        "looking what there is",
        "downloading",
        "verifying",
        "success",
    ]
    assert (lines[2]["completed"], lines[2]["total"]) == (5, 10) and lines[2]["digest"].startswith("sha256:")
    assert "total" not in lines[1]


def test_what_goes_wrong_is_the_last_line_or_the_status() -> None:
    api = api_of(bring=brings(PullStep("Downloading", 1, 2), error=DownloadError("the hub is away")))
    reply = api.post("/api/pull", json={"name": "m"}, headers=CHANGES)
    assert json.loads(reply.text.splitlines()[-1]) == {"error": "the hub is away"}
    reply = api.post("/api/pull", json={"model": "m", "stream": False}, headers=CHANGES)
    assert (reply.status_code, reply.json()) == (503, {"error": "the hub is away"})
    fine = api_of(bring=brings()).post("/api/pull", json={"model": "m", "stream": False}, headers=CHANGES)
    assert fine.json() == {"status": "success"}


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
def test_only_this_devices_user_has_models_come_and_go(headers: dict[str, str]) -> None:
    bring, remove = brings(), returns(None)
    api = api_of(bring=bring, remove_with_file=remove)
    for reply in (
        api.post("/api/pull", json={"model": "m"}, headers=headers),
        api.request("DELETE", "/api/delete", json={"model": "m"}, headers=headers),
    ):
        assert reply.status_code == 403 and "swarm pull" in reply.json()["error"]
    assert bring.asked == [] and remove.calls == []


def test_a_model_is_deleted_by_its_name() -> None:
    remove = returns(None)
    api = api_of(remove_with_file=remove)
    assert api.request("DELETE", "/api/delete", json={"model": "m:latest"}, headers=CHANGES).status_code == 200
    assert remove.calls == [("m",)]

    async def no(name: str) -> None:
        raise ModelNotFound("there is none")

    reply = api_of(remove_with_file=no).request("DELETE", "/api/delete", json={"model": "m"}, headers=CHANGES)
    assert (reply.status_code, reply.json()) == (404, {"error": "there is none"})


def test_fields_that_cannot_be_used_are_named() -> None:
    api = api_of(bring=brings())
    assert "model is missing" in api.post("/api/pull", json={}, headers=CHANGES).json()["error"]
    assert "insecure" in api.post("/api/pull", json={"model": "m", "insecure": True}, headers=CHANGES).json()["error"]
