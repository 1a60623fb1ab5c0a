"""Errors, in the shape and in the words that the clients of each dialect look for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

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
    TooBusy,
)

Json = dict[str, object]
# The first that matches: HTTP status, type and code.
KINDS: tuple[tuple[type[SwarmError], int, str, str], ...] = (
    (ModelNotFound, 404, "invalid_request_error", "model_not_found"),
    (ContextFull, 400, "invalid_request_error", "context_length_exceeded"),
    (TextError, 400, "invalid_request_error", "bad_prompt"),
    (ConfigError, 400, "invalid_request_error", "bad_parameter"),
    (TooBusy, 429, "rate_limit_error", "rate_limit_exceeded"),
    (DoesNotFit, 503, "server_error", "does_not_fit"),
    (ResourceError, 503, "server_error", "out_of_resources"),
    (DownloadError, 503, "server_error", "download_failed"),
    (SwarmNetworkError, 503, "server_error", "swarm_trouble"),
)
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}

RETRY_AFTER_S = 2  # what was busy or missing is tried again after so long


class BadRequest(ConfigError):
    """The request is not one that can be answered; `param` names the field."""

    def __init__(self, text: str, param: str | None = None, status: int = 400, *, code: str = "bad_parameter") -> None:
        super().__init__(text)
        self.param = param
        self.status = status
        self.code = code


def status_of(error: SwarmError) -> int:
    """The HTTP status of an error."""
    return error.status if isinstance(error, BadRequest) else _kind(error)[0]


def body_of(error: SwarmError) -> Mapping[str, object]:
    """An error as OpenAI's clients know it."""
    _, kind, code = _kind(error)
    if isinstance(error, BadRequest):
        return _body(str(error), "server_error" if error.status >= 500 else kind, error.param, error.code)
    if isinstance(error, ContextFull) and error.context:
        # litellm, aider and LangChain tell this from other errors by the words or by the code, others by the numbers.
        text = (
            f"This model's maximum context length is {error.context} tokens, but the request has {error.n_tokens}: "
            "it exceeds the available context size; start anew, shorten it, or raise the context"
        )
        body = _body(text, kind, "messages", code)
        body["error"] |= {"n_prompt_tokens": error.n_tokens, "n_ctx": error.context}
        return body
    return _body(str(error), kind, None, code)


def anthropic_body(error: SwarmError) -> Json:
    """An error as Anthropic's clients know it."""
    text = str(error)
    if isinstance(error, ContextFull) and error.context:
        text = f"prompt is too long: {error.n_tokens} tokens > {error.context} maximum"
    kind = ANTHROPIC_TYPES.get(status_of(error), "api_error")
    return {"type": "error", "error": {"type": kind, "message": text}}


def ollama_body(error: SwarmError) -> Json:
    """An error as Ollama's clients know it: a text."""
    return {"error": str(error)}


SHAPES: tuple[tuple[str, Callable[[SwarmError], Mapping[str, object]]], ...] = (
    ("/v1/messages", anthropic_body),
    ("/api/", ollama_body),
    ("", body_of),
)


def response_of(error: SwarmError, path: str = "", headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response for an error, in the shape of the dialect that is spoken at `path`.

    Status 503, and 429 as it was measured, tell when to come again.
    """
    status = status_of(error)
    retry_s = error.retry_s if isinstance(error, TooBusy) else RETRY_AFTER_S
    again = {"retry-after": str(math.ceil(retry_s))} if status in (429, 503) else {}
    shape = next(shape for beginning, shape in SHAPES if path.startswith(beginning))
    return JSONResponse(shape(error), status, headers={**again, **(headers or {})})


def bug_of(error: Exception) -> BadRequest:
    """What is said where something of ours failed."""
    return BadRequest(f"a bug in Swarm: {type(error).__name__}", status=500, code="bug")


def _body(text: str, kind: str, param: str | None, code: str) -> dict[str, dict[str, object]]:
    return {"error": {"message": text, "type": kind, "param": param, "code": code}}


def _kind(error: SwarmError) -> tuple[int, str, str]:
    for kind, status, name, code in KINDS:
        if isinstance(error, kind):
            return status, name, code
    return 500, "server_error", "model_trouble"
