"""What Ollama's clients ask before they chat: which version, which models, and what each of them can."""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from swarm.api.body import body_json
from swarm.api.errors import BadRequest
from swarm.api.models import TAG, found, listed, time_text
from swarm.node.answerable import Answerable
from swarm.node.node import Node

Json = dict[str, Any]
VERSION = "0.12.6"  # of Ollama's API: clients ask for a least one
NEVER = "2318-01-01T00:00:00Z"  # a model is let go when its room is needed


async def version(request: Request) -> JSONResponse:
    """GET /api/version."""
    return JSONResponse({"version": VERSION})


async def tags(request: Request) -> JSONResponse:
    """GET /api/tags: the models that may be asked for."""
    return JSONResponse({"models": [_row(model) for model in await listed(request)]})


async def running(request: Request) -> JSONResponse:
    """GET /api/ps: the models of which weights are in memory."""
    node: Node = request.app.state.node
    loaded = node.loaded_models()
    rows = [
        {**_row(model), "expires_at": NEVER, "size_vram": 0, "context_length": model.context}
        for model in await listed(request)
        if model.id in loaded
    ]
    return JSONResponse({"models": rows})


async def show(request: Request) -> JSONResponse:
    """POST /api/show: what a model is, and what it can."""
    body = await body_json(request)
    name = body.get("model") or body.get("name")
    if not isinstance(name, str):
        raise BadRequest("model is missing", "model")
    model = await found(request, name)
    family = model.family or "unknown"
    info: Json = {"general.architecture": family, "general.parameter_count": model.parameters}
    if model.context:
        info[f"{family}.context_length"] = model.context
    return JSONResponse(
        {
            "license": "",
            "modelfile": f"FROM {model.name}\n",
            "parameters": "",
            "template": model.template,
            "details": _details(model),
            "model_info": info,
            "capabilities": list(model.capabilities),
            "modified_at": time_text(model.created_at),
        }
    )


async def elsewhere(request: Request) -> JSONResponse:
    """POST /api/create and the like: what is not done here."""
    raise BadRequest(f"{request.url.path} is not supported", status=501, code="not_supported")


def _row(model: Answerable) -> Json:
    return {
        "name": model.name + TAG,
        "model": model.name + TAG,
        "modified_at": time_text(model.created_at),
        "size": model.size_bytes,
        "digest": model.id or hashlib.sha256(model.name.encode()).hexdigest(),
        "details": _details(model),
    }


def _details(model: Answerable) -> Json:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.family,
        "families": [model.family] if model.family else [],
        "parameter_size": model.parameters_text if model.parameters else "",
        "quantization_level": model.quant,
    }
