"""Simon Willison's `llm`, as a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Server


@pytest.fixture
def run(server: Server, tmp_path: Path) -> object:
    pytest.importorskip("llm", reason="pip install llm")
    models = [
        {"model_id": name, "model_name": name, "api_base": server.v1, "supports_schema": True, "supports_tools": True}
        for name in (server.talker, server.caller)
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML

    def ask(*arguments: str) -> str:
        env = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


def test_chat(run: object, server: Server) -> None:
    assert run("-m", server.talker, "-o", "max_tokens", "12", "--no-stream", "Say hello.").strip()  # type: ignore[operator]


def test_stream(run: object, server: Server) -> None:
    assert run("-m", server.talker, "-o", "max_tokens", "12", "Say hello.").strip()  # type: ignore[operator]


def test_structured_output(run: object, server: Server) -> None:
    answer = run("-m", server.talker, "--schema", "sunny bool, days int", "The weather in Paris?")  # type: ignore[operator]
    found = json.loads(answer)
    assert isinstance(found["sunny"], bool) and isinstance(found["days"], int)
