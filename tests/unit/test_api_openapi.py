"""The description of the API is made from what requests are checked against."""

from __future__ import annotations

from swarm.api.app import ROUTES
from swarm.api.openapi import BODIES, LOOKS
from tests.helpers.api_client import api_of


def test_the_description_has_the_fields_of_every_dialect() -> None:
    told = api_of().get("/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    schemas = told["components"]["schemas"]
    assert {"messages", "tools", "n", "seed", "temperature"} <= schemas["ChatRequest"]["properties"].keys()
    assert schemas["ChatRequest"]["required"] == ["messages"]
    assert "options" in schemas["OllamaChat"]["properties"]


def test_what_is_described_is_there() -> None:
    paths = {route.path for route in ROUTES}
    assert paths >= BODIES.keys() | LOOKS.keys()
