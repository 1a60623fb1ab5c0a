"""OpenAI's completions: /v1/completions, texts that are continued as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from swarm.answers import Piece
from swarm.api.dialect import Gathered, Json, Wanted, sse
from swarm.api.errors import BadRequest
from swarm.api.fields import MAX_CHOICES, SamplingRequest, converted, length_of, params_of, refuse, stops_of
from swarm.api.forms import form_of
from swarm.api.models import plain_name
from swarm.api.openai_chat import choices_of, top_of
from swarm.api.openai_logprobs import TokenTexts, Told, for_completion
from swarm.api.openai_reply import OpenAiReply
from swarm.node.answer import Answer, Question
from swarm.text.infill import Infill

DEFAULT_TOKENS = 16  # OpenAI's
DEMANDS = {
    "min_tokens": "say in the prompt how long the text should be",
    "use_beam_search": "answers are sampled",
    "ignore_eos": "say in the prompt how long the text should be",
    "structured_outputs": "say the same with response_format",
}


class CompletionRequest(SamplingRequest, kw_only=True):
    """A text, or token ids, or several of them, to be continued. Fields that are not listed change nothing."""

    prompt: Any  # checked below: lists of lists are beyond what a type says clearly
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    suffix: str | None = None
    best_of: int | None = None
    echo: bool | None = None
    response_format: str | dict[str, Any] | None = None
    logprobs: int | bool | None = None
    return_progress: bool | None = None


def parse_completion(body: Json, *, for_us: bool = False) -> Wanted:
    """A request of /v1/completions; raise BadRequest naming the field that cannot be used."""
    refuse(body, DEMANDS)
    request = converted(body, CompletionRequest)
    if request.best_of not in (None, 1, request.n):
        raise BadRequest(f"best_of is {request.best_of}; it is not supported beyond n: ask for n and choose", "best_of")
    prompts = prompts_of(request.prompt)
    max_tokens = DEFAULT_TOKENS if request.max_tokens is None else length_of("max_tokens", request.max_tokens, 0)
    question = Question(
        model=plain_name(request.model),
        params=replace(params_of(request), n_told=_n_told(request)),
        max_tokens=max_tokens,
        stop=stops_of(request.stop),
        form=form_of(body, request.response_format),
        guess=request.guesses != 0,
    )
    asked = [_asked(question, prompt, request) for prompt in prompts]
    questions = [each for one in asked for each in choices_of(one, request.n)]
    if len(questions) > MAX_CHOICES:
        raise BadRequest(f"{len(questions)} texts are asked for; the most is {MAX_CHOICES}", "prompt")
    reply = CompletionReply(
        "cmpl-",
        request.model or "",
        wants_usage=bool((request.stream_options or {}).get("include_usage")),
        wants_progress=bool(request.return_progress),
        for_us=for_us,
    )
    reply.echoes = bool(request.echo)
    reply.tells = _n_told(request) > 0
    return Wanted(questions, bool(request.stream), reply)


def _asked(question: Question, prompt: str | list[int], request: CompletionRequest) -> Question:
    """The question with its prompt; with a suffix, the gap between the two is what is asked for."""
    if not request.suffix:
        return replace(question, prompt=prompt)
    if not isinstance(prompt, str):
        raise BadRequest("suffix goes with a prompt that is a text", "suffix")
    if question.form is not None or request.echo:
        raise BadRequest("what is before a suffix cannot be held to a form, nor repeat the prompt", "suffix")
    return replace(question, infill=Infill(prompt, request.suffix))


def _n_told(request: CompletionRequest) -> int:
    """Log probabilities that are asked for with each token."""
    if request.logprobs is None or request.logprobs is False:
        return 0
    if request.echo:
        raise BadRequest("logprobs are told of what is generated, not of the prompt that echo repeats", "logprobs")
    return 1 + top_of("logprobs", int(request.logprobs) if request.logprobs is not True else 0)


def prompts_of(prompt: object, field: str = "prompt") -> list[str | list[int]]:
    """The texts, or lists of token ids, that a field has."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if _is_ids(prompt):
            return [prompt]
        if all(isinstance(each, str) or _is_ids(each) for each in prompt):
            return prompt
    raise BadRequest(f"{field} must be a text, a list of token ids, or a list of such", field)


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(i) is int for i in value)


class CompletionReply(OpenAiReply):
    """A text that goes on, or several."""

    kind = chunk_kind = "text_completion"
    echoes = False  # the prompt comes first
    _offset = 0  # characters that were told of

    def begin(self, index: int, answer: Answer) -> bytes:
        """The prompt, for those who want it again."""
        super().begin(index, answer)
        self._offset = 0
        return sse(self.chunk(index, {"text": _prompt_text(answer)})) if self.echoes else b""

    def delta(self, index: int, piece: Piece) -> Json:
        """The part of a choice that a piece is."""
        return {"text": piece.text}

    def last(self) -> Json:
        """The part of a choice that ends it."""
        return {"text": ""}

    def chances(self, told: Told, texts: TokenTexts) -> Json:
        """Log probabilities of some tokens."""
        made = for_completion(told, texts, self._offset)
        self._offset += sum(map(len, made["tokens"]))
        return made

    def choice(self, index: int, gathered: Gathered) -> Json:
        """A choice that is whole."""
        before = _prompt_text(gathered.answer) if self.echoes else ""
        return {"text": before + gathered.text}


def _prompt_text(answer: Answer) -> str:
    prompt: str | Sequence[int] = answer.question.prompt or ""
    return prompt if isinstance(prompt, str) else answer.model.tokenizer.decode(prompt)
