"""pydantic-ai: agents with functions and typed answers."""

from __future__ import annotations

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
