"""Requests that cost as much as a request can: every dialect, as large, as deep and as many as the limits let by.

Each is the bytes that are sent to a node of a chat model. None may hold the node up, however it is answered.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from swarm.limits import (
    MAX_REQUEST_BYTES,
    MAX_REQUEST_DEPTH,
    MAX_REQUEST_ITEMS,
    MAX_REQUEST_OBJECTS,
    MAX_TEMPLATE_CHARS,
)

N = MAX_REQUEST_BYTES - 4096  # characters that fit beside the rest of a request
FITTING = 400_000  # characters of which nobody sees at once that they are too many for a context
OBJECTS, ITEMS = MAX_REQUEST_OBJECTS - 100, MAX_REQUEST_ITEMS - 100
HEAD = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"

# Chat templates that nobody honest writes, by the name of the model that has each.
TEMPLATES = {
    "endless": "{% set s = 'a' * 8000000 %}{% set t = 'a' * 3999999 ~ 'b' %}"
    "{% for i in range(99999) %}{{ t in s }}{% endfor %}",
    "doubling": "{% set ns = namespace(s='a') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "writing": "{% for i in range(8000) %}" + "x" * 1000 + "{% endfor %}",
    "marking": "{% for i in range(20000) %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}",
    "wordy": "{# " + "x" * (MAX_TEMPLATE_CHARS - 100) + " #}{{ messages[0].content }}",
}


@dataclass(frozen=True)
class Costly:
    """One request, or what is sent in the place of one."""

    name: str
    made: Callable[[], bytes]


def sent(path: str, body: Mapping[str, object] | bytes) -> bytes:
    """A whole POST."""
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return HEAD.format(path).encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data


def play(port: int, data: bytes, seconds: float = 60.0) -> str:
    """Send it, and read all that comes back: its status, or why there was none."""
    reply = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
            with contextlib.suppress(OSError):  # refused before it was all there
                connection.sendall(data)
            while piece := connection.recv(1 << 20):
                reply = reply or piece
    except OSError as error:
        return reply[9:12].decode() or type(error).__name__
    return reply[9:12].decode() or "hung up"


def completion(**fields: object) -> bytes:
    return sent("/v1/completions", {"max_tokens": 2, **fields})


def chat(**fields: object) -> bytes:
    return sent("/v1/chat/completions", {"max_tokens": 2, "messages": [user("Hi")], **fields})


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def letters(n: int) -> str:
    return "".join(random.Random(1).choices("abcdefghijklmnop", k=n))


def function(i: int, **fields: object) -> dict[str, object]:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    return {"type": "function", "function": {"name": f"f{i}", "parameters": parameters, **fields}}


def nested(depth: int, kind: str = "object") -> dict[str, object]:
    """A schema of so many levels."""
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": kind, "properties": {"a": schema}} if kind == "object" else {"type": kind, "items": schema}
    return schema


def called(arguments: str) -> list[dict[str, object]]:
    """A conversation in which a function was called with these arguments."""
    call = {"id": "c", "type": "function", "function": {"name": "f0", "arguments": arguments}}
    return [user("Hi"), {"role": "assistant", "tool_calls": [call]}, user("Hi")]


def schema(value: object) -> bytes:
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": value}})


def texts() -> dict[str, Callable[[], bytes]]:
    """Long ones, in all places where a text may stand."""
    return {
        "a word as long as a request": lambda: completion(prompt="a" * N),
        "short words, as many as a request holds": lambda: completion(prompt="a b " * (N // 4)),
        "a word that may fit": lambda: completion(prompt="a" * FITTING),
        "words that may fit": lambda: completion(prompt="word " * (FITTING // 5)),
        "letters at random that may fit": lambda: completion(prompt=letters(FITTING)),
        "accents that may fit": lambda: completion(prompt="a" + "\u0301\u0323" * (FITTING // 2)),
        "blanks that may fit": lambda: completion(prompt=" \n\t" * (FITTING // 3)),
        "marks of turns": lambda: completion(prompt="<|im_start|>" * (N // 12)),
        "halves of characters": lambda: sent("/v1/completions", b'{"prompt":"' + rb"\ud800" * (N // 6) + b'"}'),
        "a long message": lambda: chat(messages=[user("word " * (N // 5))]),
        "a message of marks": lambda: chat(messages=[user("<|im_start|>" * (N // 12))]),
        "a message that may fit": lambda: chat(messages=[user("<|im_start|>" * (FITTING // 12))]),
        "a message of brackets": lambda: chat(messages=[user("<" * N)]),
        "a picture": lambda: chat(
            messages=[user([{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * N}}])]
        ),
        "a model's name": lambda: chat(model="a" * N),
        "a model's name of marks": lambda: chat(model="-a" * (N // 2)),
        "what ends an answer": lambda: chat(stop=["word " * (N // 80)] * 16),
        "the end of an answer that begins again and again": lambda: chat(stop=["a" * (N // 16)] * 16, max_tokens=64),
        "what comes before and after": lambda: completion(prompt="a" * (N // 2), suffix="a" * (N // 2)),
    }


def shapes() -> dict[str, Callable[[], bytes]]:
    """Many things, and deep ones."""
    deep = MAX_REQUEST_DEPTH
    return {
        "many prompts": lambda: completion(prompt=["a"] * OBJECTS),
        "many ids": lambda: completion(prompt=[1] * ITEMS),
        "many lists of ids": lambda: completion(prompt=[[1]] * OBJECTS),
        "many messages": lambda: chat(messages=[user("a")] * (OBJECTS // 5)),
        "many parts of a message": lambda: chat(messages=[user([{"type": "text", "text": ""}] * (OBJECTS // 4))]),
        "many pictures": lambda: chat(
            messages=[user([{"type": "image_url", "image_url": {"url": "data:,"}}] * (OBJECTS // 5))]
        ),
        "many lists": lambda: sent("/v1/chat/completions", b'{"messages":[' + b"[]," * (OBJECTS - 10) + b"1]}"),
        "many numbers": lambda: sent("/v1/completions", b'{"prompt":[' + b"1.234e5," * ITEMS + b"1]}"),
        "deep lists": lambda: sent("/v1/chat/completions", b"[" * N),
        "deep functions": lambda: chat(tools=[function(0, parameters=nested(deep // 2 - 5))]),
        "deep arguments": lambda: chat(messages=called("[" * N)),
        "many functions": lambda: chat(tools=[function(i) for i in range(OBJECTS // 16)]),
        "many calls": lambda: chat(messages=called('{"a":1}') * (OBJECTS // 40), tools=[function(0)]),
        "a function told of at length": lambda: chat(tools=[function(0, description="word " * (N // 5))]),
        "arguments of many things": lambda: chat(messages=called("{" + '"a":[{}],' * (OBJECTS // 4) + '"b":1}')),
        "a function that must be called, of many": lambda: chat(
            tools=[function(i) for i in range(OBJECTS // 16)], tool_choice="required"
        ),
        "many biases": lambda: chat(logit_bias={str(i): 1.0 for i in range(OBJECTS // 2)}),
        "many unknown fields": lambda: chat(**{f"field{i}": i for i in range(OBJECTS // 2)}),
        "many values for the template": lambda: chat(chat_template_kwargs={f"k{i}": i for i in range(OBJECTS // 2)}),
    }


def forms() -> dict[str, Callable[[], bytes]]:
    """What an answer must be."""
    wide = {f"p{i}": {"type": "string"} for i in range(400)}
    rules = "".join(f'r{i} ::= "a" | r{i + 1} r{i + 1}\n' for i in range(800))
    return {
        "a schema of many properties": lambda: schema({"type": "object", "properties": wide}),
        "a schema of more than it may have": lambda: schema(
            {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(OBJECTS // 5)}}
        ),
        "a deep schema": lambda: schema(nested(40)),
        "deep lists in a schema": lambda: schema(nested(80, "array")),
        "a schema with itself inside": lambda: schema({"$ref": "#"}),
        "a schema that repeats": lambda: schema({"type": "string", "pattern": "(a{1,1000}b{1,1000}){1,1000}"}),
        "a schema of lengths": lambda: schema({"type": "string", "minLength": 100_000, "maxLength": 200_000}),
        "a schema of many kinds": lambda: schema({"anyOf": [{"const": letters(50) + str(i)} for i in range(500)]}),
        "all of many": lambda: schema({"allOf": [{"type": "object", "properties": {f"p{i}": {}}} for i in range(200)]}),
        "a pattern": lambda: chat(guided_regex="(a|b|ab)*(c{1,500}d{1,500})*(.*e.*f.*g.*h){20}"),
        "a pattern of nothing": lambda: chat(guided_regex="(a*)*(b*)*" * 500),
        "choices": lambda: chat(guided_choice=[f"choice {i}" for i in range(1500)]),
        "more choices than there may be": lambda: chat(guided_choice=[f"{i}" for i in range(OBJECTS)]),
        "a grammar": lambda: chat(grammar="root ::= " + "( " * 400 + '"a"' + " | root)" * 400),
        "a grammar of many rules": lambda: chat(grammar=f'root ::= r0\n{rules}r800 ::= "b"'),
    }


def dialects() -> dict[str, Callable[[], bytes]]:
    """The other ways to ask."""
    return {
        "tokenize: short words": lambda: sent("/tokenize", {"content": "a b " * (N // 4)}),
        "tokenize: with pieces": lambda: sent("/tokenize", {"content": "a b " * (N // 4), "with_pieces": True}),
        "tokenize: what may be": lambda: sent("/tokenize", {"content": "a b " * 262_000, "with_pieces": True}),
        "tokenize: a word": lambda: sent("/tokenize", {"content": "a" * N}),
        "tokenize: marks": lambda: sent("/tokenize", {"content": "<|im_start|>" * (N // 12)}),
        "detokenize": lambda: sent("/detokenize", {"tokens": [1] * ITEMS}),
        "apply-template": lambda: sent("/apply-template", {"messages": [user("<|im_start|>" * (N // 12))]}),
        "embeddings": lambda: sent("/v1/embeddings", {"input": "word " * (N // 5)}),
        "infill": lambda: sent("/infill", {"input_prefix": "a" * (N // 2), "input_suffix": "a" * (N // 2)}),
        "infill: many files": lambda: sent(
            "/infill", {"input_prefix": "", "input_suffix": "", "input_extra": [{"text": "a"}] * (OBJECTS // 4)}
        ),
        "completion": lambda: sent("/completion", {"prompt": "word " * (FITTING // 5), "n_predict": 2}),
        "Ollama: a chat": lambda: sent("/api/chat", {"messages": [user("word " * (N // 5))]}),
        "Ollama: many messages": lambda: sent("/api/chat", {"messages": [user("a")] * (OBJECTS // 5)}),
        "Ollama: a text": lambda: sent("/api/generate", {"prompt": "word " * (FITTING // 5), "raw": True}),
        "Ollama: pictures": lambda: sent("/api/generate", {"prompt": "a", "images": ["A" * (N // 64)] * 64}),
        "Ollama: a context": lambda: sent("/api/generate", {"prompt": "a", "context": [1] * ITEMS}),
        "Ollama: embed": lambda: sent("/api/embed", {"input": ["word"] * OBJECTS}),
        "Ollama: show": lambda: sent("/api/show", {"model": "a" * N}),
        "Anthropic: a message": lambda: sent("/v1/messages", {"max_tokens": 2, "messages": [user("word " * (N // 5))]}),
        "Anthropic: many blocks": lambda: sent(
            "/v1/messages", {"max_tokens": 2, "messages": [user([{"type": "text", "text": "a"}] * (OBJECTS // 4))]}
        ),
        "Anthropic: count": lambda: sent("/v1/messages/count_tokens", {"messages": [user("word " * (FITTING // 5))]}),
        "Anthropic: count a long one": lambda: sent("/v1/messages/count_tokens", {"messages": [user("a " * (N // 2))]}),
        "Responses: a text": lambda: sent("/v1/responses", {"max_output_tokens": 2, "input": "word " * (N // 5)}),
        "Responses: many items": lambda: sent(
            "/v1/responses", {"max_output_tokens": 2, "input": [user("a")] * (OBJECTS // 5)}
        ),
    }


def wire() -> dict[str, Callable[[], bytes]]:
    """Of HTTP itself."""
    body = json.dumps({"prompt": "a" * 500_000, "max_tokens": 2}).encode()
    pieces = b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body))) + b"0\r\n\r\n"
    ask = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    return {
        "a body of single bytes": lambda: (
            HEAD.format("/v1/completions").encode() + b"Transfer-Encoding: chunked\r\n\r\n" + pieces
        ),
        "many headers": lambda: (
            b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a: b\r\n" * 9_000 + b"Connection: close\r\n\r\n"
        ),
        "a long header": lambda: b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nA: " + b"a" * 4_000_000 + b"\r\n\r\n",
        "a long address": lambda: (
            b"GET /v1/models/" + b"%61" * 20_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        ),
        "many requests at once": lambda: ask * 2_000 + last,
        "lines without an end": lambda: b"GET /health HTTP/1.1\r\n" + b"a" * 2_000_000,
        "no HTTP": lambda: bytes(4_000_000),
    }


def templates(models: Mapping[str, str]) -> dict[str, Callable[[], bytes]]:
    """Chats with models whose templates are hostile; their ids by the names of TEMPLATES."""

    def asked(model: str, text: str) -> Callable[[], bytes]:
        return lambda: chat(model=model, messages=[user(text)])

    return {f"a template that is {name}": asked(model, "<|im_start|>" * 30) for name, model in models.items()}


def all_kinds(models: Mapping[str, str]) -> list[Costly]:
    """The whole list."""
    kinds = {**texts(), **shapes(), **forms(), **dialects(), **wire(), **templates(models)}
    return [Costly(name, made) for name, made in kinds.items()]
