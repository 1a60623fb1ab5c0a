"""OpenAI's client for Python: chats, completions, responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.asked import ASK_WEATHER, HELLO, LONG, WEATHER, WEATHER_SCHEMA, is_weather
from tests.clients.conftest import Server

FORMAT = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER_SCHEMA, "strict": True}}
FLAT = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    openai = pytest.importorskip("openai", reason="pip install openai")
    with openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0) as made:
        yield made


def test_lists(client: Any, server: Server) -> None:
    names = [model.id for model in client.models.list()]
    assert {server.talker, server.caller} <= set(names)
    for name in (server.talker, server.caller):
        assert client.models.retrieve(name).id == name


def test_chat(client: Any, server: Server) -> None:
    reply = client.chat.completions.create(model=server.talker, messages=HELLO, max_tokens=12, seed=-5)
    assert reply.choices[0].message.content and reply.usage.completion_tokens <= 12
    assert reply.model == server.talker


def test_stream(client: Any, server: Server) -> None:
    asked = {"model": server.talker, "messages": HELLO, "max_tokens": 12, "seed": 1}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].usage.total_tokens > 0


def test_tools(client: Any, server: Server) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    asked = {"model": server.caller, "messages": ASK_WEATHER, "tools": [WEATHER], "max_tokens": 200, "seed": 1}
    for demanded in ("required", choice):
        reply = client.chat.completions.create(**asked, tool_choice=demanded, parallel_tool_calls=False)
        (call,) = reply.choices[0].message.tool_calls
        assert call.function.name == "get_weather" and is_weather(json.loads(call.function.arguments))
        assert reply.choices[0].finish_reason == "tool_calls"
    messages = [
        *ASK_WEATHER,
        reply.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 20 degrees."},
    ]
    after = client.chat.completions.create(model=server.caller, messages=messages, tools=[WEATHER], max_tokens=12)
    assert after.choices[0].message.content is not None


def test_tools_streamed(client: Any, server: Server) -> None:
    with client.chat.completions.stream(
        model=server.caller,
        messages=ASK_WEATHER,
        tools=[WEATHER],
        tool_choice="required",
        max_tokens=200,
        parallel_tool_calls=False,
        seed=2,
    ) as stream:
        for _ in stream:
            pass
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert is_weather(json.loads(call.function.arguments))


def test_structured_output(client: Any, server: Server) -> None:
    pydantic = pytest.importorskip("pydantic")
    asked = {"model": server.talker, "messages": ASK_WEATHER, "max_tokens": 200, "seed": 1}
    reply = client.chat.completions.create(**asked, response_format=FORMAT)
    assert is_weather(json.loads(reply.choices[0].message.content))
    kind = pydantic.create_model("Weather", sunny=(bool, ...), days=(int, ...))
    parsed = client.chat.completions.parse(**asked, response_format=kind).choices[0].message.parsed
    assert isinstance(parsed.sunny, bool) and isinstance(parsed.days, int)


def test_json_mode(client: Any, server: Server) -> None:
    asked = {"model": server.talker, "messages": ASK_WEATHER, "max_tokens": 300, "temperature": 0}
    reply = client.chat.completions.create(**asked, response_format={"type": "json_object"})
    text = reply.choices[0].message.content
    assert text.startswith("{")
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


def test_logprobs(client: Any, server: Server) -> None:
    asked = {"model": server.talker, "messages": HELLO, "max_tokens": 4, "temperature": 0}
    reply = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    told = reply.choices[0].logprobs.content
    assert "".join(each.token for each in told).strip() == reply.choices[0].message.content.strip()
    assert all(each.logprob == each.top_logprobs[0].logprob for each in told), "greedy takes the likeliest"


def test_several_choices_and_prompts(client: Any, server: Server) -> None:
    reply = client.chat.completions.create(model=server.talker, messages=HELLO, max_tokens=6, n=2, seed=1)
    assert [choice.index for choice in reply.choices] == [0, 1]
    legacy = client.completions.create(model=server.talker, prompt=["Once", "The sea"], max_tokens=4, logprobs=2)
    assert len(legacy.choices) == 2 and all(len(c.logprobs.tokens) == 4 for c in legacy.choices)


def test_responses(client: Any, server: Server) -> None:
    asked = {"model": server.talker, "input": "Say hello.", "max_output_tokens": 12}
    assert client.responses.create(**asked).output_text
    events = list(client.responses.create(**asked, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text
    called = client.responses.create(
        model=server.caller,
        input=ASK_WEATHER,
        tools=[FLAT],
        tool_choice="required",
        max_output_tokens=200,
        parallel_tool_calls=False,
    )
    (call,) = [item for item in called.output if item.type == "function_call"]
    assert is_weather(json.loads(call.arguments))


def test_errors(client: Any, server: Server) -> None:
    openai = pytest.importorskip("openai")
    with pytest.raises(openai.NotFoundError, match="no device here has a model called 'gpt-4'"):
        client.chat.completions.create(model="gpt-4", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        client.chat.completions.create(model=server.talker, messages=HELLO, tools=[WEATHER])
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=server.talker, messages=LONG)
    assert caught.value.code == "context_length_exceeded"


def test_embeddings(client: Any, server: Server) -> None:
    """The client asks for base64 unless told otherwise, and reads both."""
    openai = pytest.importorskip("openai")
    texts = ["A cat sleeps.", "Stocks fell sharply."]
    reply = client.embeddings.create(model=server.talker, input=texts)
    assert [len(row.embedding) for row in reply.data] == [576, 576] and [row.index for row in reply.data] == [0, 1]
    assert reply.model == server.talker and reply.usage.prompt_tokens == reply.usage.total_tokens > 4
    floats = client.embeddings.create(model=server.talker, input=texts[1], encoding_format="float").data[0].embedding
    assert floats == pytest.approx(reply.data[1].embedding, abs=1e-7)
    short = client.embeddings.create(model=server.talker, input=texts[1], dimensions=64).data[0].embedding
    assert len(short) == 64 and sum(x * x for x in short) == pytest.approx(1, abs=1e-5)
    with pytest.raises(openai.BadRequestError, match="dimensions is 577"):
        client.embeddings.create(model=server.talker, input="x", dimensions=577)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.embeddings.create(model=server.talker, input=LONG[0]["content"])
