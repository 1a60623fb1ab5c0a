"""Conversations are gone on with after a restart of all devices: real processes, the same text as computed anew."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from swarm.limits import MARK_TOKENS
from tests.helpers.nodes import NodeProcess, Swarm, cost_of, memories_for, wait_for
from tests.helpers.tiny import TINY, make_weights, write_tiny
from tests.swarm.test_prefixes import cached_for

CONTEXT = 512
PARAMS = {"temperature": 0.9, "top_p": 0.95, "seed": 7, "presence_penalty": 0.5}
SAMPLING = SamplingParams(temperature=0.9, top_p=0.95, seed=7, presence_penalty=0.5)
MAX_TOKENS = 30
LONG = "The keeper of the lighthouse has seen all ships of the sea, and the sea has seen him. " * 3
MESSAGES = [{"role": "system", "content": LONG}, {"role": "user", "content": "Why is the sky blue?"}]


def model_file(folder: Path, n_layers: int) -> Path:
    tiny = replace(TINY["qwen3"], n_layers=n_layers, ffn=8192)  # a layer is larger than all conversations
    return write_tiny(folder / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")


def restart(nodes: Swarm) -> None:
    """End all nodes as a service manager does, and start them again."""
    for node in nodes.nodes:
        node.signal(signal.SIGTERM)
    for node in nodes.nodes:
        node.start()
    for node in nodes.nodes:
        node.wait_ready()
    nodes.wait_mesh()


def kept_files(node: NodeProcess) -> list[Path]:
    return sorted(node.home.kept_kv.glob("*.kv"))


@pytest.mark.parametrize(
    ("layers", "layout"),
    [((4,), "pipeline"), ((2, 1, 2), "pipeline"), ((2, 2), "slices")],
    ids=["one device", "a pipeline of three", "two devices with slices"],
)
def test_a_conversation_is_found_again_after_a_restart(tmp_path: Path, layers: tuple[int, ...], layout: str) -> None:
    path = model_file(tmp_path, sum(layers))
    generation = swarm.load(path, threads=1, context=CONTEXT).chat(MESSAGES, max_tokens=MAX_TOKENS, params=SAMPLING)
    assert generation.text or generation.thinking_text
    n_prompt = len(generation.order.prompt)
    memories = memories_for(cost_of(path), layers, 4 * CONTEXT)
    body = {"messages": MESSAGES, "max_tokens": MAX_TOKENS, **PARAMS}
    with Swarm(tmp_path / "swarm", memories, model=path, context=CONTEXT, layout=layout) as nodes:
        node = nodes.nodes[0]
        heard = node.ask({"model": nodes.model, **body})
        assert heard.tokens == generation.tokens and heard.timings["cache_n"] == 0
        restart(nodes)
        for each in nodes.nodes:
            (file,) = kept_files(each)
            assert file.stat().st_mode & 0o777 == 0o600
        again = node.ask({"model": nodes.model, **body})
        assert again.tokens == generation.tokens
        assert again.timings["cache_n"] == (n_prompt - 1) // MARK_TOKENS * MARK_TOKENS > 2 * MARK_TOKENS
        restart(nodes)
        assert cached_for(node, "somebody else's", nodes.model, MESSAGES) == 0
        assert node.ask({"model": nodes.model, **body}).timings["cache_n"] == again.timings["cache_n"]


def test_damage_is_computed_again(tmp_path: Path) -> None:
    path = model_file(tmp_path, 3)
    memories = memories_for(cost_of(path), (1, 2), 4 * CONTEXT)
    with Swarm(tmp_path / "swarm", memories, model=path, context=CONTEXT) as nodes:
        node = nodes.nodes[0]
        body = {"model": nodes.model, "messages": MESSAGES, "max_tokens": MAX_TOKENS, **PARAMS}
        heard = node.ask(body)
        restart(nodes)
        (file,) = kept_files(nodes.nodes[1])
        data = bytearray(file.read_bytes())
        data[-100] ^= 1
        file.write_bytes(data)
        again = node.ask(body)
        assert again.tokens == heard.tokens and again.timings["cache_n"] == 0
        assert not file.exists(), "it is of no use"
        assert len(kept_files(node)) == 1


def test_nothing_is_kept_where_that_is_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARM_KV_DISK", "0")
    path = model_file(tmp_path, 2)
    with Swarm(
        tmp_path / "swarm", memories_for(cost_of(path), (2,), 4 * CONTEXT), model=path, context=CONTEXT
    ) as nodes:
        body = {"model": nodes.model, "messages": MESSAGES, "max_tokens": MAX_TOKENS, **PARAMS}
        heard = nodes.nodes[0].ask(body)
        restart(nodes)
        again = nodes.nodes[0].ask(body)
        assert again.tokens == heard.tokens and again.timings["cache_n"] == 0
        assert not nodes.nodes[0].home.kept_kv.exists()


def test_conversations_that_memory_has_no_room_for_are_read_again(tmp_path: Path) -> None:
    path = model_file(tmp_path, 2)
    memories = memories_for(cost_of(path), (2,), CONTEXT + CONTEXT // 2)
    with Swarm(tmp_path / "swarm", memories, model=path, context=CONTEXT) as nodes:
        node = nodes.nodes[0]
        bodies = [
            {"model": nodes.model, "messages": [{"role": "user", "content": f"{i}. {LONG}"}], "max_tokens": 5, **PARAMS}
            for i in range(4)
        ]
        first = [node.ask(body) for body in bodies]
        assert all(heard.timings["cache_n"] < MARK_TOKENS for heard in first), "they begin alike only in the template"
        wait_for(lambda: bool(kept_files(node)), "one of them to be written")
        assert len(kept_files(node)) == 1
        again = [node.ask(body) for body in bodies]
        assert [heard.tokens for heard in again] == [heard.tokens for heard in first]
        assert node.log.count("kv_read") >= 1
        assert any(heard.timings["cache_n"] == heard.n_prompt // MARK_TOKENS * MARK_TOKENS for heard in again)
