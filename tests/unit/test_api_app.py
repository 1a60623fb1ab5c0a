"""The routes: who is asked what, and errors in the shape of whichever dialect is spoken there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from swarm.answers import Piece
from swarm.errors import ContextFull, ModelNotFound
from tests.helpers.api_client import api_of, returns
from tests.helpers.played_answer import PlayedAnswer

ASKED = {"messages": [{"role": "user", "content": "hi"}], "stream": False}


def test_health_is_told() -> None:
    api = api_of(peer="ab", name="attic", n_others=2)
    assert api.get("/health").json() == {"status": "ok", "peer": "ab", "name": "attic", "devices": 3}
    assert api.get("/v1/nothing").json()["error"]["message"] == "GET /v1/nothing: not found"
    assert api.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert api.get("/v1/chat/completions").headers["allow"] == "POST"
    assert api.get("/health", headers={"host": "evil.example"}).status_code == 403
    assert api.head("/").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/chat/completions", ASKED, lambda reply: reply["choices"][0]["message"]["content"]),
        ("/v1/completions", {"prompt": "a"}, lambda reply: reply["choices"][0]["text"]),
        ("/v1/responses", {"input": "hi"}, lambda reply: reply["output"][0]["content"][0]["text"]),
        ("/v1/messages", {**ASKED, "max_tokens": 9}, lambda reply: reply["content"][0]["text"]),
        ("/api/chat", ASKED, lambda reply: reply["message"]["content"]),
        ("/api/generate", {"prompt": "a", "stream": False}, lambda reply: reply["response"]),
    ],
)
def test_every_dialect_is_answered(path: str, body: object, said: object) -> None:
    ask = returns(PlayedAnswer(Piece("yes")))
    reply = api_of(ask=ask).post(path, json=body)
    assert reply.status_code == 200
    assert said(reply.json()) == "yes"  # type: ignore[operator]
    assert reply.json()["model"] in ("tiny",)
    ((question,),) = ask.calls
    assert question.asker


async def too_long(question: object) -> None:
    raise ContextFull("it is too long", n_tokens=9031, context=8192)


def test_errors_have_the_shape_and_the_words_that_clients_look_for() -> None:
    api = api_of(ask=too_long)
    openai = api.post("/v1/chat/completions", json=ASKED)
    assert openai.status_code == 400
    error = openai.json()["error"]
    assert "maximum context length is 8192 tokens" in error["message"]
    assert "exceeds the available context size" in error["message"]
    assert (error["code"], error["n_prompt_tokens"], error["n_ctx"]) == ("context_length_exceeded", 9031, 8192)
    anthropic = api.post("/v1/messages", json={**ASKED, "max_tokens": 9}).json()
    assert anthropic == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "prompt is too long: 9031 tokens > 8192 maximum"},
    }
    assert api.post("/api/chat", json=ASKED).json() == {"error": "it is too long"}
    assert api.get("/api/nothing").json() == {"error": "GET /api/nothing: not found"}


def test_ollama_s_clients_may_ask_nothing() -> None:
    async def answerable() -> list[object]:
        return []

    library = SimpleNamespace(find=lambda name: None, not_found=lambda name, names: ModelNotFound(f"no {name}"))
    api = api_of(answerable=answerable, library=library)
    assert api.post("/api/chat", json={"model": "x"}).json() == {"error": "no x"}
    assert api.post("/api/chat", json={"model": "x"}).status_code == 404


def test_what_nobody_here_can_do_is_said_by_name() -> None:
    api = api_of()
    assert api.post("/api/create", json={}).status_code == 501
    assert "/api/push is not supported" in api.post("/api/push", json={}).json()["error"]
