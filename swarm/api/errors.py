"""Errors in the shape that OpenAI's clients understand."""

from __future__ import annotations

from starlette.responses import JSONResponse

from swarm.errors import (
    ConfigError,
    ContextFull,
    DoesNotFit,
    DownloadError,
    ModelNotFound,
    ResourceError,
    SwarmError,
    SwarmNetworkError,
    TextError,
)

# The first that matches: HTTP status, type and code.
KINDS: tuple[tuple[type[SwarmError], int, str, str], ...] = (
    (ModelNotFound, 404, "invalid_request_error", "model_not_found"),
    (ContextFull, 400, "invalid_request_error", "context_length_exceeded"),
    (TextError, 400, "invalid_request_error", "bad_prompt"),
    (ConfigError, 400, "invalid_request_error", "bad_parameter"),
    (DoesNotFit, 503, "server_error", "does_not_fit"),
    (ResourceError, 503, "server_error", "out_of_resources"),
    (DownloadError, 503, "server_error", "download_failed"),
    (SwarmNetworkError, 503, "server_error", "swarm_trouble"),
)


class BadRequest(ConfigError):
    """The request is not one that can be answered; `param` names the field."""

    def __init__(self, text: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(text)
        self.param = param
        self.status = status


def body_of(error: SwarmError) -> dict[str, object]:
    """The JSON of an error."""
    _, kind, code = _kind(error)
    param = error.param if isinstance(error, BadRequest) else None
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


def response_of(error: SwarmError) -> JSONResponse:
    """The response for an error."""
    status = error.status if isinstance(error, BadRequest) else _kind(error)[0]
    return JSONResponse(body_of(error), status)


def _kind(error: SwarmError) -> tuple[int, str, str]:
    for kind, status, name, code in KINDS:
        if isinstance(error, kind):
            return status, name, code
    return 500, "server_error", "model_trouble"
