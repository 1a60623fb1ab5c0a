"""Anthropic's client for Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.asked import ASK_WEATHER, HELLO, LONG, WEATHER_SCHEMA, is_weather
from tests.clients.conftest import Server

TOOL = {"name": "get_weather", "description": "The weather of a city.", "input_schema": WEATHER_SCHEMA}


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    anthropic = pytest.importorskip("anthropic", reason="pip install anthropic")
    with anthropic.Anthropic(base_url=server.root, api_key="none", max_retries=0) as made:
        yield made


def test_lists(client: Any, server: Server) -> None:
    assert {server.talker, server.caller} <= {model.id for model in client.models.list()}
    count = client.messages.count_tokens(model=server.talker, messages=HELLO)
    assert count.input_tokens > 5


def test_chat(client: Any, server: Server) -> None:
    reply = client.messages.create(model=server.talker, messages=HELLO, max_tokens=12, system="Be kind.")
    assert reply.content[0].text and reply.stop_reason in ("end_turn", "max_tokens")
    assert reply.usage.output_tokens <= 12


def test_stream(client: Any, server: Server) -> None:
    with client.messages.stream(model=server.talker, messages=HELLO, max_tokens=12) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text and final.content[0].text == text and final.usage.output_tokens > 0


def test_tools(client: Any, server: Server) -> None:
    asked = {"model": server.caller, "messages": ASK_WEATHER, "tools": [TOOL], "max_tokens": 200}
    reply = client.messages.create(**asked, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    (use,) = [block for block in reply.content if block.type == "tool_use"]
    assert reply.stop_reason == "tool_use" and use.name == "get_weather" and is_weather(use.input)
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "Sunny."}
    messages = [*ASK_WEATHER, {"role": "assistant", "content": reply.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(model=server.caller, messages=messages, tools=[TOOL], max_tokens=8).content


def test_tools_streamed(client: Any, server: Server) -> None:
    asked = {"model": server.caller, "messages": ASK_WEATHER, "tools": [TOOL], "max_tokens": 200}
    choice = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    with client.messages.stream(**asked, tool_choice=choice) as stream:
        final = stream.get_final_message()
    assert is_weather(final.content[-1].input)


def test_errors(client: Any, server: Server) -> None:
    anthropic = pytest.importorskip("anthropic")
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude", messages=HELLO, max_tokens=5)
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        client.messages.create(model=server.talker, messages=LONG, max_tokens=5)


def test_structured_output(client: Any, server: Server) -> None:
    form = {"format": {"type": "json_schema", "schema": WEATHER_SCHEMA}}
    reply = client.messages.create(
        model=server.talker, messages=ASK_WEATHER, max_tokens=200, extra_body={"output_config": form}
    )
    assert is_weather(json.loads(reply.content[0].text))
