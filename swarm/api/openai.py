"""OpenAI's shapes: requests checked field by field, responses and chunks as its clients expect them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from swarm.answers import Stats
from swarm.api.errors import BadRequest
from swarm.engine.sampling import MAX_SEED, SamplingFields, SamplingParams
from swarm.node.answer import Answer, Question

Json = dict[str, object]
Kind = TypeVar("Kind")
MAX_STOPS = 16  # OpenAI allows four
# Numbers of a request and the fields of SamplingParams that they set. The second line is not OpenAI's.
NUMBERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "repeat_penalty": "repetition_penalty",
}
WHOLE = {"top_k": "top_k", "repeat_last_n": "repeat_last_n"}
# What OpenAI calls the ways in which an answer ends.
FINISH = {"stop": "stop", "length": "length", "context": "length", "cancelled": "stop"}
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps makes one for each call


@dataclass(frozen=True)
class Wanted:
    """A request that was checked."""

    question: Question
    stream: bool
    include_usage: bool


def parse_chat(body: Json) -> Wanted:
    """A request of /v1/chat/completions; raise BadRequest naming the field that cannot be used."""
    messages = _get(body, "messages", list, [])
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("messages must be a list of objects with role and content", "messages")
    max_tokens = _whole(body, "max_completion_tokens", 1) or _whole(body, "max_tokens", 1)
    question = Question(
        model=_get(body, "model", str, ""),
        messages=messages,
        params=_params(body),
        max_tokens=max_tokens,
        stop=_stop(body),
        thinking=_thinking(body),
        tools=_tools(body),
    )
    return _wanted(body, question)


def parse_completion(body: Json) -> Wanted:
    """A request of /v1/completions."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    is_ids = isinstance(prompt, list) and bool(prompt) and all(type(i) is int for i in prompt)
    if not is_ids and not isinstance(prompt, str):
        raise BadRequest("prompt must be one text, or one list of token ids", "prompt")
    max_tokens = _whole(body, "max_tokens", 0)
    question = Question(
        model=_get(body, "model", str, ""),
        prompt=prompt,  # type: ignore[arg-type]  # checked above
        params=_params(body),
        max_tokens=16 if max_tokens is None else max_tokens,  # OpenAI's default
        stop=_stop(body),
    )
    return _wanted(body, question)


def _wanted(body: Json, question: Question) -> Wanted:
    for name, fine in (("n", (1, None)), ("best_of", (1, None)), ("echo", (False, None)), ("logprobs", (False, None))):
        if body.get(name) not in fine:
            raise BadRequest(f"{name} is {body[name]!r:.40}; Swarm gives one answer, without extras", name)
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") not in ("text", None):
        raise BadRequest("response_format must be text", "response_format")
    options = _get(body, "stream_options", dict, {})
    return Wanted(question, _get(body, "stream", bool, False), bool(options.get("include_usage", False)))


def _params(body: Json) -> SamplingParams:
    fields: SamplingFields = {}
    for table, kinds in ((NUMBERS, (int, float)), (WHOLE, (int,))):
        for name, field in table.items():
            value = body.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise BadRequest(f"{name} is {value!r:.40}; it must be a number", name)
            fields[field] = value  # type: ignore[literal-required]
    seed = body.get("seed")
    if seed is not None:
        if type(seed) is not int:
            raise BadRequest(f"seed is {seed!r:.40}; it must be a whole number", "seed")
        fields["seed"] = seed % (MAX_SEED + 1)
    return SamplingParams(**fields)


def _stop(body: Json) -> list[str]:
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop if stop is not None else []
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise BadRequest(f"stop must be a text, or a list of at most {MAX_STOPS} texts", "stop")
    return stops


def _tools(body: Json) -> Sequence[Mapping[str, object]] | None:
    tools = body.get("tools")
    if not tools or body.get("tool_choice") == "none":
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadRequest("tools must be a list of objects", "tools")
    return tools


def _thinking(body: Json) -> bool | None:
    """Whether to think first: vLLM's and llama.cpp's `chat_template_kwargs`, or OpenAI's effort of none."""
    options = _get(body, "chat_template_kwargs", dict, {})
    thinking = options.get("enable_thinking")
    if isinstance(thinking, bool):
        return thinking
    return False if body.get("reasoning_effort") == "none" else None


def _get(body: Json, name: str, kind: type[Kind], default: Kind) -> Kind:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise BadRequest(f"{name} is {value!r:.40}; it must be of type {kind.__name__}", name)
    return value


def _whole(body: Json, name: str, low: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or value < low:
        raise BadRequest(f"{name} is {value!r:.40}; it must be a whole number from {low}", name)
    return value


# ---- responses


def usage(stats: Stats) -> Json:
    """What an answer took, in tokens."""
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.generated_tokens,
        "total_tokens": stats.prompt_tokens + stats.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": stats.cached_tokens},
    }


def timings(stats: Stats) -> Json:
    """Seconds, beside what OpenAI tells."""
    return {"first_token_s": stats.first_token_s, "decode_s": stats.decode_s}


@dataclass(frozen=True)
class Reply:
    """Makes the response to one request, whole or in chunks."""

    is_chat: bool
    id: str
    created: int
    model: str

    def whole(self, answer: Answer, text: str, thinking: str) -> Json:
        """The response when nothing is streamed."""
        message: Json = {"role": "assistant", "content": text}
        if thinking:
            message["reasoning_content"] = thinking
        choice: Json = {"message": message} if self.is_chat else {"text": text}
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {
            **self._head(kind),
            "choices": [{"index": 0, **choice, "finish_reason": FINISH[answer.finish_reason or "stop"]}],
            "usage": usage(answer.stats),
            "timings": timings(answer.stats),
        }

    def first(self) -> Json | None:
        """The chunk that begins a streamed chat."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}) if self.is_chat else None

    def piece(self, text: str, thinking: bool) -> Json:
        """A chunk with some text."""
        if not self.is_chat:
            return self._chunk({"text": text})
        return self._chunk({"delta": {"reasoning_content" if thinking else "content": text}})

    def last(self, answer: Answer) -> Json:
        """The chunk that ends the text."""
        choice: Json = {"delta": {}} if self.is_chat else {"text": ""}
        return self._chunk(choice, FINISH[answer.finish_reason or "stop"])

    def figures(self, answer: Answer, *, for_us: bool) -> Json:
        """The chunk after the last, for those who ask for it."""
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        figures = {"usage": usage(answer.stats), "timings": timings(answer.stats)}
        ours: Json = {"swarm_finish": answer.finish_reason, "swarm_tokens": answer.tokens} if for_us else {}
        return {**self._head(kind), "choices": [], **figures, **ours}

    def _chunk(self, choice: Json, finish: str | None = None) -> Json:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return {**self._head(kind), "choices": [{"index": 0, **choice, "finish_reason": finish}]}

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def sse(value: Json | str, event: str = "") -> bytes:
    """One event of a stream."""
    data = value if isinstance(value, str) else _to_json(value)
    return (f"event: {event}\n" if event else "").encode() + f"data: {data}\n\n".encode()
