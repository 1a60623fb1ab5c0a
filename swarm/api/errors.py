"""Errors in the shape that OpenAI's clients understand."""

from __future__ import annotations

from collections.abc import Mapping

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

RETRY_AFTER_S = 2  # what was busy or missing is tried again after so long


class BadRequest(ConfigError):
    """The request is not one that can be answered; `param` names the field."""

    def __init__(self, text: str, param: str | None = None, status: int = 400, *, code: str = "bad_parameter") -> None:
        super().__init__(text)
        self.param = param
        self.status = status
        self.code = code


def body_of(error: SwarmError) -> dict[str, object]:
    """The JSON of an error."""
    _, kind, code = _kind(error)
    if isinstance(error, BadRequest):
        return _body(str(error), "server_error" if error.status >= 500 else kind, error.param, error.code)
    return _body(str(error), kind, None, code)


def response_of(error: SwarmError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response for an error; 503 tells when to come again."""
    status = error.status if isinstance(error, BadRequest) else _kind(error)[0]
    again = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else {}
    return JSONResponse(body_of(error), status, headers={**again, **(headers or {})})


def bug_response(error: Exception) -> JSONResponse:
    """The response where something of ours failed."""
    return JSONResponse(_body(f"a bug in Swarm: {type(error).__name__}", "server_error", None, "bug"), 500)


def _body(text: str, kind: str, param: str | None, code: str) -> dict[str, object]:
    return {"error": {"message": text, "type": kind, "param": param, "code": code}}


def _kind(error: SwarmError) -> tuple[int, str, str]:
    for kind, status, name, code in KINDS:
        if isinstance(error, kind):
            return status, name, code
    return 500, "server_error", "model_trouble"
