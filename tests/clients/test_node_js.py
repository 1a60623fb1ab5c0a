"""Clients for Node: OpenAI's, and the AI SDK. They come from npm; where it is not, or gives nothing, all is skipped."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.asked import ASK_WEATHER, HELLO, LONG, WEATHER, WEATHER_SCHEMA, is_weather
from tests.clients.conftest import Server

PACKAGES = ("openai", "ai", "@ai-sdk/openai-compatible")
SCRIPTS = Path(__file__).parent / "js"
INSTALL_S, RUN_S = 180, 120


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages are installed."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not here")
    made = tmp_path_factory.mktemp("node")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    try:
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not answer")
    if done.returncode:
        pytest.skip(f"npm gives none of {', '.join(PACKAGES)}: {done.stderr[-200:]}")
    for package in PACKAGES:  # tools/client_table.py reads which versions were tried
        told = json.loads((made / "node_modules" / package / "package.json").read_text(encoding="utf-8"))
        print(f"npm {package} {told['version']}")
    return made


def run(folder: Path, name: str, **values: object) -> Any:
    """What a script of js/ prints as JSON in its last line, given these values."""
    shutil.copy(SCRIPTS / name, folder / name)  # packages are found beside the script
    command = ["node", name, json.dumps(values)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_openai_lists_chats_and_streams(server: Server, folder: Path) -> None:
    said = run(folder, "openai_chat.mjs", url=server.v1, model=server.talker, messages=HELLO)
    assert {server.talker, server.caller} <= set(said["names"])
    assert said["whole"] and said["text"] == said["whole"] and said["total"] > 0 and said["output"]


def test_openai_calls_functions_and_hears_what_is_wrong(server: Server, folder: Path) -> None:
    asked = {"messages": ASK_WEATHER, "tool": WEATHER, "tooLong": LONG}
    said = run(folder, "openai_tools.mjs", url=server.v1, caller=server.caller, talker=server.talker, **asked)
    assert said["call"]["name"] == "get_weather" and is_weather(json.loads(said["call"]["arguments"]))
    assert said["wrong"] == {"kind": "NotFoundError", "code": "model_not_found"}
    assert said["long"] == {"kind": "BadRequestError", "code": "context_length_exceeded"}


def test_the_ai_sdk_chats_and_streams(server: Server, folder: Path) -> None:
    said = run(folder, "ai_sdk_chat.mjs", url=server.v1, talker=server.talker)
    assert said["whole"] and said["text"] == said["whole"] and said["usage"]["outputTokens"] > 0


def test_the_ai_sdk_gets_objects_and_calls(server: Server, folder: Path) -> None:
    asked = {"messages": ASK_WEATHER, "schema": WEATHER_SCHEMA}
    said = run(folder, "ai_sdk_tools.mjs", url=server.v1, talker=server.talker, caller=server.caller, **asked)
    assert is_weather(said["object"])
    assert said["calls"] and all(name == "get_weather" and is_weather(value) for name, value in said["calls"])
