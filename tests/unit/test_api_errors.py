"""Errors as OpenAI's clients understand them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from swarm.api.errors import BadRequest, body_of, response_of
from swarm.errors import ContextFull, DoesNotFit, ModelError, ModelNotFound, TooBusy
from tests.helpers.api_client import api_of, returns
from tests.helpers.played_answer import PlayedAnswer


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


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/v1/chat/completions", {}, {"type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}),
        ("/v1/messages", {"max_tokens": 5}, {"type": "rate_limit_error"}),
        ("/v1/responses", {"input": "hi"}, {"type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}),
        ("/api/chat", {"model": "tiny"}, None),
        ("/completion", {"prompt": "hi"}, {"type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_who_comes_too_late_hears_when_to_come_again(
    path: str, body: dict[str, Any], error: dict[str, Any] | None, stream: bool
) -> None:
    text = "32 chats are waiting already; try again in 7 seconds"

    class Refused(PlayedAnswer):
        async def events(self) -> AsyncGenerator[Any, None]:
            raise TooBusy(text, 6.3)
            yield

    api = api_of(ask=returns(Refused()))
    asked = {"messages": [{"role": "user", "content": "hi"}], "stream": stream, **body}
    reply = api.post(path, json=asked)
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
    assert reply.json()["error"] == (text if error is None else {"message": text, **error})


def test_the_field_that_cannot_be_used_is_named() -> None:
    assert body_of(BadRequest("no", "n")) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "bad_parameter"}
    }
