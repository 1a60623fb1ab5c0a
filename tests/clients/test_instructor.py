"""instructor: answers as objects."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.asked import ASK_WEATHER
from tests.clients.conftest import Server


@pytest.mark.parametrize("mode", ["JSON_SCHEMA", "TOOLS"])
def test_structured_output(server: Server, mode: str) -> None:
    instructor: Any = pytest.importorskip("instructor", reason="pip install instructor")
    openai = pytest.importorskip("openai")
    pydantic = pytest.importorskip("pydantic")
    kind = pydantic.create_model("Weather", sunny=(bool, ...), days=(int, ...))
    with openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0) as plain:
        client = instructor.from_openai(plain, mode=instructor.Mode[mode])
        found = client.chat.completions.create(
            model=server.caller, messages=ASK_WEATHER, response_model=kind, max_tokens=200, max_retries=1, temperature=0
        )
    assert isinstance(found.sunny, bool) and isinstance(found.days, int)
