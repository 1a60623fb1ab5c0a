"""llama-server's own completions: POST /completion and /infill, which Continue and editors speak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from swarm.answers import EndReason, Piece
from swarm.api.dialect import EVENT_STREAM, STILL_AT_IT, Gathered, Json, Wanted, sse
from swarm.api.errors import BadRequest, body_of
from swarm.api.fields import SamplingRequest, converted, length_of, params_of, refuse, stops_of
from swarm.api.forms import form_of
from swarm.api.models import plain_name
from swarm.api.openai_completions import prompts_of
from swarm.api.openai_reply import timings
from swarm.errors import SwarmError
from swarm.node.answer import Answer, Note, Question, Reading
from swarm.text.infill import Infill

DEMANDS = {
    "n_probs": "ask /v1/completions for logprobs",
    "image_data": "this model reads text only",
    "input_prefix": "ask /infill",
    "input_suffix": "ask /infill",
    "ignore_eos": "say in the prompt how long the text should be",
    "lora": "adapters are not supported",
}


class LlamaCompletionRequest(SamplingRequest, kw_only=True):
    """A text, or token ids, to be continued. Fields that are not listed change nothing."""

    prompt: Any
    model: str | None = None
    n_predict: int | None = None
    stream: bool | None = None
    stop: str | list[str] | None = None
    return_progress: bool | None = None


class InfillRequest(LlamaCompletionRequest, kw_only=True):
    """What is to be written between two texts; `prompt` is the beginning of the line that is being written."""

    input_prefix: str
    input_suffix: str
    prompt: str = ""
    input_extra: list[InfillFile] | None = None


class InfillFile(msgspec.Struct, kw_only=True):
    """Another file of the project."""

    text: str
    filename: str = ""


def parse_infill(body: Json) -> Wanted:
    """A request of /infill; raise BadRequest naming the field that cannot be used."""
    refuse(body, {field: why for field, why in DEMANDS.items() if not field.startswith("input_")})
    request = converted(body, InfillRequest)
    files = tuple((each.filename or "file", each.text) for each in request.input_extra or ())
    question = Question(
        model=plain_name(request.model),
        infill=Infill(request.input_prefix + request.prompt, request.input_suffix, files),
        params=params_of(request),
        max_tokens=length_of("n_predict", request.n_predict, 0),
        stop=stops_of(request.stop),
    )
    if form_of(body) is not None:
        raise BadRequest("what is filled in cannot be held to a form; leave the grammar out", "grammar")
    reply = LlamaCompletionReply(request.model or "", wants_progress=bool(request.return_progress))
    return Wanted([question], bool(request.stream), reply)


def parse_llama_completion(body: Json) -> Wanted:
    """A request of /completion; raise BadRequest naming the field that cannot be used."""
    refuse(body, DEMANDS)
    request = converted(body, LlamaCompletionRequest)
    prompts = prompts_of(request.prompt)
    if len(prompts) != 1:
        raise BadRequest("prompt must be one text, or one list of token ids", "prompt")
    question = Question(
        model=plain_name(request.model),
        prompt=prompts[0],
        params=params_of(request),
        max_tokens=length_of("n_predict", request.n_predict, 0),
        stop=stops_of(request.stop),
        form=form_of(body),
        guess=request.guesses != 0,
    )
    reply = LlamaCompletionReply(request.model or "", wants_progress=bool(request.return_progress))
    return Wanted([question], bool(request.stream), reply)


class LlamaCompletionReply:
    """A text that goes on, in llama-server's words."""

    media_type = EVENT_STREAM
    silence = STILL_AT_IT

    def __init__(self, model: str, *, wants_progress: bool) -> None:
        self._model = model
        self._wants_progress = wants_progress

    def begin(self, index: int, answer: Answer) -> bytes:
        """Nothing is said before the first piece."""
        self._model = self._model or answer.model.name
        return b""

    def piece(self, index: int, answer: Answer, piece: Piece) -> bytes:
        """An event with some text."""
        return sse({"index": 0, "content": piece.text, "stop": False, "id_slot": -1})

    def quiet(self, event: Note | Reading) -> bytes:
        """For those who asked: how far the prompt is read."""
        if not self._wants_progress or isinstance(event, Note):
            return b""
        progress = {"total": event.total, "cache": 0, "processed": event.done}
        return sse({"index": 0, "content": "", "stop": False, "prompt_progress": progress})

    def end(self, index: int, answer: Answer) -> bytes:
        """The event with the figures."""
        return sse(self._last("", answer))

    def close(self, answers: Sequence[Answer]) -> bytes:
        return b""

    def error(self, error: SwarmError) -> bytes:
        """In place of all that would follow."""
        return sse(dict(body_of(error)))

    def whole(self, gathered: Sequence[Gathered]) -> Json:
        """The response when nothing is streamed."""
        (only,) = gathered
        self.begin(0, only.answer)
        return self._last(only.text, only.answer)

    def _last(self, text: str, answer: Answer) -> Json:
        stats = answer.stats
        cut = answer.finish_reason in (EndReason.LENGTH, EndReason.CONTEXT)
        return {
            "index": 0,
            "content": text,
            "stop": True,
            "id_slot": -1,
            "model": self._model,
            "tokens_predicted": stats.generated_tokens,
            "tokens_evaluated": stats.prompt_tokens,
            "tokens_cached": stats.cached_tokens,
            "stop_type": "word" if answer.stop_string is not None else "limit" if cut else "eos",
            "stopping_word": answer.stop_string or "",
            "truncated": False,
            "timings": timings(stats),
        }
