"""llama-server's own routes: what a model is given, in text and in tokens, and how busy the node is."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

import swarm
from swarm.api.body import body_json, parsed_body
from swarm.api.errors import BadRequest
from swarm.api.metrics import exposition
from swarm.api.models import plain_name
from swarm.api.openai_chat import parse_chat
from swarm.limits import MAX_ACTIVE_SESSIONS, MAX_TOKENIZED_CHARS
from swarm.node.library import KnownModel
from swarm.node.node import Node
from swarm.text.tokenizer import Tokenizer

Json = dict[str, Any]


async def props(request: Request) -> JSONResponse:
    """GET /props: the default model, or the one that `?model=` names, if it is at hand: this costs nothing."""
    node: Node = request.app.state.node
    models = await node.answerable()
    wanted = plain_name(request.query_params.get("model"))
    model = next((each for each in models if each.name == wanted or (not wanted and each.is_default)), None)
    context = model.context if model is not None else 0
    return JSONResponse(
        {
            "default_generation_settings": {"n_ctx": context, "params": {}},
            "total_slots": MAX_ACTIVE_SESSIONS,
            "model_alias": model.name if model is not None else "",
            "model_path": model.name if model is not None else "",
            "chat_template": model.template if model is not None else "",
            "modalities": {"vision": False, "audio": False},
            "build_info": f"swarm {swarm.__version__}",
        }
    )


async def slots(request: Request) -> JSONResponse:
    """GET /slots: the answers that are being given, and the free places."""
    node: Node = request.app.state.node
    busy = [
        {
            "id": i,
            "is_processing": True,
            "n_ctx": answer.context,
            "n_prompt_tokens": len(answer.prompt),
            "n_decoded": len(answer.tokens),
            "model": answer.model.name,
        }
        for i, answer in enumerate(node.questions.answers.values())
    ]
    free = [{"id": i, "is_processing": False} for i in range(len(busy), MAX_ACTIVE_SESSIONS)]
    return JSONResponse([*busy, *free])


async def metrics(request: Request) -> PlainTextResponse:
    """GET /metrics: figures for Prometheus."""
    node: Node = request.app.state.node
    return PlainTextResponse(exposition(node), media_type="text/plain; version=0.0.4; charset=utf-8")


async def tokenize(request: Request) -> Response:
    """POST /tokenize: the ids of a text, and what each stands for where `with_pieces` asks."""
    body = await body_json(request)
    content = body.get("content", "")
    if not isinstance(content, str):
        raise BadRequest("content must be a text", "content")
    if len(content) > MAX_TOKENIZED_CHARS:
        text = f"content has {len(content)} characters; the most is {MAX_TOKENIZED_CHARS}: send it in parts"
        raise BadRequest(text, "content", status=413)
    tokenizer = (await _model(request, body)).tokenizer
    return Response(await asyncio.to_thread(_tokenized, tokenizer, content, body), media_type="application/json")


def _tokenized(tokenizer: Tokenizer, content: str, body: Json) -> bytes:
    """The reply's JSON: half a million tokens are made into text at once, so that takes the quickest way."""
    is_special = body.get("parse_special") is not False
    tokens = tokenizer.encode(content, special=is_special, add_bos=bool(body.get("add_special")))
    if not body.get("with_pieces"):
        return msgspec.json.encode({"tokens": tokens})
    return msgspec.json.encode({"tokens": [{"id": i, "piece": tokenizer.decode([i], special=True)} for i in tokens]})


async def detokenize(request: Request) -> JSONResponse:
    """POST /detokenize: the text of ids."""
    body = await body_json(request)
    tokens = body.get("tokens", [])
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise BadRequest("tokens must be a list of token ids", "tokens")
    model = await _model(request, body)
    model.text.check(tokens)
    return JSONResponse({"content": await asyncio.to_thread(model.tokenizer.decode, tokens, True)})


async def apply_template(request: Request) -> JSONResponse:
    """POST /apply-template: a conversation as the text that the model would be given."""
    body, wanted = await parsed_body(request, lambda body: (body, parse_chat(body)))
    question = wanted.questions[0]
    model = await _model(request, body)
    template = model.text.template
    if template is None:
        raise BadRequest(f"{model.name} has no chat template", "model")
    rendered = await asyncio.to_thread(
        lambda: template.render(question.messages, tools=question.tools, thinking=question.thinking)
    )
    return JSONResponse({"prompt": rendered.text})


async def _model(request: Request, body: Json) -> KnownModel:
    node: Node = request.app.state.node
    name = body.get("model")
    if not isinstance(name, str | None):
        raise BadRequest("model must be a name", "model")
    model = await node.find(plain_name(name))
    await asyncio.to_thread(lambda: model.text)  # slow the first time
    return model
