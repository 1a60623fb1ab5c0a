"""The list of models, and the names by which they are asked for: /v1/models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from swarm.api.errors import BadRequest
from swarm.limits import MAX_MODEL_NAME_CHARS
from swarm.node.answerable import Answerable
from swarm.node.node import Node

Json = dict[str, Any]
TAG = ":latest"  # what Ollama's clients put behind a name


def plain_name(name: str | None) -> str:
    """A model's name as it is known here: without Ollama's tag, and without a provider before it.

    Raise BadRequest for what is too long for any: to look for it would take as long.
    """
    if len(name or "") > MAX_MODEL_NAME_CHARS:
        raise BadRequest(f"model must be a name; it may have {MAX_MODEL_NAME_CHARS} characters", "model")
    name = (name or "").removesuffix(TAG)
    return name.rpartition("/")[2] if "/" in name and not name.startswith(("/", ".", "~")) else name


async def listed(request: Request) -> list[Answerable]:
    """All models that may be asked for."""
    node: Node = request.app.state.node
    return await node.answerable()


async def found(request: Request, name: str) -> Answerable:
    """The listed model that somebody means; raise ModelNotFound when there is none."""
    node: Node = request.app.state.node
    models, name = await listed(request), plain_name(name)
    wanted = name.lower().removesuffix(".gguf")
    for model in models:
        if wanted in (model.name, model.id):
            return model
    meant = node.library.find(name)
    for model in models:
        if meant is not None and model.id == meant:
            return model
    raise node.library.not_found(name, [model.name for model in models])


async def models(request: Request) -> JSONResponse:
    """GET /v1/models."""
    rows = [_row(model) for model in await listed(request)]
    ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]} if rows else {"first_id": None, "last_id": None}
    return JSONResponse({"object": "list", "data": rows, "has_more": False, **ends})


async def lm_studio_models(request: Request) -> JSONResponse:
    """GET /api/v0/models, LM Studio's, which Zed asks for."""
    node: Node = request.app.state.node
    loaded = node.loaded_models()
    rows = [
        {
            "id": model.name,
            "object": "model",
            "type": "llm",
            "publisher": "swarm",
            "arch": model.family,
            "compatibility_type": "gguf",
            "quantization": model.quant,
            "state": "loaded" if model.id in loaded else "not-loaded",
            "max_context_length": model.context,
            "capabilities": ["tool_use"] if "tools" in model.capabilities else [],
        }
        for model in await listed(request)
    ]
    return JSONResponse({"object": "list", "data": rows})


async def model(request: Request) -> JSONResponse:
    """GET /v1/models/NAME, by whatever name a chat with it would take."""
    name = request.path_params["model"]
    if not name:
        return await models(request)  # an address that was put together with a slash too many
    return JSONResponse({**_row(await found(request, name)), "id": name})


def time_text(at: float) -> str:
    """A time as RFC 3339 has it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _row(model: Answerable) -> Json:
    """A model as OpenAI lists it, with what other servers add for their clients."""
    row: Json = {"id": model.name, "object": "model", "created": model.created_at, "owned_by": "swarm"}
    row |= {"type": "model", "display_name": model.name, "created_at": time_text(model.created_at)}  # Anthropic's
    meta: Json = {"size": model.size_bytes, "swarm_id": model.id}
    if model.context:
        row |= {"max_model_len": model.context, "context_length": model.context, "context_window": model.context}
        meta |= {"n_ctx": model.context, "n_ctx_train": model.context, "n_params": model.parameters}
    return {**row, "capabilities": list(model.capabilities), "meta": meta, "default": model.is_default}
