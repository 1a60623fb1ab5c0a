"""Ollama's chats and texts: /api/chat and /api/generate, as lines of JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from swarm.answers import Channel, EndReason, Piece
from swarm.api.dialect import Gathered, Json, Wanted, WholeCall, to_json
from swarm.api.errors import BadRequest, ollama_body
from swarm.api.fields import SamplingRequest, converted, length_of, params_of, refuse, stops_of
from swarm.api.forms import schema_or_json
from swarm.api.models import plain_name
from swarm.errors import SwarmError
from swarm.node.answer import Answer, Note, Question, Reading
from swarm.text.bounded_json import parse_json
from swarm.text.infill import Infill

DEMANDS = {
    "images": "this model reads text only",
    "template": "the model's own template is used; `raw` takes a prompt as it is",
    "context": "send the conversation to /api/chat",
}
CHAT_DEMANDS = {**DEMANDS, "suffix": "ask /api/generate for what is before it"}


class OllamaOptions(SamplingRequest, kw_only=True):
    """`options`; those that are not listed change nothing, or are the node's settings (num_ctx, num_thread)."""

    num_predict: int | None = None
    stop: str | list[str] | None = None


class OllamaRequest(msgspec.Struct, kw_only=True):
    """What chats and texts have in common."""

    model: str = ""
    stream: bool | None = None
    options: dict[str, Any] | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    keep_alive: Any = None  # models are let go when others need the room


class OllamaChat(OllamaRequest, kw_only=True):
    """/api/chat."""

    messages: list[dict[str, Any]] = msgspec.field(default_factory=list)
    tools: list[dict[str, Any]] | None = None


class OllamaGenerate(OllamaRequest, kw_only=True):
    """/api/generate."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None
    suffix: str | None = None


def parse_chat(body: Json) -> Wanted:
    """A request of /api/chat; raise BadRequest naming the field that cannot be used."""
    refuse(body, CHAT_DEMANDS)
    request = converted(body, OllamaChat)
    messages = [_message(i, message) for i, message in enumerate(request.messages)]
    return _wanted(request, "message", messages=messages, tools=request.tools or None)


def parse_generate(body: Json) -> Wanted:
    """A request of /api/generate."""
    refuse(body, DEMANDS)
    request = converted(body, OllamaGenerate)
    if request.suffix:
        if request.system or request.format:
            raise BadRequest("what is before a suffix takes neither system nor format", "suffix")
        wanted = _wanted(request, "response", prompt=request.prompt)
        infill = Infill(request.prompt, request.suffix)
        return replace(wanted, questions=[replace(each, prompt=None, infill=infill) for each in wanted.questions])
    if request.raw:
        return _wanted(request, "response", prompt=request.prompt)
    system = [{"role": "system", "content": request.system}] if request.system else []
    return _wanted(request, "response", messages=[*system, {"role": "user", "content": request.prompt}])


def loads_only(body: Mapping[str, Any]) -> bool:
    """A request without a question: Ollama's way to have a model loaded, or let go."""
    return not body.get("messages") and not body.get("prompt")


def loaded(body: Mapping[str, Any], *, is_chat: bool) -> Json:
    """The reply to such a request."""
    said: Json = {"message": {"role": "assistant", "content": ""}} if is_chat else {"response": ""}
    reason = "unload" if body.get("keep_alive") == 0 else "load"
    return {"model": body.get("model") or "", "created_at": now_text(), **said, "done": True, "done_reason": reason}


