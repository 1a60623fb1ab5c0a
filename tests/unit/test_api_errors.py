"""Errors as OpenAI's clients understand them."""

from __future__ import annotations

import pytest

from swarm.api.errors import BadRequest, body_of, response_of
from swarm.errors import ContextFull, DoesNotFit, ModelError, ModelNotFound


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ModelNotFound("no"), 404, "model_not_found"),
        (ContextFull("no"), 400, "context_length_exceeded"),
        (DoesNotFit("no"), 503, "does_not_fit"),
        (BadRequest("no", "n", 413), 413, "bad_parameter"),
        (ModelError("no"), 500, "model_trouble"),
    ],
)
def test_errors_have_openais_shape(error: Exception, status: int, code: str) -> None:
    assert response_of(error).status_code == status  # type: ignore[arg-type]
    body = body_of(error)["error"]  # type: ignore[arg-type]
    assert body["code"] == code and body["message"] == "no"  # type: ignore[index]


def test_the_field_that_cannot_be_used_is_named() -> None:
    assert body_of(BadRequest("no", "n")) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "bad_parameter"}
    }
