"""What Ollama's clients ask before they chat."""

from __future__ import annotations

from tests.helpers.api_client import api_of
from tests.unit.test_api_models import played


def test_the_version_is_new_enough_for_those_who_look() -> None:
    major, minor, patch = map(int, api_of().get("/api/version").json()["version"].split("."))
    assert (major, minor, patch) >= (0, 6, 4)


def test_models_are_listed_with_their_sizes() -> None:
    first, second = api_of(**played()).get("/api/tags").json()["models"]
    assert (first["name"], first["model"], first["size"]) == ("smollm2-135m:latest", "smollm2-135m:latest", 98)
    assert first["details"]["parameter_size"] == "135M" and first["modified_at"] == "1970-01-01T00:00:05Z"
    assert len(second["digest"]) == 64


def test_a_model_is_shown_with_its_context_and_what_it_can() -> None:
    api = api_of(**played())
    shown = api.post("/api/show", json={"model": "smollm2-135m:latest"}).json()
    assert shown["model_info"]["llama.context_length"] == 8192 and shown["capabilities"] == ["completion"]
    assert api.post("/api/show", json={"model": "x"}).status_code == 404
    assert api.post("/api/show", json={}).json() == {"error": "model is missing"}


def test_models_in_memory_are_told() -> None:
    api = api_of(**played(), loaded_models=lambda: {"ab" * 32})
    assert [row["name"] for row in api.get("/api/ps").json()["models"]] == ["smollm2-135m:latest"]