def now_text() -> str:
    """The time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _wanted(
    request: OllamaRequest,
    said: str,
    *,
    messages: Sequence[Json] = (),
    prompt: str | None = None,
    tools: Sequence[Json] | None = None,
) -> Wanted:
    options = converted(request.options or {}, OllamaOptions)
    most = options.num_predict if options.num_predict is None or options.num_predict >= 0 else None
    question = Question(
        model=plain_name(request.model),
        messages=messages,
        prompt=prompt,
        params=params_of(options),
        max_tokens=length_of("num_predict", most, 0),
        stop=stops_of(options.stop),
        thinking=request.think if isinstance(request.think, bool | None) else True,
        tools=tools,
        form=schema_or_json(request.format, "format"),
    )
    return Wanted([question], request.stream is not False, OllamaReply(request.model, said))


def _message(i: int, message: Mapping[str, Any]) -> Json:
    if message.get("images"):
        raise BadRequest(f"messages[{i}] has images; this model reads text only", "messages")
    told = {name: value for name, value in message.items() if name not in ("thinking", "images")}
    return {**told, "reasoning_content": message["thinking"]} if message.get("thinking") else told


class OllamaReply:
    """Lines of JSON, the last of which has the figures. Calls come whole, with their arguments as objects."""

    media_type = "application/x-ndjson"
    silence = b""  # a line that is none would break its clients

    def __init__(self, model: str, said: str) -> None:
        """`said`: the field with what is said, `message` or `response`."""
        self._model = model
        self._said = said
        self._began_at = time.perf_counter()
        self._call: WholeCall | None = None

    def begin(self, index: int, answer: Answer) -> bytes:
        """Nothing is said before the first piece."""
        self._model = self._model or answer.model.name
        return b""

    def piece(self, index: int, answer: Answer, piece: Piece) -> bytes:
        """A line with some text."""
        if piece.channel is not Channel.CALL:
            field = "thinking" if piece.thinking else "content"
            return self._end_call() + self._line({field: piece.text})
        ended = self._end_call() if piece.name else b""
        if piece.name:
            self._call = WholeCall(piece.name)
        assert self._call is not None
        self._call.arguments += piece.text
        return ended

    def quiet(self, event: Note | Reading) -> bytes:
        return b""

    def end(self, index: int, answer: Answer) -> bytes:
        """The line with the figures."""
        return self._end_call() + self._line({}, self._figures(answer))

    def close(self, answers: Sequence[Answer]) -> bytes:
        return b""

    def error(self, error: SwarmError) -> bytes:
        """In place of all that would follow."""
        return to_json(ollama_body(error)).encode() + b"\n"

    def whole(self, gathered: Sequence[Gathered]) -> Json:
        """The response when nothing is streamed."""
        (only,) = gathered
        self._model = self._model or only.answer.model.name
        said: Json = {"content": only.text}
        if only.thinking:
            said["thinking"] = only.thinking
        if only.calls:
            said["tool_calls"] = [_call(call) for call in only.calls]
        return {**self._told(said), **self._figures(only.answer)}

    # --- within

    def _end_call(self) -> bytes:
        call, self._call = self._call, None
        return self._line({"tool_calls": [_call(call)]}) if call is not None else b""

    def _line(self, said: Json, figures: Json | None = None) -> bytes:
        return to_json({**self._told(said), **(figures or {"done": False})}).encode() + b"\n"

    def _told(self, said: Json) -> Json:
        told = {"model": self._model, "created_at": now_text()}
        if self._said == "message":
            return {**told, "message": {"role": "assistant", "content": "", **said}}
        return {**told, "response": said.pop("content", ""), **said}

    def _figures(self, answer: Answer) -> Json:
        """How it ended, and what it took, in nanoseconds."""
        stats = answer.stats
        cut = answer.finish_reason in (EndReason.LENGTH, EndReason.CONTEXT)
        return {
            "done": True,
            "done_reason": "length" if cut else "stop",
            "total_duration": _nanoseconds(time.perf_counter() - self._began_at),
            "load_duration": 0,
            "prompt_eval_count": stats.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(stats.prefill_s),
            "eval_count": stats.generated_tokens,
            "eval_duration": _nanoseconds(stats.decode_s),
        }


def _call(call: WholeCall) -> Json:
    try:
        arguments = parse_json(call.arguments)
    except ValueError:  # cut off
        arguments = {}
    return {"function": {"name": call.name, "arguments": arguments}}


def _nanoseconds(seconds: float) -> int:
    return int(1e9 * seconds)
