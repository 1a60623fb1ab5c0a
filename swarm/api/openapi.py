"""GET /openapi.json: what the API takes, from the very types that requests are checked against."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse

import swarm
from swarm.api.anthropic import MessagesRequest
from swarm.api.embeddings import EmbeddingsRequest, LlamaEmbedding, OllamaEmbed, OllamaEmbeddings
from swarm.api.llama_completion import InfillRequest, LlamaCompletionRequest
from swarm.api.ollama import OllamaChat, OllamaGenerate
from swarm.api.openai_chat import ChatRequest
from swarm.api.openai_completions import CompletionRequest
from swarm.api.openai_responses import ResponsesRequest

Json = dict[str, Any]
BODIES: dict[str, type[msgspec.Struct]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": MessagesRequest,
    "/completion": LlamaCompletionRequest,
    "/infill": InfillRequest,
    "/api/chat": OllamaChat,
    "/api/generate": OllamaGenerate,
    "/v1/embeddings": EmbeddingsRequest,
    "/api/embed": OllamaEmbed,
    "/api/embeddings": OllamaEmbeddings,
    "/embedding": LlamaEmbedding,
}
# What is asked without a body.
LOOKS = {
    "/health": "Whether the node is there, and which one.",
    "/v1/models": "The models that may be asked for.",
    "/api/version": "The version of Ollama's API.",
    "/api/tags": "The models that may be asked for, for Ollama's clients.",
    "/api/v0/models": "The models that may be asked for, for LM Studio's clients.",
    "/api/ps": "The models of which weights are in memory.",
    "/props": "The default model, for llama-server's clients.",
    "/slots": "The answers that are being given.",
    "/metrics": "Figures for Prometheus.",
}


async def document(request: Request) -> JSONResponse:
    """The whole description."""
    return JSONResponse(description())


@cache
def description() -> Json:
    """As OpenAPI 3.1 has it."""
    kinds = list(dict.fromkeys(BODIES.values()))
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    bodies = dict(zip(kinds, schemas, strict=True))
    paths: Json = {path: {"post": _posted(kind, bodies[kind])} for path, kind in BODIES.items()}
    paths |= {path: {"get": {"summary": text, "responses": _FINE}} for path, text in LOOKS.items()}
    info = {"title": "Swarm", "version": swarm.__version__, "description": "The local API of a node; see docs/api.md."}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": components}}


_FINE = {"200": {"description": "JSON; a stream where `stream` is true"}}


def _posted(kind: type[msgspec.Struct], schema: Json) -> Json:
    return {
        "summary": (kind.__doc__ or "").partition("\n")[0],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {**_FINE, "400": {"description": "A field cannot be used; the text names it"}},
    }
