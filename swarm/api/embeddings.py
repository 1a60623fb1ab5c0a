"""Embeddings in the words of OpenAI (/v1/embeddings), Ollama (/api/embed) and llama-server (/embedding).

A text is read as the prompt of an answer is, and takes its turn with answers; in place of a token comes the hidden
state after it (swarm/node/embedding.py).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from swarm.api.answering import answers_to
from swarm.api.body import parsed_body
from swarm.api.dialect import Json
from swarm.api.errors import BadRequest
from swarm.api.fields import converted
from swarm.api.models import found, plain_name
from swarm.api.openai_completions import prompts_of
from swarm.limits import MAX_EMBEDDED_TEXTS
from swarm.node.answer import Embedding, Question
from swarm.node.embedding import unit_vector

F32 = npt.NDArray[np.float32]
Texts = Sequence[str | list[int]]


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """Texts, or lists of token ids, of which vectors are to be made. Fields that are not listed change nothing."""

    input: Any  # as the prompt of a completion
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class OllamaEmbed(msgspec.Struct, kw_only=True):
    """/api/embed. Texts that are too long are cut unless `truncate` is false."""

    model: str = ""
    input: Any = None
    truncate: bool | None = None
    dimensions: int | None = None


class OllamaEmbeddings(msgspec.Struct, kw_only=True):
    """/api/embeddings, of before /api/embed: one text."""

    model: str = ""
    prompt: str = ""


class LlamaEmbedding(msgspec.Struct, kw_only=True):
    """/embedding, /embeddings."""

    content: Any = None
    input: Any = None
    model: str | None = None
    embd_normalize: int | None = None


@dataclass(frozen=True)
class Made:
    """The vectors of a request's texts, each of length 1, in their order, and what they took."""

    model: str
    vectors: list[F32]
    n_tokens: int
    took_s: float


async def openai(request: Request) -> Response:
    """POST /v1/embeddings."""
    wanted, texts = await parsed_body(request, parse_openai)
    made = await _made(request, wanted.model, texts, Embedding(wanted.dimensions))
    as_text = wanted.encoding_format == "base64"

    def row(index: int, vector: F32) -> Json:
        told = base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_text else vector.tolist()
        return {"object": "embedding", "index": index, "embedding": told}

    usage = {"prompt_tokens": made.n_tokens, "total_tokens": made.n_tokens}
    return _streamed({"object": "list", "model": made.model, "usage": usage}, "data", made, row)


async def ollama(request: Request) -> Response:
    """POST /api/embed; without a text it only asks whether the model is there."""
    wanted, texts = await parsed_body(request, parse_ollama)
    if not texts:
        await found(request, wanted.model)
        return JSONResponse({"model": wanted.model, "embeddings": []})
    made = await _made(request, wanted.model, texts, Embedding(wanted.dimensions, cuts=wanted.truncate is not False))
    figures = {"total_duration": int(1e9 * made.took_s), "load_duration": 0, "prompt_eval_count": made.n_tokens}
    return _streamed({"model": made.model, **figures}, "embeddings", made, lambda index, vector: vector.tolist())


async def ollama_old(request: Request) -> Response:
    """POST /api/embeddings."""
    wanted = await parsed_body(request, lambda body: converted(body, OllamaEmbeddings))
    if not wanted.prompt:
        await found(request, wanted.model)
        return JSONResponse({"embedding": []})
    made = await _made(request, wanted.model, [wanted.prompt], Embedding(cuts=True))
    return JSONResponse({"embedding": made.vectors[0].tolist() if made.vectors else []})


async def llama(request: Request) -> Response:
    """POST /embedding and /embeddings: a list, each with the vectors of its text, of which there is one."""
    wanted, texts = await parsed_body(request, parse_llama)
    made = await _made(request, wanted.model, texts, Embedding())
    return _streamed({}, "", made, lambda index, vector: {"index": index, "embedding": [vector.tolist()]})


def parse_openai(body: Json) -> tuple[EmbeddingsRequest, Texts]:
    """A request of /v1/embeddings; raise BadRequest naming the field that cannot be used."""
    wanted = converted(body, EmbeddingsRequest)
    return wanted, texts_of(wanted.input, "input")


def parse_ollama(body: Json) -> tuple[OllamaEmbed, Texts]:
    """A request of /api/embed."""
    wanted = converted(body, OllamaEmbed)
    return wanted, texts_of(wanted.input, "input") if wanted.input else ()


def parse_llama(body: Json) -> tuple[LlamaEmbedding, Texts]:
    """A request of /embedding."""
    wanted = converted(body, LlamaEmbedding)
    if wanted.embd_normalize not in (None, 2):
        raise BadRequest(
            f"embd_normalize is {wanted.embd_normalize}; vectors have length 1 here: say 2", "embd_normalize"
        )
    return wanted, texts_of(wanted.content if wanted.input is None else wanted.input, "content")


def texts_of(value: object, field: str) -> Texts:
    """The texts, or lists of token ids, that a field has; at most MAX_EMBEDDED_TEXTS."""
    texts = prompts_of(value, field)
    if len(texts) > MAX_EMBEDDED_TEXTS:
        raise BadRequest(f"{field} has {len(texts)} texts; the most is {MAX_EMBEDDED_TEXTS}: send it in parts", field)
    empty = next((i for i, text in enumerate(texts) if not text), None)
    if empty is not None:
        raise BadRequest(f"{field}[{empty}] is empty; an empty text has no vector", field)
    return texts


async def _made(request: Request, model: str | None, texts: Texts, embedding: Embedding) -> Made:
    """One text after the other, each in its turn; the first that cannot be ends all."""
    began_at = time.perf_counter()
    name = plain_name(model)
    questions = [Question(name, prompt=text, max_tokens=1, embedding=embedding) for text in texts]
    answers = await answers_to(request, questions)
    model = model or (answers[0].model.name if answers else "")
    # On a thread, and before the reply begins: where one is no vector, the request fails.
    vectors = await asyncio.to_thread(lambda: [unit_vector(each.vector, embedding.dimensions) for each in answers])
    return Made(model, vectors, sum(len(each.prompt) for each in answers), time.perf_counter() - began_at)


def _streamed(head: Json, field: str, made: Made, row: Callable[[int, F32], Any]) -> Response:
    """An object with `head` and the rows in `field`, or ("") the list of them; a row at a time, on a thread.

    Thousands of vectors are a hundred megabytes of JSON: made at once, they would hold the loop for seconds.
    """

    def pieces() -> Iterator[bytes]:
        yield (msgspec.json.encode(head)[:-1] + f',"{field}":['.encode()) if field else b"["
        for index, vector in enumerate(made.vectors):
            yield (b"," if index else b"") + msgspec.json.encode(row(index, vector))
        yield b"]}" if field else b"]"

    return StreamingResponse(pieces(), media_type="application/json")
