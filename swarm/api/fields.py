"""Fields of requests: what several dialects have in common, checked with the field's name in every refusal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from swarm.api.errors import BadRequest
from swarm.engine.sampling import MAX_SEED, Bias, SamplingFields, SamplingParams
from swarm.errors import ConfigError

Json = dict[str, Any]
Kind = TypeVar("Kind")
MAX_STOPS = 16  # OpenAI allows four
MAX_CHOICES = 16  # answers to one request, which come one after the other
_EXACT = 2**53  # a float below is the whole number that it spells
_PLACE = re.compile(r"(?P<text>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_TOKEN_ID = re.compile(r"[0-9]{1,9}")
_MISSING = re.compile(r"Object missing required field `([^`]*)`(?: - at `\$\.([^`]*)`)?$")
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "array": "a list"}


def converted(body: Mapping[str, Any], kind: type[Kind]) -> Kind:
    """The request that a JSON object is; raise BadRequest naming the field that cannot be used."""
    values = {name: _whole(value) for name, value in body.items()}
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except UnicodeEncodeError:  # half of a character, as a program leaves it that cuts texts by length
        return converted({str(_without_halves(name)): _without_halves(value) for name, value in values.items()}, kind)


def _whole(value: object) -> object:
    """40.0 as 40: some clients know only one kind of number."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value


def _without_halves(value: object) -> object:
    """The same with replacement characters for lone surrogates; JSON that is not deep."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_halves(inner) for inner in value]
    if isinstance(value, dict):
        return {_without_halves(name): _without_halves(inner) for name, inner in value.items()}
    return value


def _refusal(text: str) -> BadRequest:
    missing = _MISSING.match(text)
    if missing:
        inside = f"{missing[2]}." if missing[2] else ""
        return BadRequest(f"{inside}{missing[1]} is missing", re.split(r"[.\[]", inside + missing[1])[0])
    match = _PLACE.match(text)
    assert match is not None
    path = match["path"] or ""
    said = re.sub(r"`([^`]*)`", lambda kinds: _in_words(kinds[1]), match["text"])
    param = re.split(r"[.\[]", path)[0] or None
    return BadRequest(f"{path}: {said[:1].lower()}{said[1:]}" if path else said, param)


def _in_words(kinds: str) -> str:
    words = [_KINDS.get(kind, kind) for kind in kinds.split(" | ") if kind != "null"]
    return " or ".join(words) or "nothing"


def refuse(body: Mapping[str, Any], demands: Mapping[str, str]) -> None:
    """Raise BadRequest for a field that demands what nobody here can do; the table says what to do instead."""
    for name, instead in demands.items():
        if body.get(name) not in (None, False, "", [], {}, 0):
            raise BadRequest(f"{name} is not supported; {instead}", name)


class SamplingRequest(msgspec.Struct, kw_only=True):
    """How tokens are chosen, in the words of OpenAI and llama-server."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    seed: int | None = None
    logit_bias: dict[str, float] | None = None
    guesses: int | None = msgspec.field(name="speculative.n_max", default=None)  # at most, in a step; only 0 counts


_NAMES = {"repeat_penalty": "repetition_penalty"}


def params_of(request: SamplingRequest) -> SamplingParams:
    """The parameters that a request asks for; raise BadRequest naming the field that is out of range."""
    fields: SamplingFields = {}
    for name in SamplingRequest.__struct_fields__:
        value = getattr(request, name)
        if value is None or name in ("logit_bias", "guesses"):
            continue
        fields[_NAMES.get(name, name)] = value  # type: ignore[literal-required]
    if fields.get("top_k", 0) < 0:
        fields["top_k"] = 0  # llama.cpp's and vLLM's -1: all
    seed = fields.get("seed")
    if seed == -1:  # as programs say "any", by habit from llama.cpp
        del fields["seed"]
    elif seed is not None:
        fields["seed"] = seed % (MAX_SEED + 1)
    if request.logit_bias:
        fields["logit_bias"] = _bias(request.logit_bias)
    try:
        return SamplingParams(**fields)
    except ConfigError as error:
        raise BadRequest(str(error), str(error).split(" ", 1)[0]) from None  # its text begins with the field


def _bias(biases: Mapping[str, float]) -> Bias:
    wrong = next((token for token in biases if not _TOKEN_ID.fullmatch(token)), None)
    if wrong is not None:
        raise BadRequest(f"logit_bias has {wrong!r:.40}; it must be of token ids and numbers", "logit_bias")
    return tuple(sorted((int(token), value) for token, value in biases.items()))


def stops_of(stop: str | Sequence[str] | None) -> list[str]:
    """The strings that end an answer; empty ones end none."""
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    if len(stops) > MAX_STOPS:
        raise BadRequest(f"stop has {len(stops)} texts; the most is {MAX_STOPS}", "stop")
    return [text for text in stops if text]


def length_of(name: str, value: int | None, low: int) -> int | None:
    """The most tokens of an answer; None and -1 are as many as there is room for."""
    if value is None or value == -1:
        return None
    if value < low:
        raise BadRequest(f"{name} is {value}; it must be a whole number from {low}, or -1 for no limit", name)
    return value
