"""litellm, which aider and many agents speak through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.asked import ASK_WEATHER, HELLO, LONG, WEATHER, WEATHER_SCHEMA, is_weather
from tests.clients.conftest import Server


@pytest.fixture
def completion(server: Server) -> Any:
    litellm = pytest.importorskip("litellm", reason="pip install litellm")

    def ask(model: str, messages: Any, provider: str = "openai", base: str = "", **options: Any) -> Any:
        options = {"max_tokens": 12, **options}
        return litellm.completion(
            model=f"{provider}/{model}",
            messages=messages,
            api_base=base or server.v1,
            api_key="none",
            num_retries=0,
            **options,
        )

    return ask


def test_chat(completion: Any, server: Server) -> None:
    assert completion(server.talker, HELLO).choices[0].message.content


def test_chat_as_with_ollama(completion: Any, server: Server) -> None:
    assert completion(server.talker, HELLO, "ollama_chat", server.root).choices[0].message.content


def test_stream(completion: Any, server: Server) -> None:
    chunks = list(completion(server.talker, HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_tools(completion: Any, server: Server) -> None:
    reply = completion(server.caller, ASK_WEATHER, tools=[WEATHER], tool_choice="required", max_tokens=200)
    call = reply.choices[0].message.tool_calls[0]
    assert is_weather(json.loads(call.function.arguments))


def test_structured_output(completion: Any, server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER_SCHEMA, "strict": True}}
    reply = completion(server.talker, ASK_WEATHER, response_format=form, max_tokens=200)
    assert is_weather(json.loads(reply.choices[0].message.content))


def test_errors(completion: Any, server: Server) -> None:
    litellm = pytest.importorskip("litellm")
    with pytest.raises(litellm.ContextWindowExceededError):
        completion(server.talker, LONG)
    with pytest.raises(litellm.NotFoundError):
        completion("gpt-4", HELLO)
