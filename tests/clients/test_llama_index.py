"""llama-index, in an environment of its own: it wants an older openai than the other clients do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Server

PACKAGE = "llama-index-llms-openai-like"
SCRIPT = Path(__file__).parent / "apart" / "llama_index_chat.py"
INSTALL_S, RUN_S = 240, 120


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Any:
    """What the script's questions brought."""
    made = tmp_path_factory.mktemp("llama-index")
    python = str(made / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", made], check=True, timeout=INSTALL_S)
    install = [python, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check", PACKAGE]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index does not answer")
    if done.returncode:
        pytest.skip(f"no {PACKAGE}: {done.stderr[-200:]}")
    values = {"url": server.v1, "talker": server.talker, "caller": server.caller, "asked": "The weather in Paris?"}
    command = [python, SCRIPT, json.dumps(values)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False, cwd=made)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    print(f"apart {PACKAGE} {answers['version']}")  # for tools/client_table.py: it is not installed here
    return answers


def test_chat(said: Any) -> None:
    assert said["chat"] and said["completion"]


def test_stream(said: Any) -> None:
    assert said["stream"]


def test_tools(said: Any) -> None:
    assert said["calls"] == [["get_weather", ["city", "days"]]]


def test_errors(said: Any) -> None:
    assert said["long"] == "context_length_exceeded"
