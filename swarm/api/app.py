"""The routes of the local API. Handlers only translate: the node answers.

GET  /health                          is the node there, and which one
GET  /v1/models                       the models that may be asked for
POST /v1/chat/completions, completions, responses, embeddings  OpenAI's
POST /v1/messages                     Anthropic's
GET, POST /api/...                    Ollama's
GET, POST /props, /tokenize, ...      llama-server's
GET  /metrics, /openapi.json          figures, and what all of this takes
GET  /, /page/..., /swarm/events      the page, and the state of the swarm as it changes (page/)
GET  /swarm/status, /swarm/doctor     for the command line
POST /swarm/...                       what changes or costs something; only with the node's token (control.py)

A GET changes nothing and costs nothing: web pages can send one to anybody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from swarm.api import (
    anthropic,
    control,
    docs_page,
    embeddings,
    llama_completion,
    llama_server,
    models,
    ollama,
    ollama_models,
    ollama_pull,
    openai_chat,
    openai_completions,
    openai_responses,
    openapi,
    resuming,
)
from swarm.api.answering import EARLY_S, respond
from swarm.api.body import parsed_body
from swarm.api.dialect import Json, Wanted
from swarm.api.errors import BadRequest, response_of
from swarm.api.guard import Door
from swarm.api.page.routes import ROUTES as PAGE_ROUTES
from swarm.errors import SwarmError
from swarm.node.node import Node

EVENTS_HEADER = "x-swarm-events"  # our own clients ask for the quiet lines, too
Handler = Callable[[Request], Awaitable[Response]]


def make_app(node: Node, token: str) -> Starlette:
    """The application of a node; `token` is what changes need."""

    def report(error: Exception) -> None:
        node.events.bug(error)

    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Door, token=token, report=report)],
        exception_handlers={SwarmError: _on_error, HTTPException: _on_http_error},
    )
    app.router.redirect_slashes = False
    app.state.node, app.state.token = node, token
    return app


async def health(request: Request) -> JSONResponse:
    node: Node = request.app.state.node
    return JSONResponse({"status": "ok", "peer": node.peer, "name": node.name, "devices": 1 + node.n_others})


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    return await _for_openai(request, openai_chat.parse_chat)


async def completion(request: Request) -> Response:
    """POST /v1/completions."""
    return await _for_openai(request, openai_completions.parse_completion)


async def _for_openai(request: Request, parse: Callable[..., Wanted]) -> Response:
    for_us = request.headers.get(EVENTS_HEADER) is not None
    wanted = await parsed_body(request, lambda body: parse(body, for_us=for_us))
    return await respond(request, wanted, patience_s=0.0 if for_us else EARLY_S)


def answers(parse: Callable[[Json], Wanted]) -> Handler:
    """A handler that answers what `parse` makes of a request."""

    async def handle(request: Request) -> Response:
        return await respond(request, await parsed_body(request, parse))

    return handle


def ollama_answers(parse: Callable[[Json], Wanted], *, is_chat: bool) -> Handler:
    """The same for Ollama's clients, who may ask nothing, to have a model loaded."""

    async def handle(request: Request) -> Response:
        body, wanted = await parsed_body(request, lambda body: (body, None if ollama.loads_only(body) else parse(body)))
        if wanted is not None:
            return await respond(request, wanted)
        await models.found(request, str(body.get("model") or ""))
        return JSONResponse(ollama.loaded(body, is_chat=is_chat))

    return handle


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SwarmError)
    return response_of(error, request.url.path)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path}: {error.detail.lower()}"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return response_of(BadRequest(text, status=error.status_code, code=code), request.url.path, error.headers)


def _get(path: str, handler: Handler) -> Route:
    return Route(path, handler, methods=["GET"])


def _post(path: str, handler: Handler) -> Route:
    return Route(path, handler, methods=["POST"])


ROUTES = [
    _get("/health", health),
    _get("/v1/health", health),
    _get("/v1/models", models.models),
    _get("/models", models.models),
    _get("/v1/models/{model:path}", models.model),
    _post("/v1/chat/completions", chat),
    _post("/chat/completions", chat),
    _post("/v1/completions", completion),
    _post("/completions", completion),
    _post("/v1/responses", answers(openai_responses.parse_responses)),
    _post("/responses", answers(openai_responses.parse_responses)),
    _get("/v1/streams/{name}", resuming.resume),
    Route("/v1/streams/{name}", resuming.end, methods=["DELETE"]),
    _post("/v1/embeddings", embeddings.openai),
    _post("/v1/messages", answers(anthropic.parse_messages)),
    _post("/v1/messages/count_tokens", anthropic.count_tokens),
    _get("/api/version", ollama_models.version),
    _get("/api/tags", ollama_models.tags),
    _get("/api/v0/models", models.lm_studio_models),
    _get("/api/ps", ollama_models.running),
    _post("/api/show", ollama_models.show),
    _post("/api/chat", ollama_answers(ollama.parse_chat, is_chat=True)),
    _post("/api/generate", ollama_answers(ollama.parse_generate, is_chat=False)),
    _post("/api/pull", ollama_pull.pull),
    Route("/api/delete", ollama_pull.delete, methods=["DELETE", "POST"]),
    *[_post(f"/api/{name}", ollama_models.elsewhere) for name in ("create", "copy", "push")],
    _post("/api/embed", embeddings.ollama),
    _post("/api/embeddings", embeddings.ollama_old),
    _post("/embedding", embeddings.llama),
    _post("/embeddings", embeddings.llama),
    _post("/completion", answers(llama_completion.parse_llama_completion)),
    _post("/infill", answers(llama_completion.parse_infill)),
    _get("/props", llama_server.props),
    _get("/slots", llama_server.slots),
    _get("/metrics", llama_server.metrics),
    _post("/tokenize", llama_server.tokenize),
    _post("/detokenize", llama_server.detokenize),
    _post("/apply-template", llama_server.apply_template),
    _get("/openapi.json", openapi.document),
    _get("/docs", docs_page.docs),
    *control.ROUTES,
    *PAGE_ROUTES,
]
