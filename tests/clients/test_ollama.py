"""Ollama's client for Python."""

from __future__ import annotations

import json
from operator import mul
from typing import Any

import pytest

from tests.clients.asked import ASK_WEATHER, HELLO, LONG, WEATHER, WEATHER_SCHEMA, is_weather
from tests.clients.conftest import CONTEXT, Server

SHORT = {"num_predict": 12}


@pytest.fixture
def client(server: Server) -> Any:
    ollama = pytest.importorskip("ollama", reason="pip install ollama")
    return ollama.Client(host=server.root)


def test_lists(client: Any, server: Server) -> None:
    names = {model.model for model in client.list().models}
    assert {f"{server.talker}:latest", f"{server.caller}:latest"} <= names
    shown = client.show(server.caller)
    assert "tools" in shown.capabilities and shown.modelinfo["llama.context_length"] == 1024
    assert "tools" not in client.show(server.talker).capabilities
    assert client.ps().models is not None


def test_chat(client: Any, server: Server) -> None:
    reply = client.chat(model=server.talker, messages=HELLO, options=SHORT)
    assert reply.message.content and reply.done and reply.eval_count <= 12
    assert client.generate(model=server.talker, prompt="Say hello.", options=SHORT).response


def test_stream(client: Any, server: Server) -> None:
    parts = list(client.chat(model=server.talker, messages=HELLO, options=SHORT, stream=True))
    assert "".join(part.message.content or "" for part in parts) and parts[-1].done
    assert not any(part.done for part in parts[:-1])


def test_tools(client: Any, server: Server) -> None:
    """Ollama knows no way to demand a call; what comes is text or a call."""
    reply = client.chat(model=server.caller, messages=ASK_WEATHER, tools=[WEATHER], options=SHORT)
    assert reply.message.content or reply.message.tool_calls
    called = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
    }
    after = [*ASK_WEATHER, called, {"role": "tool", "tool_name": "get_weather", "content": "Sunny."}]
    assert client.chat(model=server.caller, messages=after, tools=[WEATHER], options=SHORT).done


def test_structured_output(client: Any, server: Server) -> None:
    reply = client.chat(model=server.talker, messages=ASK_WEATHER, format=WEATHER_SCHEMA, options={"num_predict": 200})
    assert is_weather(json.loads(reply.message.content))


def test_errors(client: Any, server: Server) -> None:
    ollama = pytest.importorskip("ollama")
    with pytest.raises(ollama.ResponseError, match="no device here has a model") as caught:
        client.chat(model="llama3", messages=HELLO)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="the context holds"):
        client.chat(model=server.talker, messages=LONG)
    with pytest.raises(ollama.ResponseError, match="does not support tools"):
        client.chat(model=server.talker, messages=HELLO, tools=[WEATHER])
    with pytest.raises(ollama.ResponseError, match="the context holds"):
        client.embed(model=server.talker, input=LONG[0]["content"], truncate=False)


def test_embeddings(client: Any, server: Server) -> None:
    texts = ["A cat sleeps.", "A kitten naps.", "Stocks fell sharply."]
    reply = client.embed(model=server.talker, input=texts)
    cat, kitten, stocks = reply.embeddings
    assert len(cat) == 576 and abs(sum(x * x for x in cat) - 1) < 1e-5 and reply.prompt_eval_count > 9
    assert sum(map(mul, cat, kitten)) > sum(map(mul, cat, stocks))
    assert list(client.embeddings(model=server.talker, prompt=texts[0]).embedding) == list(cat)
    assert client.embed(model=server.talker, input=LONG[0]["content"]).prompt_eval_count == CONTEXT - 1, "it is cut"
