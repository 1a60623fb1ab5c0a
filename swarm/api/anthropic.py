"""Anthropic's messages: /v1/messages, which Claude Code and its like speak."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse

from swarm.answers import Channel, EndReason, Piece
from swarm.api.body import parsed_body
from swarm.api.dialect import EVENT_STREAM, Gathered, Json, Wanted, has_called, sse, to_json
from swarm.api.errors import BadRequest, anthropic_body
from swarm.api.fields import SamplingRequest, converted, length_of, params_of, refuse, stops_of
from swarm.api.forms import form_of
from swarm.api.models import plain_name
from swarm.errors import SwarmError
from swarm.node.answer import Answer, Note, Question, Reading
from swarm.node.node import Node
from swarm.text.bounded_json import parse_json
from swarm.text.tools import AUTO, ToolChoice

DEMANDS = {"mcp_servers": "give their tools as tools", "container": "nothing runs here beside the model"}


class MessagesRequest(msgspec.Struct, kw_only=True):
    """A conversation that is to be answered. Fields that are not listed change nothing."""

    messages: list[dict[str, Any]]
    model: str | None = None
    max_tokens: int | None = None
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None


def parse_messages(body: Json) -> Wanted:
    """A request of /v1/messages; raise BadRequest naming the field that cannot be used."""
    refuse(body, DEMANDS)
    request = converted(body, MessagesRequest)
    sampling = SamplingRequest(temperature=request.temperature, top_p=request.top_p, top_k=request.top_k)
    kind = (request.tool_choice or {}).get("type")
    question = Question(
        model=plain_name(request.model),
        messages=messages_of(request),
        params=params_of(sampling),
        max_tokens=length_of("max_tokens", request.max_tokens, 1),
        stop=stops_of(request.stop_sequences),
        thinking=_thinking(request.thinking),
        tools=tools_of(request) if kind != "none" else None,
        tool_choice=_choice(request),
        form=form_of({}, request.output_format or (request.output_config or {}).get("format"), "output_format"),
    )
    return Wanted([question], bool(request.stream), MessagesReply(request.model or ""))


def messages_of(request: MessagesRequest) -> list[Json]:
    """The conversation as OpenAI writes it: results of functions are messages of their own."""
    if not request.messages:
        raise BadRequest("messages must be a list of objects with role and content", "messages")
    system = _text_of("system", request.system) if request.system else ""
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    for i, message in enumerate(request.messages):
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            raise BadRequest(f"messages[{i}] has the role {role!r:.40}; it must be user or assistant", "messages")
        if isinstance(content, str):
            messages.append({"role": role, "content": content})
        elif isinstance(content, list):
            messages += _blocks(i, role, content)
        else:
            raise BadRequest(f"messages[{i}] has no content", "messages")
    return messages


def _blocks(i: int, role: str, blocks: Sequence[Any]) -> list[Json]:
    results: list[Json] = []
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Json] = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "text":
            texts.append(str(block.get("text", "")))
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking", "")))
        elif kind == "redacted_thinking":
            continue  # nobody but its author can read it
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": block.get("input") or {}}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "tool_result":
            content = _text_of(f"messages[{i}]", block.get("content") or "")
            results.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content})
        else:
            raise BadRequest(f"messages[{i}] has a block of type {kind!r:.40}; this model reads text only", "messages")
    if not texts and not calls and results:
        return results
    message: Json = {"role": role, "content": "\n".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return [*results, message]


def _text_of(where: str, content: object) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for block in content if isinstance(content, list) else [None]:
        if not isinstance(block, Mapping) or block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise BadRequest(f"{where} must be a text, or a list of blocks of text", where.partition("[")[0])
        texts.append(block["text"])
    return "\n".join(texts)


def tools_of(request: MessagesRequest) -> list[Json] | None:
    """The functions on offer as OpenAI writes them."""
    tools = []
    for tool in request.tools or ():
        if not isinstance(tool.get("name"), str) or (tool.get("type") not in (None, "custom")):
            kind = f"type {tool.get('type')!r:.40}" if "type" in tool else "no name"
            raise BadRequest(f"tools has one with {kind}; only functions of your own can be called", "tools")
        function = {"name": tool["name"], "parameters": tool.get("input_schema") or {}}
        if isinstance(tool.get("description"), str):
            function["description"] = tool["description"]
        tools.append({"type": "function", "function": function})
    return tools or None


def _choice(request: MessagesRequest) -> ToolChoice:
    value = request.tool_choice or {}
    names = [tool.get("name") for tool in request.tools or ()]
    match value.get("type"):
        case None | "auto" | "none":
            choice = AUTO
        case "any" if names:
            choice = ToolChoice(required=True)
        case "tool" if value.get("name") in names:
            choice = ToolChoice(required=True, name=str(value["name"]))
        case _:
            raise BadRequest(f"tool_choice is {value!r:.80}; it must be auto, any, none or one of tools", "tool_choice")
    return replace(choice, parallel=not value.get("disable_parallel_tool_use"))


def _thinking(value: Mapping[str, Any] | None) -> bool | None:
    return {"enabled": True, "adaptive": True, "disabled": False}.get((value or {}).get("type", ""))


async def count_tokens(request: Request) -> JSONResponse:
    """POST /v1/messages/count_tokens: how long a prompt would be."""
    node: Node = request.app.state.node
    (question,) = (await parsed_body(request, parse_messages)).questions
    return JSONResponse({"input_tokens": len((await node.prompt(question)).ids)})


_BLOCKS: dict[Channel, tuple[str, Json]] = {
    Channel.ANSWER: ("text_delta", {"type": "text", "text": ""}),
    Channel.THINKING: ("thinking_delta", {"type": "thinking", "thinking": "", "signature": ""}),
    Channel.CALL: ("input_json_delta", {"type": "tool_use"}),
}
_DELTA_FIELD = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class MessagesReply:
    """A message of blocks: text, thinking, uses of tools."""

    media_type = EVENT_STREAM
    silence = b'event: ping\ndata: {"type": "ping"}\n\n'

    def __init__(self, model: str) -> None:
        self._id = "msg_" + secrets.token_hex(12)
        self._model = model
        self._n_blocks = 0
        self._block: tuple[Channel, int] | None = None

    def begin(self, index: int, answer: Answer) -> bytes:
        """The event before the first block."""
        self._model = self._model or answer.model.name
        message = self._message([], answer, None)
        return _event({"type": "message_start", "message": message}) + self.silence

    def piece(self, index: int, answer: Answer, piece: Piece) -> bytes:
        """The events of a piece: a block may end, another begin, and one gets longer."""
        out = b""
        if self._block != (piece.channel, piece.call):
            out = self._end_block() + self._begin_block(piece)
        kind = _BLOCKS[piece.channel][0]
        if not piece.text:
            return out
        delta = {"type": kind, _DELTA_FIELD[kind]: piece.text}
        return out + _event({"type": "content_block_delta", "index": self._n_blocks, "delta": delta})

    def quiet(self, event: Note | Reading) -> bytes:
        return b""

    def end(self, index: int, answer: Answer) -> bytes:
        """The event that ends the last block."""
        return self._end_block()

    def close(self, answers: Sequence[Answer]) -> bytes:
        """Why it ended, and what it took."""
        (answer,) = answers
        delta = {"stop_reason": stop_reason(answer), "stop_sequence": answer.stop_string}
        ended = _event({"type": "message_delta", "delta": delta, "usage": _usage(answer)})
        return ended + _event({"type": "message_stop"})

    def error(self, error: SwarmError) -> bytes:
        """In place of all that would follow."""
        return _event(dict(anthropic_body(error)))

    def whole(self, gathered: Sequence[Gathered]) -> Json:
        """The response when nothing is streamed."""
        (only,) = gathered
        self._model = self._model or only.answer.model.name
        blocks: list[Json] = []
        if only.thinking:
            blocks.append({"type": "thinking", "thinking": only.thinking, "signature": ""})
        if only.text or not only.calls:
            blocks.append({"type": "text", "text": only.text})
        for call in only.calls:
            blocks.append({**self._tool_use(call.name), "input": _object(call.arguments)})
        return self._message(blocks, only.answer, stop_reason(only.answer))

    # --- within

    def _begin_block(self, piece: Piece) -> bytes:
        self._block = (piece.channel, piece.call)
        block = dict(_BLOCKS[piece.channel][1])
        if piece.channel is Channel.CALL:
            block = {**self._tool_use(piece.name), "input": {}}
        return _event({"type": "content_block_start", "index": self._n_blocks, "content_block": block})

    def _end_block(self) -> bytes:
        if self._block is None:
            return b""
        self._block, self._n_blocks = None, self._n_blocks + 1
        return _event({"type": "content_block_stop", "index": self._n_blocks - 1})

    def _tool_use(self, name: str) -> Json:
        return {"type": "tool_use", "id": "toolu_" + secrets.token_hex(12), "name": name}

    def _message(self, blocks: list[Json], answer: Answer, reason: str | None) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": blocks,
            "stop_reason": reason,
            "stop_sequence": answer.stop_string,
            "usage": _usage(answer),
        }


def stop_reason(answer: Answer) -> str:
    """Why an answer ended, in Anthropic's words."""
    if has_called(answer):
        return "tool_use"
    if answer.stop_string is not None:
        return "stop_sequence"
    if answer.finish_reason is EndReason.CONTEXT:
        return "model_context_window_exceeded"
    return "max_tokens" if answer.finish_reason is EndReason.LENGTH else "end_turn"


def _usage(answer: Answer) -> Json:
    stats = answer.stats
    return {
        "input_tokens": stats.prompt_tokens - stats.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": stats.cached_tokens,
        "output_tokens": stats.generated_tokens,
    }


def _object(arguments: str) -> object:
    try:
        return parse_json(arguments)
    except ValueError:  # cut off
        return {}


def _event(value: Json) -> bytes:
    return sse(to_json(value), value["type"])
