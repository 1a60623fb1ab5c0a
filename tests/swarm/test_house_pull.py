"""A house downloads a model once: each device brings its own part from a hub of ours, and all is counted there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.store import remote_gguf
from tests.helpers.hub import StandInHub
from tests.helpers.nodes import ROOT, NodeProcess, Swarm, cost_of, memories_for, wait_for
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

CONTEXT = 256


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for several units a layer, and longer than what is read of its beginning."""
    tiny = wide(TINY["llama"], ffn=8192)
    path = write_tiny(tmp_path_factory.mktemp("model") / "Tiny-F32.gguf", tiny, make_weights(tiny), "F32")
    assert path.stat().st_size > 2 * remote_gguf.FIRST_HEADER_BYTES
    return path


@pytest.fixture
def hub(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with StandInHub.of({"u/Tiny-GGUF": {model.name: model.read_bytes()}}) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


def pull(node: NodeProcess, hub: StandInHub, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swarm", "pull", *words, "--home", str(node.home.root)],
        env={**os.environ, **node.env, **hub.env()},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def memories(model: Path) -> list[int]:
    """Three devices of which two cannot hold the model."""
    cost = cost_of(model)
    third = -(-cost.n_layers // 3)
    return memories_for(cost, [third, third, cost.n_layers - 2 * third], CONTEXT)


def test_three_devices_bring_a_model_together_and_each_byte_once(model: Path, hub: StandInHub, tmp_path: Path) -> None:
    with Swarm(tmp_path, memories(model), context=CONTEXT) as swarm:
        first = swarm.nodes[0]
        done = pull(first, hub, "u/Tiny-GGUF:F32")
        assert done.returncode == 0, done.stderr
        assert "is in the swarm and verified" in done.stdout
        assert all(node.name in done.stderr for node in swarm.nodes), done.stderr
        assert "predicted: " in done.stderr, "what it will be like is said before the bytes come"

        # The beginning is read to know what the model is; all behind it comes once, by whomever.
        assert hub.sent_twice(beyond=remote_gguf.FIRST_HEADER_BYTES) == 0
        assert hub.sent_bytes() <= model.stat().st_size + remote_gguf.FIRST_HEADER_BYTES

        shares = [sum(d["n_have"] for d in node.status()["devices"][0]["models"]) for node in swarm.nodes]  # type: ignore[index]
        assert all(shares), shares
        heard = first.ask({"model": "tiny-llama", "prompt": "a", "max_tokens": 4, "temperature": 0})
        assert heard.error == "" and heard.finish
        n_bytes = hub.sent_bytes()
        listed = subprocess.run(
            [sys.executable, "-m", "swarm", "list", "--home", str(swarm.nodes[1].home.root)],
            env={**os.environ, **swarm.nodes[1].env},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        assert "tiny-llama" in listed and "parts on" in listed
        again = pull(swarm.nodes[2], hub, "u/Tiny-GGUF")
        assert again.returncode == 0, again.stderr
        assert hub.sent_bytes() <= n_bytes + remote_gguf.FIRST_HEADER_BYTES, "what the swarm has is not fetched again"


def test_a_device_that_dies_while_it_helps_is_replaced_by_the_others(
    model: Path, hub: StandInHub, tmp_path: Path
) -> None:
    hub.faults.bytes_per_s = 2e6
    with Swarm(tmp_path, memories(model), context=CONTEXT) as swarm:
        first, second, _ = swarm.nodes
        command = [sys.executable, "-m", "swarm", "pull", "u/Tiny-GGUF:F32", "--home", str(first.home.root)]
        env = {**os.environ, **first.env, **hub.env()}
        running = subprocess.Popen(
            command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: any((second.home.store / "gathering").glob("*/journal")), "the second device to help")
        second.kill()
        hub.faults.bytes_per_s = 0.0
        out, err = running.communicate(timeout=120)
        assert running.returncode == 0, err
        assert "is in the swarm and verified" in out


def test_a_hub_that_lies_is_found_out_and_nothing_stays(model: Path, hub: StandInHub, tmp_path: Path) -> None:
    hub.faults.lies = True
    with Swarm(tmp_path, memories(model), context=CONTEXT) as swarm:
        done = pull(swarm.nodes[0], hub, "u/Tiny-GGUF:F32")
        assert done.returncode == 1
        assert "it was thrown away on all devices" in done.stderr
        for node in swarm.nodes:
            wait_for(lambda node=node: not list((node.home.store / "models").iterdir()), "it to be gone")  # type: ignore[misc]


def test_a_pull_whose_node_was_killed_goes_on_with_what_all_devices_have(
    model: Path, hub: StandInHub, tmp_path: Path
) -> None:
    hub.faults.bytes_per_s = 4e6
    with Swarm(tmp_path, memories(model), context=CONTEXT) as swarm:
        first = swarm.nodes[0]
        command = [sys.executable, "-m", "swarm", "pull", "u/Tiny-GGUF:F32", "--home", str(first.home.root)]
        env = {**os.environ, **first.env, **hub.env()}
        running = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: hub.sent_bytes() > model.stat().st_size // 2, "half of it to come")
        first.kill()
        running.wait(timeout=60)
        hub.faults.bytes_per_s = 0.0
        first.start()
        first.wait_ready()
        swarm.wait_mesh()
        done = pull(first, hub, "u/Tiny-GGUF:F32")
        assert done.returncode == 0, done.stderr
        # What was on its way when it was killed, a unit for each of its streams, comes again.
        assert hub.sent_twice(beyond=remote_gguf.FIRST_HEADER_BYTES) < 40_000_000, hub.sent_twice()
