"""What comes from outside, damaged at random: whatever it is, it is taken, or refused with one of Swarm's own errors.

A target makes a case from a seed and tries it. A case that raises anything else, or takes more than SLOW_S, has failed:
its target and seed say it all. `tools/fuzz.py` runs them for as long as one likes; FAILED are those that once did.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgpack
from starlette.requests import Request

from swarm.api import anthropic, llama_completion, ollama, openai_chat, openai_completions, openai_responses
from swarm.api.body import parsed_body
from swarm.api.errors import BadRequest
from swarm.errors import RemoteProtocolError, SwarmError, TextError
from swarm.models.registry import spec_from_gguf
from swarm.store.gguf import open_gguf
from swarm.store.importing import manifest_of
from swarm.store.manifest_decoding import decode_manifest
from swarm.text.template import ChatTemplate, built_in
from swarm.text.tokenizer import Tokenizer
from swarm.wire.codec import UnknownType, decode, encode
from swarm.wire.messages import MESSAGES
from tests.helpers.tiny import TINY, make_tiny
from tests.helpers.tiny_text import SPECIAL, text_metadata
from tests.helpers.wire_values import frame_of, record

SLOW_S = 5.0  # a case takes milliseconds; templates have a limit of their own
NUMBERS = (0, 1, 2, 8, 31, 32, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**63 - 1, 2**63, 2**64 - 1)
FAMILIES = ("llama", "glm4", "air", "qwen3-yarn", "qwen3moe")
# (target, seed) that failed while a check was missing.
FAILED = (("body", 1796037858), ("body", 1796038546), ("template", 1796037731), ("template", 1796038372))


class Failed(Exception):
    """A case that did not end as it should; says how to play it again."""


def play(target: str, seed: int) -> bool:
    """Try one case; True when it was taken. Raise Failed."""
    taken, took_s = _timed(target, seed)
    if took_s > SLOW_S:  # beside busy programs anything may take long, once
        taken, took_s = _timed(target, seed)
    if took_s > SLOW_S:
        raise Failed(f"({target!r}, {seed}): took {took_s:.1f} s")
    return taken


def _timed(target: str, seed: int) -> tuple[bool, float]:
    started = time.monotonic()
    try:
        taken = TARGETS[target](random.Random(f"{target} {seed}"))
    except Exception as error:
        raise Failed(f"({target!r}, {seed}): {type(error).__name__}: {str(error)[:200]}") from error
    return taken, time.monotonic() - started


def mutate(data: bytearray, end: int, rng: random.Random) -> None:
    """Damage the first `end` bytes in one to four places."""
    for _ in range(rng.randint(1, 4)):
        at, n = rng.randrange(max(1, min(end, len(data)))), rng.randint(1, 64)
        kind = rng.randrange(8)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            data[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
        elif kind == 2:
            data[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF)
        elif kind == 3:
            del data[at : at + n]
        elif kind == 4:
            data[at:at] = rng.randbytes(n)
        elif kind == 5:
            start = rng.randrange(max(1, len(data)))
            data[at : at + n] = data[start : start + n]
        elif kind == 6 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif rng.random() < 0.1:
            del data[at:]


# ---- files


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="swarm-fuzz-"))


@cache
def _family(name: str) -> tuple[bytes, int]:
    path = make_tiny(_folder() / f"{name}.gguf", name)
    with open_gguf(path) as file:
        return path.read_bytes(), file.header_bytes


def _gguf(rng: random.Random) -> bool:
    """A model file from its header to its tokenizer, its template and its manifest."""
    whole, header_bytes = _family(rng.choice([name for name in FAMILIES if name in TINY]))
    data = bytearray(whole)
    mutate(data, header_bytes, rng)
    path = _folder() / "case.gguf"
    path.write_bytes(data)
    try:
        with open_gguf(path) as file:
            spec_from_gguf(file.metadata, file.tensors)
            ChatTemplate.from_metadata(file.metadata, Tokenizer.from_metadata(file.metadata))
            manifest_of(file)
    except SwarmError as error:
        _one_line(error)
        return False
    return True


# ---- from peers


@cache
def _manifest() -> bytes:
    _family("llama")
    with open_gguf(_folder() / "llama.gguf") as file:
        return manifest_of(file).encoded


def _of_manifest(rng: random.Random) -> bool:
    data = bytearray(_manifest())
    if rng.random() < 0.5:
        fields = msgpack.unpackb(bytes(data))
        fields[rng.randrange(len(fields))] = rng.choice((*NUMBERS, -1, "x", b"", b"\0" * 64, [], {}, None, 1.5))
        data = bytearray(msgpack.packb(fields))
    else:
        mutate(data, len(data), rng)
    try:
        manifest = decode_manifest(bytes(data))
    except RemoteProtocolError as error:
        _one_line(error)
        return False
    assert manifest.total_bytes >= 0 and len(manifest.chunk_sizes) == manifest.n_chunks
    return True


def _message(rng: random.Random) -> bool:
    message = record(rng.choice(MESSAGES), rng)
    frame = frame_of(message, rng)
    header = bytearray(encode(message, frame))
    mutate(header, len(header), rng)
    frames = [bytes(header)] if frame is None else [bytes(header), frame[: rng.choice((len(frame), len(frame) // 2))]]
    try:
        decode(frames, "peer")
    except (RemoteProtocolError, UnknownType) as error:
        _one_line(error)
        return False
    return True


# ---- from programs and pages

TEXTS = ("", "x", "\ud800", "\x00", "\u202e", "<|user|>", "漢", "a" * 3000, "null", "true", "1e999")
VALUES = (None, True, False, 0, -1, 1.5, 1e308, 2**63, -(2**70), "NaN", [], {}, [[]], [{}], {"a": []}, *TEXTS)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
BODIES: dict[str, dict[str, object]] = {
    "chat": {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "tools": [TOOL],
        "tool_choice": "auto",
        "stop": ["x"],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "temperature": 0.5,
        "stream_options": {"include_usage": True},
        "logit_bias": {"5": 1},
        "max_tokens": 5,
        "seed": 1,
        "n": 1,
    },
    "completion": {"prompt": ["a", "b"], "max_tokens": 5, "stop": "x", "logprobs": 2, "echo": False, "n": 1},
    "responses": {"input": [{"role": "user", "content": "hi"}], "instructions": "i", "tools": [], "text": {}},
    "messages": {"max_tokens": 5, "system": "s", "messages": [{"role": "user", "content": "hi"}], "tools": []},
    "ollama chat": {"model": "m", "messages": [{"role": "user", "content": "x"}], "options": {"num_predict": 5}},
    "ollama generate": {"model": "m", "prompt": "x", "format": {"type": "object"}, "options": {}},
    "llama": {"prompt": [1, 2, "x"], "n_predict": 5, "grammar": "", "samplers": []},
}
PARSERS: dict[str, Callable[[dict[str, object]], object]] = {
    "chat": openai_chat.parse_chat,
    "completion": openai_completions.parse_completion,
    "responses": openai_responses.parse_responses,
    "messages": anthropic.parse_messages,
    "ollama chat": ollama.parse_chat,
    "ollama generate": ollama.parse_generate,
    "llama": llama_completion.parse_llama_completion,
}


def _body(rng: random.Random) -> bool:
    name = rng.choice(list(BODIES))
    data = bytearray(json.dumps(_changed(BODIES[name], rng)).encode())
    if rng.random() < 0.3:
        mutate(data, len(data), rng)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": bytes(data), "more_body": False}

    request = Request({"type": "http", "headers": [], "method": "POST"}, receive)
    try:
        asyncio.run(parsed_body(request, PARSERS[name]))
    except (BadRequest, SwarmError) as error:
        assert str(error)
        return False
    return True


def _changed(value: object, rng: random.Random, depth: int = 0) -> object:
    """The same with some values, keys and members that are others, missing or too many."""
    if rng.random() < 0.08:
        return rng.choice(VALUES)
    if isinstance(value, dict):
        kept = {key: _changed(inner, rng, depth + 1) for key, inner in value.items() if rng.random() > 0.05}
        return {**kept, str(rng.choice(VALUES)): rng.choice(VALUES)} if rng.random() < 0.05 else kept
    if isinstance(value, list):
        return [_changed(inner, rng, depth + 1) for inner in value] * rng.choice((1, 1, 1, 0, 3))
    if rng.random() < 0.02:
        nested: object = value
        for _ in range(rng.choice((5, 90, 200))):
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        return nested
    return value


# ---- text

PIECES = [*SPECIAL, *TEXTS, " ", "\n", "  ", "\r\n", "1234567", "é", "e\u0301", "👩‍👩‍👧", "'ll", "\t", "\u00a0", "0x"]
TAGS = (
    "{% for m in messages %}",
    "{% endfor %}",
    "{{ m.content }}",
    "{{ messages[0]['content'] | trim }}",
    "{% if tools %}",
    "{% endif %}",
    "{% set ns = namespace(a=[], b={}) %}",
    "{% set ns.a = ns.a + [ns.a] %}",
    "{{ ns.a | tojson }}",
    "{% macro f(x) %}",
    "{{ f(1) }}",
    "{% endmacro %}",
    "{{ 'a' * 99999 }}",
    "{{ range(10**9) }}",
    "{{ raise_exception('x\x1b') }}",
    "{{ messages | map(attribute='role') | join }}",
    "{{ ''.__class__ }}",
    "{{ (1).__class__ }}",
    "{%- generation %}",
    "{{ strftime_now('%Y') }}",
    "{# x",
    "{% raw %}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ {}|dictsort }}",
    "{{ 'x'|center(10**9) }}",
    "{% include 'x' %}",
)
MESSAGES_OF_CHAT = (
    [{"role": "user", "content": "hi"}],
    [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    [{"role": "system", "content": ""}, {"role": "user", "content": "<|user|>"}],
)


@cache
def _tokenizer(family: str) -> Tokenizer:
    return Tokenizer.from_metadata(text_metadata(family))


def _text(rng: random.Random) -> bool:
    """A text through a tokenizer and back."""
    tokenizer = _tokenizer(rng.choice(("llama", "glm4")))
    text = "".join(rng.choice(PIECES) * rng.choice((1, 1, 1, 50)) for _ in range(rng.randint(0, 12)))
    try:
        ids = tokenizer.encode(text, special=rng.random() < 0.5)
        back = tokenizer.decode(ids, special=True)
    except TextError as error:
        _one_line(error)
        return False
    assert back == text or "\ud800" in text, (text[:40], back[:40])
    return True


def _template(rng: random.Random) -> bool:
    """A template made of pieces, or one of ours that is damaged."""
    if rng.random() < 0.5:
        source = "".join(rng.choice((*TAGS, *PIECES)) for _ in range(rng.randint(1, 10)))
    else:
        data = bytearray(built_in(rng.choice(("chatml", "glm-4-0414", "glm-4.5", "intellect-3", "llama-3"))).encode())
        mutate(data, len(data), rng)
        source = data.decode(errors="replace")
    try:
        ChatTemplate(source, control=SPECIAL).render(rng.choice(MESSAGES_OF_CHAT))
    except TextError as error:
        _one_line(error)
        return False
    return True


def _one_line(error: Exception) -> None:
    text = str(error)
    assert text and text.isprintable() and len(text) < 2000, repr(text)[:300]


TARGETS: dict[str, Callable[[random.Random], bool]] = {
    "gguf": _gguf,
    "manifest": _of_manifest,
    "message": _message,
    "body": _body,
    "text": _text,
    "template": _template,
}
