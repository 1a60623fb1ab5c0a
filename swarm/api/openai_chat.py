"""OpenAI's chats: /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from swarm.answers import Channel, Piece
from swarm.api.dialect import Gathered, Json, Wanted, sse
from swarm.api.errors import BadRequest
from swarm.api.fields import MAX_CHOICES, SamplingRequest, converted, length_of, params_of, refuse, stops_of
from swarm.api.forms import form_of
from swarm.api.models import plain_name
from swarm.api.openai_logprobs import TokenTexts, Told, for_chat
from swarm.api.openai_reply import OpenAiReply
from swarm.engine.sampling import MAX_SEED, MAX_TOLD
from swarm.node.answer import Answer, Question
from swarm.text.tools import AUTO, ToolChoice

# Fields that would change the answer, and that nobody here can honour: what to do instead.
DEMANDS = {
    "functions": "say the same with tools",
    "function_call": "say the same with tool_choice",
    "audio": "this API answers with text",
    "web_search_options": "nothing here searches the web",
    "best_of": "ask for n answers and choose",
    "min_tokens": "say in the messages how long the answer should be",
    "continue_final_message": "the last message must be a question",
    "suffix": "say in the messages what comes after",
    "use_beam_search": "answers are sampled",
    "ignore_eos": "say in the messages how long the answer should be",
    "structured_outputs": "say the same with response_format",
    "structural_tag": "say the same with response_format",
}


class ChatRequest(SamplingRequest, kw_only=True):
    """A conversation that is to be answered. Fields that are not listed change nothing."""

    messages: list[dict[str, Any]]
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: str | dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    return_progress: bool | None = None


def parse_chat(body: Json, *, for_us: bool = False) -> Wanted:
    """A request of /v1/chat/completions; raise BadRequest naming the field that cannot be used."""
    refuse(body, DEMANDS)
    if body.get("modalities") not in (None, [], ["text"]):
        raise BadRequest("modalities is not supported; this API answers with text", "modalities")
    request = converted(body, ChatRequest)
    if not request.messages:
        raise BadRequest("messages must be a list of objects with role and content", "messages")
    offered = request.tool_choice != "none"
    question = Question(
        model=plain_name(request.model),
        messages=request.messages,
        params=replace(params_of(request), n_told=_n_told(request)),
        max_tokens=length_of("max_completion_tokens", request.max_completion_tokens, 1)
        or length_of("max_tokens", request.max_tokens, 1),
        stop=stops_of(request.stop),
        thinking=_thinking(request),
        template_values=_template_values(request),
        tools=(request.tools or None) if offered else None,
        tool_choice=_choice(request),
        form=form_of(body, request.response_format),
        guess=request.guesses != 0,
    )
    options = request.stream_options or {}
    reply = ChatReply(
        "chatcmpl-",
        request.model or "",
        wants_usage=bool(options.get("include_usage")),
        wants_progress=bool(request.return_progress),
        for_us=for_us,
    )
    reply.tells = bool(request.logprobs)
    return Wanted(choices_of(question, request.n), bool(request.stream), reply)


def _n_told(request: ChatRequest) -> int:
    """Log probabilities that are asked for with each token."""
    if not request.logprobs:
        if request.top_logprobs:
            raise BadRequest("top_logprobs needs logprobs to be true", "top_logprobs")
        return 0
    return 1 + top_of("top_logprobs", request.top_logprobs or 0)


def top_of(name: str, value: int) -> int:
    """How many of the likeliest tokens are told."""
    if not 0 <= value < MAX_TOLD:
        raise BadRequest(f"{name} is {value}; it must be from 0 to {MAX_TOLD - 1}", name)
    return value


def choices_of(question: Question, n: int | None) -> list[Question]:
    """The same question so many times, each with a seed of its own."""
    n = 1 if n is None else n
    if not 1 <= n <= MAX_CHOICES:
        raise BadRequest(f"n is {n}; it must be from 1 to {MAX_CHOICES}", "n")
    seed = question.params.seed
    if seed is None:
        return [question] * n
    return [replace(question, params=replace(question.params, seed=next_seed(seed, i))) for i in range(n)]


def next_seed(seed: int, i: int) -> int:
    """The seed of the choice with number `i`."""
    return (seed + i) % (MAX_SEED + 1)


def _thinking(request: ChatRequest) -> bool | None:
    """Whether to think first: vLLM's and llama.cpp's `chat_template_kwargs`, or OpenAI's effort of none."""
    thinking = (request.chat_template_kwargs or {}).get("enable_thinking")
    if isinstance(thinking, bool):
        return thinking
    if thinking is not None:
        raise BadRequest(
            f"chat_template_kwargs has enable_thinking {thinking!r:.40}; it must be true or false",
            "chat_template_kwargs",
        )
    return False if request.reasoning_effort == "none" else None


