"""Ollama's own client has a real node fetch a model from a hub of ours, ask it, and delete it again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.hub import StandInHub
from tests.helpers.nodes import Swarm, cost_of, memories_for
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

CONTEXT = 256
NAME = "hf.co/u/Tiny-GGUF:Q8_0"


@contextlib.contextmanager
def client_of(port: int, token: str) -> Iterator[Any]:
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {token}"})
    try:
        yield client
    finally:
        client._client.close()


@pytest.mark.parametrize("n_devices", [1, 3])
def test_a_model_comes_is_asked_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_devices: int) -> None:
    ollama = pytest.importorskip("ollama")
    tiny = wide(TINY["llama"], ffn=8192)
    path = write_tiny(tmp_path / "Tiny-Q8_0.gguf", tiny, make_weights(tiny), "Q8_0")
    cost = cost_of(path)
    third = -(-cost.n_layers // 3)
    layers = [cost.n_layers] if n_devices == 1 else [third, third, cost.n_layers - 2 * third]
    with StandInHub.of({"u/Tiny-GGUF": {path.name: path.read_bytes()}}) as hub:
        for name, value in hub.env().items():
            monkeypatch.setenv(name, value)
        with Swarm(tmp_path / "swarm", memories_for(cost, layers, CONTEXT), context=CONTEXT) as swarm:
            local = swarm.nodes[0].local
            assert local is not None
            refused = pytest.raises(ollama.ResponseError, match="only the user of this device")
            with client_of(local.api_port, "another") as stranger, refused:
                stranger.pull(NAME)
            assert hub.sent_bytes() == 0
            with client_of(local.api_port, local.token) as client:
                comes_and_goes(client, tmp_path / "swarm" / "models", n_devices)


def comes_and_goes(client: Any, models: Path, n_devices: int) -> None:
    steps = list(client.pull(NAME, stream=True))
    assert steps[0].status == "pulling manifest" and steps[-1].status == "success"
    assert any(step.total and step.completed for step in steps)
    assert client.pull(NAME).status == "success", "it is here already"
    (listed,) = [model.model for model in client.list().models if "tiny" in model.model.lower()]
    answer = client.generate(listed, "a", raw=True, options={"num_predict": 3, "temperature": 0})
    assert answer.done
    if n_devices == 1:
        assert list(models.glob("*.gguf"))
        client.delete(listed)
        assert not list(models.glob("*.gguf"))
        assert not [model for model in client.list().models if "tiny" in model.model.lower()]
    with pytest.raises(pytest.importorskip("ollama").ResponseError):
        list(client.pull("hf.co/u/nothing-there", stream=True))
