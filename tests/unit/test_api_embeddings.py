"""Embeddings in each dialect's words: what is asked, what comes, what is refused."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from swarm.errors import ContextFull
from swarm.limits import MAX_EMBEDDED_TEXTS
from swarm.node.answer import Embedding, Question
from tests.helpers.api_client import api_of
from tests.helpers.played_answer import PlayedAnswer

STATE = np.array([3.0, 0.0, 4.0], np.float32)
UNIT = [0.6000000238418579, 0.0, 0.800000011920929]  # as float32 has them


def api(asked: list[Question] | None = None, state: Any = STATE) -> TestClient:
    """A node of which each text has the same hidden state."""

    async def ask(question: Question) -> PlayedAnswer:
        if asked is not None:
            asked.append(question)
        answer = PlayedAnswer(question=question)
        answer.vector = state.tobytes()
        answer.inbox.put_nowait(None)
        return answer

    return api_of(ask=ask)


def test_openai_gets_a_vector_of_length_one_of_each_text() -> None:
    asked: list[Question] = []
    reply = api(asked).post("/v1/embeddings", json={"model": "tiny", "input": ["a", "b"]})
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/json"
    rows = [{"object": "embedding", "index": i, "embedding": UNIT} for i in range(2)]
    usage = {"prompt_tokens": 6, "total_tokens": 6}
    assert reply.json() == {"object": "list", "model": "tiny", "usage": usage, "data": rows}
    assert [question.prompt for question in asked] == ["a", "b"]
    assert all(question.embedding == Embedding() and question.asker for question in asked)


def test_openai_may_send_token_ids_and_ask_for_base64_and_for_fewer_dimensions() -> None:
    asked: list[Question] = []
    client = api(asked)
    body = {"input": [5, 6], "encoding_format": "base64", "dimensions": 1}
    (row,) = client.post("/v1/embeddings", json=body).json()["data"]
    assert np.frombuffer(base64.b64decode(row["embedding"]), "<f4").tolist() == [1.0]
    client.post("/v1/embeddings", json={"input": [[1], [2, 3]]})
    assert [question.prompt for question in asked] == [[5, 6], [1], [2, 3]]
    assert asked[0].embedding == Embedding(dimensions=1)


def test_ollama_gets_them_and_may_have_texts_cut() -> None:
    asked: list[Question] = []
    client = api(asked)
    reply = client.post("/api/embed", json={"model": "tiny:latest", "input": "a"}).json()
    assert reply["embeddings"] == [UNIT] and reply["prompt_eval_count"] == 3 and reply["total_duration"] > 0
    assert reply["model"] == "tiny:latest"
    client.post("/api/embed", json={"model": "tiny", "input": ["a"], "truncate": False})
    assert client.post("/api/embeddings", json={"model": "tiny", "prompt": "a"}).json() == {"embedding": UNIT}
    assert [question.embedding for question in asked] == [Embedding(cuts=True), Embedding(), Embedding(cuts=True)]
    assert {question.model for question in asked} == {"tiny"}


def test_llama_server_s_clients_get_a_list() -> None:
    for path, field in (("/embedding", "content"), ("/embeddings", "input")):
        reply = api().post(path, json={field: ["a", "b"]}).json()
        assert reply == [{"index": i, "embedding": [UNIT]} for i in range(2)]
    assert "embd_normalize is 0" in api().post("/embedding", json={"content": "a", "embd_normalize": 0}).text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "input is missing"),
        ({"input": ""}, "input[0] is empty"),
        ({"input": ["a", ""]}, "input[1] is empty"),
        ({"input": []}, "input must be a text"),
        ({"input": 5}, "input must be a text"),
        ({"input": [1.5]}, "input must be a text"),
        ({"input": ["a"] * (MAX_EMBEDDED_TEXTS + 1)}, f"the most is {MAX_EMBEDDED_TEXTS}"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": "many"}, "dimensions"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(body: dict[str, object], said: str) -> None:
    reply = api().post("/v1/embeddings", json=body)
    assert reply.status_code == 400 and said in reply.json()["error"]["message"]


@pytest.mark.parametrize("state", [np.zeros(3, np.float32), np.array([1, np.nan], np.float32), np.zeros(0, np.float32)])
def test_a_vector_that_is_none_is_an_error(state: Any) -> None:
    reply = api(state=state).post("/v1/embeddings", json={"input": "a"})
    assert reply.status_code == 503 and "a vector that is none" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/embeddings", {"input": "a"}, lambda reply: reply["error"]["code"] == "context_length_exceeded"),
        ("/api/embed", {"input": "a", "truncate": False}, lambda reply: reply == {"error": "it is too long"}),
    ],
)
def test_what_is_too_long_is_said_in_the_words_of_the_dialect(
    path: str, body: object, told: Callable[[Any], bool]
) -> None:
    async def too_long(question: Question) -> None:
        raise ContextFull("it is too long", n_tokens=90, context=80)

    reply = api_of(ask=too_long).post(path, json=body)
    assert reply.status_code == 400 and told(reply.json())