def _template_values(request: ChatRequest) -> dict[str, Any]:
    """What is said for the model's own template, beside whether to think; templates of gpt-oss read the effort."""
    effort = {"reasoning_effort": request.reasoning_effort} if request.reasoning_effort not in (None, "none") else {}
    return effort | {k: v for k, v in (request.chat_template_kwargs or {}).items() if k != "enable_thinking"}


def _choice(request: ChatRequest) -> ToolChoice:
    choice = tool_choice(request.tool_choice, request.tools or ())
    return replace(choice, parallel=request.parallel_tool_calls is not False)


def tool_choice(value: str | Mapping[str, Any] | None, tools: Sequence[Mapping[str, Any]]) -> ToolChoice:
    """What OpenAI's `tool_choice` demands; BadRequest for a function that is not on offer."""
    if value in (None, "auto", "none"):
        return AUTO
    if value == "required":
        if not tools:
            raise BadRequest("tool_choice is required, but there are no tools", "tool_choice")
        return ToolChoice(required=True)
    function = value.get("function", value) if isinstance(value, Mapping) else {}
    name = function.get("name") if isinstance(function, Mapping) else None
    names = [_function(tool).get("name") for tool in tools]
    if not isinstance(name, str) or name not in names:
        raise BadRequest(
            f"tool_choice is {value!r:.80}; it must be auto, none, required or one of tools", "tool_choice"
        )
    return ToolChoice(required=True, name=name)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


class ChatReply(OpenAiReply):
    """A message of the assistant, or several that one may choose from."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def begin(self, index: int, answer: Answer) -> bytes:
        """The chunk that begins a choice."""
        super().begin(index, answer)
        return sse(self.chunk(index, {"delta": {"role": "assistant", "content": ""}}))

    def delta(self, index: int, piece: Piece) -> Json:
        """The part of a choice that a piece is."""
        if piece.channel is Channel.CALL:
            return {"delta": {"tool_calls": [self._part_of_call(index, piece)]}}
        return {"delta": {"reasoning_content" if piece.thinking else "content": piece.text}}

    def last(self) -> Json:
        """The part of a choice that ends it."""
        return {"delta": {}}

    def choice(self, index: int, gathered: Gathered) -> Json:
        """A choice that is whole."""
        message: Json = {"role": "assistant", "content": gathered.text or (None if gathered.calls else "")}
        if gathered.thinking:
            message["reasoning_content"] = gathered.thinking
        if gathered.calls:
            message["tool_calls"] = [
                {
                    "id": self._call_id(index, i),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for i, call in enumerate(gathered.calls)
            ]
        return {"message": message}

    def chances(self, told: Told, texts: TokenTexts) -> Json:
        """Log probabilities of some tokens."""
        return for_chat(told, texts)

    def _part_of_call(self, index: int, piece: Piece) -> Json:
        if not piece.name:
            return {"index": piece.call, "function": {"arguments": piece.text}}
        function = {"name": piece.name, "arguments": piece.text}
        return {"index": piece.call, "id": self._call_id(index, piece.call), "type": "function", "function": function}

    def _call_id(self, index: int, call: int) -> str:
        return f"call_{self.id[-16:]}{index:02d}{call:02d}"
