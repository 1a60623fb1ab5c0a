"""OpenAI's responses: /v1/responses, the successor of chats. Nothing is kept: each request brings its conversation."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swarm.answers import Channel, EndReason, Piece
from swarm.api.dialect import EVENT_STREAM, STILL_AT_IT, Gathered, Json, Wanted, sse
from swarm.api.errors import BadRequest, body_of
from swarm.api.fields import SamplingRequest, converted, length_of, params_of, refuse
from swarm.api.forms import form_of
from swarm.api.models import plain_name
from swarm.api.openai_chat import tool_choice
from swarm.api.openai_reply import usage
from swarm.errors import SwarmError
from swarm.node.answer import Answer, Note, Question, Reading

DEMANDS = {
    "previous_response_id": "responses are not kept here: send the whole conversation as input",
    "conversation": "conversations are not kept here: send the whole of it as input",
    "background": "wait for the response, or stream it",
    "prompt": "stored prompts are not kept here: send the text as instructions",
}


class ResponsesRequest(SamplingRequest, kw_only=True):
    """A conversation as a list of items, or a text. Fields that are not listed change nothing."""

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None


def parse_responses(body: Json) -> Wanted:
    """A request of /v1/responses; raise BadRequest naming the field that cannot be used."""
    refuse(body, DEMANDS)
    request = converted(body, ResponsesRequest)
    tools = [_tool(tool) for tool in request.tools or ()]
    choice = tool_choice(request.tool_choice, tools)
    question = Question(
        model=plain_name(request.model),
        messages=messages_of(request),
        params=params_of(request),
        max_tokens=length_of("max_output_tokens", request.max_output_tokens, 1),
        thinking=False if (request.reasoning or {}).get("effort") == "none" else None,
        tools=(tools or None) if request.tool_choice != "none" else None,
        tool_choice=replace(choice, parallel=request.parallel_tool_calls is not False),
        form=form_of({}, (request.text or {}).get("format"), "text"),
    )
    return Wanted([question], bool(request.stream), ResponsesReply(request))


def messages_of(request: ResponsesRequest) -> list[Json]:
    """The conversation as messages; items of kinds that nobody here can read are refused."""
    messages: list[Json] = [{"role": "developer", "content": request.instructions}] if request.instructions else []
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    thought = ""
    for item in request.input:
        kind = item.get("type", "message")
        if kind == "message":
            messages.append({"role": item.get("role", "user"), "content": item.get("content")})
        elif kind == "function_call":
            _add_call(messages, item)
        elif kind == "function_call_output":
            output = item.get("output")
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        elif kind == "reasoning":
            thought = _text_of(item.get("content") or item.get("summary"))
            continue
        else:
            raise BadRequest(f"input has an item of type {kind!r:.40}, which is not supported; leave it out", "input")
        if thought and messages[-1]["role"] == "assistant":
            messages[-1].setdefault("reasoning_content", thought)
            thought = ""
    if not messages:
        raise BadRequest("input must be a text, or a list of items", "input")
    return messages


def _add_call(messages: list[Json], item: Mapping[str, Any]) -> None:
    """Calls of one turn come as items of their own; in a message they are together."""
    call = {
        "id": item.get("call_id"),
        "type": "function",
        "function": {"name": item.get("name"), "arguments": item.get("arguments", "{}")},
    }
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _text_of(parts: object) -> str:
    if isinstance(parts, str):
        return parts
    texts = [part.get("text", "") for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
    return "\n".join(text for text in texts if isinstance(text, str))


def _tool(tool: Mapping[str, Any]) -> Json:
    """A function here has its name beside its type, not within."""
    if tool.get("type") != "function":
        raise BadRequest(f"tools has one of type {tool.get('type')!r:.40}; only functions can be called here", "tools")
    return {"type": "function", "function": {name: tool[name] for name in tool if name not in ("type", "strict")}}


@dataclass
class Item:
    """An item of the output in the making."""

    channel: Channel
    call: int
    id: str
    name: str = ""
    text: str = ""

    def told(self, status: str) -> Json:
        """The item as it is now."""
        if self.channel is Channel.CALL:
            call_id = self.id.replace("fc_", "call_")
            called = {"call_id": call_id, "name": self.name, "arguments": self.text}
            return {"id": self.id, "type": "function_call", "status": status, **called}
        if self.channel is Channel.THINKING:
            content = [{"type": "reasoning_text", "text": self.text}] if self.text else []
            return {"id": self.id, "type": "reasoning", "summary": [], "content": content, "status": status}
        content = [self.part()] if status == "completed" else []
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": content}

    def part(self) -> Json:
        """The one part of a message."""
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}


_IDS = {Channel.ANSWER: "msg_", Channel.THINKING: "rs_", Channel.CALL: "fc_"}
# The names of the events that tell of text, by channel.
_DELTAS = {
    Channel.ANSWER: "response.output_text",
    Channel.THINKING: "response.reasoning_text",
    Channel.CALL: "response.function_call_arguments",
}


class ResponsesReply:
    """A response: items of output, and in a stream an event for each step of their making."""

    media_type = EVENT_STREAM
    silence = STILL_AT_IT

    def __init__(self, request: ResponsesRequest) -> None:
        self._request = request
        self._id = "resp_" + secrets.token_hex(16)
        self._created = int(time.time())
        self._model = request.model or ""
        self._items: list[Item] = []
        self._n_events = 0

    def begin(self, index: int, answer: Answer) -> bytes:
        """The events before the first item."""
        self._model = self._model or answer.model.name
        response = self._response("in_progress", None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def piece(self, index: int, answer: Answer, piece: Piece) -> bytes:
        """The events of a piece: an item may end, another begin, and one gets longer."""
        before = self._items[-1] if self._items else None
        out = b""
        if before is None or (before.channel, before.call) != (piece.channel, piece.call):
            out += self._end_item() + self._begin_item(piece)
        item = self._items[-1]
        item.text += piece.text
        return out + (self._tell(item, "delta", delta=piece.text) if piece.text else b"")

    def quiet(self, event: Note | Reading) -> bytes:
        return b""

    def end(self, index: int, answer: Answer) -> bytes:
        """The events that end the last item."""
        return self._end_item()

    def close(self, answers: Sequence[Answer]) -> bytes:
        """The event with the whole response."""
        response = self._response(_status(answers[0]), answers[0])
        return self._event(
            "response.completed" if response["status"] == "completed" else "response.incomplete", response=response
        )

    def error(self, error: SwarmError) -> bytes:
        """In place of all that would follow."""
        told: Any = body_of(error)["error"]
        response = {**self._response("failed", None), "error": {"code": told["code"], "message": told["message"]}}
        return self._event("response.failed", response=response)

    def whole(self, gathered: Sequence[Gathered]) -> Json:
        """The response when nothing is streamed."""
        (only,) = gathered
        self._model = self._model or only.answer.model.name
        if only.thinking:
            self._items.append(self._new_item(Channel.THINKING, text=only.thinking))
        if only.text or not only.calls:
            self._items.append(self._new_item(Channel.ANSWER, text=only.text))
        self._items += [self._new_item(Channel.CALL, i, c.name, c.arguments) for i, c in enumerate(only.calls)]
        return self._response(_status(only.answer), only.answer)

    # --- within

    def _new_item(self, channel: Channel, call: int = 0, name: str = "", text: str = "") -> Item:
        return Item(channel, call, _IDS[channel] + secrets.token_hex(12), name, text)

    def _begin_item(self, piece: Piece) -> bytes:
        item = self._new_item(piece.channel, piece.call, piece.name)
        self._items.append(item)
        out = self._event("response.output_item.added", output_index=self._index, item=item.told("in_progress"))
        return out + (self._part(item, "added") if item.channel is Channel.ANSWER else b"")

    def _end_item(self) -> bytes:
        if not self._items:
            return b""
        item = self._items[-1]
        ended = {"arguments": item.text} if item.channel is Channel.CALL else {"text": item.text}
        out = self._tell(item, "done", **ended)
        if item.channel is Channel.ANSWER:
            out += self._part(item, "done")
        return out + self._event("response.output_item.done", output_index=self._index, item=item.told("completed"))

    def _tell(self, item: Item, what: str, **values: Any) -> bytes:
        place = {} if item.channel is Channel.CALL else {"content_index": 0}
        extra: Json = {"logprobs": []} if item.channel is Channel.ANSWER else {}
        name = f"{_DELTAS[item.channel]}.{what}"
        return self._event(name, item_id=item.id, output_index=self._index, **place, **values, **extra)

    def _part(self, item: Item, what: str) -> bytes:
        name = f"response.content_part.{what}"
        return self._event(name, item_id=item.id, output_index=self._index, content_index=0, part=item.part())

    @property
    def _index(self) -> int:
        return len(self._items) - 1

    def _event(self, name: str, **values: Any) -> bytes:
        event = {"type": name, "sequence_number": self._n_events, **values}
        self._n_events += 1
        return sse(event, name)

    def _response(self, status: str, answer: Answer | None) -> Json:
        request = self._request
        is_over = answer is not None
        figures = usage([answer]) if answer is not None else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "model": self._model,
            "output": [item.told("completed") for item in self._items] if is_over else [],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": request.reasoning or {"effort": None, "summary": None},
            "store": False,
            "temperature": request.temperature,
            "text": request.text or {"format": {"type": "text"}},
            "tool_choice": request.tool_choice or "auto",
            "tools": request.tools or [],
            "top_p": request.top_p,
            "truncation": "disabled",
            "usage": _usage(figures) if figures is not None else None,
            "metadata": {},
        }


def _status(answer: Answer) -> str:
    cut = answer.finish_reason in (EndReason.LENGTH, EndReason.CONTEXT)
    return "incomplete" if cut else "completed"


def _usage(figures: Json) -> Json:
    return {
        "input_tokens": figures["prompt_tokens"],
        "input_tokens_details": figures["prompt_tokens_details"],
        "output_tokens": figures["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": figures["total_tokens"],
    }
