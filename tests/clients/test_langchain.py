"""langchain-openai."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.asked import WEATHER, WEATHER_SCHEMA, is_weather
from tests.clients.conftest import Server

ASKED = "What will the weather be in Paris for 3 days?"
TITLED = {"title": "weather", "description": "The weather.", **WEATHER_SCHEMA}


@pytest.fixture
def model_of(server: Server) -> Any:
    langchain_openai = pytest.importorskip("langchain_openai", reason="pip install langchain-openai")

    def make(model: str, **options: Any) -> Any:
        options = {"max_tokens": 200, **options}
        return langchain_openai.ChatOpenAI(model=model, base_url=server.v1, api_key="none", max_retries=0, **options)

    return make


def test_chat(model_of: Any, server: Server) -> None:
    assert model_of(server.talker, max_tokens=12).invoke("Say hello.").content


def test_stream(model_of: Any, server: Server) -> None:
    assert "".join(chunk.content for chunk in model_of(server.talker, max_tokens=12).stream("Say hello."))


def test_tools(model_of: Any, server: Server) -> None:
    bound = model_of(server.caller).bind_tools([WEATHER], tool_choice="get_weather", parallel_tool_calls=False)
    (call,) = bound.invoke(ASKED).tool_calls
    assert call["name"] == "get_weather" and is_weather(call["args"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(model_of: Any, server: Server, method: str) -> None:
    model = model_of(server.caller).with_structured_output(TITLED, method=method)
    assert is_weather(model.invoke(ASKED))


def test_errors(model_of: Any, server: Server) -> None:
    openai = pytest.importorskip("openai")
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        model_of(server.talker).invoke("word " * 1500)
