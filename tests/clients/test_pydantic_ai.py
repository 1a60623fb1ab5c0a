"""pydantic-ai: agents with functions and typed answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.clients.conftest import Server

ASKED = "What will the weather be in Paris for 3 days?"


@pytest.fixture
def agent_of(server: Server) -> Any:
    pydantic_ai = pytest.importorskip("pydantic_ai", reason="pip install 'pydantic-ai-slim[openai]'")
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")

    def make(model: str, **options: Any) -> Any:
        provider = providers.OpenAIProvider(base_url=server.v1, api_key="none")
        chat = models.OpenAIChatModel(model, provider=provider)
        return pydantic_ai.Agent(chat, model_settings={"max_tokens": 200, "seed": 1}, **options)

    return make


def test_chat(agent_of: Any, server: Server) -> None:
    assert agent_of(server.talker).run_sync("Say hello.").output


def test_structured_output(agent_of: Any, server: Server) -> None:
    pydantic = pytest.importorskip("pydantic")
    kind = pydantic.create_model("Weather", sunny=(bool, ...), days=(int, ...))
    found = agent_of(server.caller, output_type=kind).run_sync(ASKED).output
    assert isinstance(found.sunny, bool) and isinstance(found.days, int)


def test_stream(agent_of: Any, server: Server) -> None:
    async def streamed() -> str:
        async with agent_of(server.talker).run_stream("Say hello.") as run:
            return "".join([text async for text in run.stream_text(delta=True)])

    assert asyncio.run(streamed())


def test_tools(agent_of: Any, server: Server) -> None:
    """A typed answer beside a function: the model must end with one of the two, and a small one may call for ever."""
    exceptions = pytest.importorskip("pydantic_ai.exceptions")
    agent, asked = agent_of(server.caller, retries=2), []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        asked.append(city)
        return "Sunny."

    try:
        assert agent.run_sync(ASKED).output
    except exceptions.UnexpectedModelBehavior:
        assert asked
