"""The list of models, and the names by which they are found."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from swarm.api.errors import BadRequest
from swarm.api.models import plain_name
from swarm.errors import ModelNotFound
from swarm.limits import MAX_MODEL_NAME_CHARS
from swarm.node.answerable import Answerable
from tests.helpers.api_client import api_of, returns

MODELS = [
    Answerable("smollm2-135m", 98, created_at=5, context=8192, family="llama", parameters=135_000_000, id="ab" * 32),
    Answerable("glm-4.5-air", 7, capabilities=("completion", "tools")),
]


def played() -> dict[str, Any]:
    library = SimpleNamespace(
        find=lambda name: "ab" * 32 if name == "smol" else None,
        not_found=lambda name, names: ModelNotFound(f"no device here has a model called {name!r}; there is {names[0]}"),
    )
    return {"answerable": returns(MODELS), "library": library}


@pytest.mark.parametrize(
    ("text", "name"),
    [(None, ""), ("m", "m"), ("m:latest", "m"), ("openai/m", "m"), ("a/b/m:latest", "m"), ("/etc/m", "/etc/m")],
)
def test_a_name_is_taken_without_what_clients_put_around_it(text: str | None, name: str) -> None:
    assert plain_name(text) == name


def test_a_name_that_is_too_long_for_any_is_not_looked_for() -> None:
    assert plain_name("a" * MAX_MODEL_NAME_CHARS)
    with pytest.raises(BadRequest, match="4096 characters"):
        plain_name("a" * (MAX_MODEL_NAME_CHARS + 1))


def test_models_are_listed_with_what_clients_look_for() -> None:
    first, second = api_of(**played()).get("/v1/models").json()["data"]
    assert (first["id"], first["created"], first["max_model_len"], first["meta"]["n_ctx"]) == (
        "smollm2-135m",
        5,
        8192,
        8192,
    )
    assert second["capabilities"] == ["completion", "tools"] and "max_model_len" not in second


def test_other_dialects_lists_are_there() -> None:
    api = api_of(**played(), loaded_models=lambda: {"ab" * 32})
    listed = api.get("/v1/models").json()
    assert (listed["first_id"], listed["has_more"]) == ("smollm2-135m", False)
    assert listed["data"][0]["created_at"] == "1970-01-01T00:00:05Z"
    first, second = api.get("/api/v0/models").json()["data"]
    assert (first["state"], second["state"], second["capabilities"]) == ("loaded", "not-loaded", ["tool_use"])


@pytest.mark.parametrize("name", ["smollm2-135m", "SmolLM2-135M.gguf", "openai/smollm2-135m", "smol", "ab" * 32])
def test_a_model_is_found_by_every_name_that_a_chat_would_take(name: str) -> None:
    row = api_of(**played()).get(f"/v1/models/{name}").json()
    assert row["id"] == name and row["meta"]["size"] == 98


def test_an_address_with_a_slash_at_its_end_is_the_list() -> None:
    api = api_of(**played())
    assert api.get("/v1/models/").json() == api.get("/v1/models").json()


def test_a_name_that_nobody_has_is_not_found() -> None:
    reply = api_of(**played()).get("/v1/models/gpt-4")
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "model_not_found"
    assert "there is smollm2-135m" in reply.json()["error"]["message"], "as the list has it"
