"""What the command line asks of the node on this device: to see is free, all else needs the node's token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from swarm import config
from swarm.api.body import body_json
from swarm.api.errors import BadRequest
from swarm.api.guard import may_change
from swarm.cluster.cost import ModelCost
from swarm.config import HubSettings
from swarm.guessing import MTP
from swarm.limits import MAX_ACTIVE_SESSIONS, MAX_POSITION
from swarm.models.sizes import context_of
from swarm.node.library import Entry
from swarm.node.node import Node

__all__ = ["ROUTES", "Entry"]

Json = dict[str, object]


async def status(request: Request) -> JSONResponse:
    node: Node = request.app.state.node
    return JSONResponse(await node.status.collect())


async def doctor(request: Request) -> JSONResponse:
    node: Node = request.app.state.node
    return JSONResponse({"findings": node.doctor()})


async def files(request: Request) -> JSONResponse:
    node: Node = request.app.state.node
    return JSONResponse(node.files())


async def plan(node: Node, body: Json) -> Json:
    """Where a model would run: one that the swarm has, or one of which the header was read (`cost`)."""
    context = body.get("context", 0)
    if type(context) is not int or not 0 <= context <= MAX_POSITION:
        raise BadRequest(f"context is {context!r:.40}; it must be a whole number", "context")
    chats = body.get("chats", 1)
    if type(chats) is not int or not 1 <= chats <= MAX_ACTIVE_SESSIONS:
        raise BadRequest(f"chats is {chats!r:.40}; it must be 1 to {MAX_ACTIVE_SESSIONS}", "chats")
    add = body.get("add", [])
    if not isinstance(add, list) or not all(isinstance(device, str) for device in add):
        raise BadRequest("add must be a list of devices", "add")
    if "cost" in body:
        try:
            cost = msgspec.convert(body["cost"], ModelCost)
        except msgspec.ValidationError as error:
            raise BadRequest(f"cost is not that of a model ({error})", "cost") from error
        return await node.plan_unknown(cost, add, context, chats)
    return await node.plan(_model_name(body), add, context, chats)


async def model(node: Node, body: Json) -> Json:
    """What somebody means by a model's name; it is fetched if need be."""
    found = await node.find(_model_name(body))
    context = context_of(found.spec, node.settings.context)
    called = next((each.name for each in await node.answerable() if each.id == found.id), found.name)
    return {"id": found.id, "name": called, "context": context, "family": found.spec.family}


async def invite(node: Node, body: Json) -> Json:
    """Open an invitation; `qr` asks for the command of the new device as a QR code: rows of 0 and 1 (dark)."""
    invited = await node.peers.invite()
    told: Json = {"code": invited.code, "port": invited.port, "seconds": invited.seconds}
    if body.get("qr") is True:
        import segno

        code = segno.make(f"swarm join {invited.code}", micro=False)
        told["qr"] = ["".join(map(str, row)) for row in code.matrix]
    return told


async def leave(node: Node, body: Json) -> Json:
    """Say goodbye and end."""
    node.stopping.set()
    return {"left": True, "devices": node.n_others}


async def rekey(node: Node, body: Json) -> Json:
    """Make a new key for everybody but some."""
    without = body.get("without", [])
    if not isinstance(without, list) or not all(isinstance(name, str) and name for name in without):
        raise BadRequest("without must be a list of names", "without")
    result = await node.peers.new_key(without)
    return {"done": list(result.done), "missed": list(result.missed), "shut_out": list(result.shut_out)}


async def serve(node: Node, body: Json) -> Json:
    """Open or close the API for other devices, as the node's home says now."""
    return {"addresses": await node.serve_lan()}


async def add_model(node: Node, body: Json) -> Json:
    """Offer a model file to the swarm."""
    path = body.get("path")
    if not isinstance(path, str) or not path.startswith("/"):
        raise BadRequest("path must be the full path of a GGUF file", "path")
    model = await node.add_file(Path(path))
    return {"id": model, "name": node.library.known[model].name}


async def draft(node: Node, body: Json) -> Json:
    """Let a small model of a file on this device, or the model's own block (`mtp`), guess for a model."""
    path = body.get("path")
    if not isinstance(path, str) or not (path.startswith("/") or path == MTP):
        raise BadRequest("path must be the full path of a GGUF file", "path")
    return {"draft": await node.draft(Path(path), _model_name(body))}


async def remove(node: Node, body: Json) -> Json:
    """Delete a model from this device, or from all of them."""
    path = body.get("path", "")
    if not isinstance(path, str):
        raise BadRequest("path must be a text", "path")
    return await node.remove(_model_name(body), path, everywhere=body.get("everywhere") is True)


async def pull(node: Node, body: Json) -> Json:
    """Pull a model with all devices; by the hub's address and token of whoever asks, or by those of the node."""
    own = config.hub()
    if own.offline and "endpoint" not in body:
        raise BadRequest("this node is told to stay offline (HF_HUB_OFFLINE)", status=503, code="offline")
    endpoint, token = body.get("endpoint", own.endpoint), body.get("token", "" if "endpoint" in body else own.token)
    if not isinstance(endpoint, str) or not isinstance(token, str):
        raise BadRequest("endpoint and token must be texts", "endpoint")
    return await node.house.start(_model_name(body), HubSettings(endpoint, token))


async def pulled(node: Node, body: Json) -> Json:
    """How far such a pull is."""
    number = body.get("pull")
    if not isinstance(number, str):
        raise BadRequest("pull must be a text", "pull")
    return node.house.progress(number)


async def verify(node: Node, body: Json) -> Json:
    """Compare the chunks of this device with their hashes."""
    return await node.verify(_model_name(body))


def _model_name(body: Json) -> str:
    name = body.get("model", "")
    if not isinstance(name, str):
        raise BadRequest(f"model is {name!r:.40}; it must be a name", "model")
    return name


def changes(action: Callable[[Node, Json], Awaitable[Json]]) -> Callable[[Request], Awaitable[JSONResponse]]:
    """A handler that only the node's user may call."""

    async def handle(request: Request) -> JSONResponse:
        if not may_change(request, request.app.state.token):
            raise BadRequest("only the user of this node may do that", status=403)
        return JSONResponse(await action(request.app.state.node, await body_json(request)))

    return handle


ROUTES = [
    Route("/swarm/status", status),
    Route("/swarm/doctor", doctor),
    Route("/swarm/files", files),
    Route("/swarm/remove", changes(remove), methods=["POST"]),
    Route("/swarm/pull", changes(pull), methods=["POST"]),
    Route("/swarm/pulled", changes(pulled), methods=["POST"]),
    Route("/swarm/verify", changes(verify), methods=["POST"]),
    Route("/swarm/plan", changes(plan), methods=["POST"]),
    Route("/swarm/model", changes(model), methods=["POST"]),
    Route("/swarm/invite", changes(invite), methods=["POST"]),
    Route("/swarm/serve", changes(serve), methods=["POST"]),
    Route("/swarm/leave", changes(leave), methods=["POST"]),
    Route("/swarm/rekey", changes(rekey), methods=["POST"]),
    Route("/swarm/models", changes(add_model), methods=["POST"]),
    Route("/swarm/draft", changes(draft), methods=["POST"]),
]
