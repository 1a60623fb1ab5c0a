"""Several devices answer, bit for bit, what one answers: real processes on loopback, every family, unequal memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from tests.helpers.nodes import Swarm, cost_of, memories_for
from tests.helpers.tiny import TINY, make_weights, write_tiny

CONTEXT = 256
SESSION = 160  # positions that there is memory for: a few more than a question and its answer take
QUESTION = [{"role": "user", "content": "Why is the sky blue, and what would the sea say about it?"}]
MAX_TOKENS = 60
SEED = 29  # with which every family below says more than five tokens
PARAMS = {"temperature": 0.9, "top_p": 0.95, "seed": SEED, "presence_penalty": 0.5}
# One checkpoint of each architecture, and one whose head is its embedding; the decoder's own tests cut all of them.
FAMILIES = (
    *("llama", "llama-tied", "chatglm", "glm4", "intellect3", "qwen2", "qwen3", "qwen3moe", "smollm3"),
    *("granite", "granitemoe-shared", "mistral3", "gpt-oss", "flash", "deepseek-lite"),
)


def alone(path: Path, max_tokens: int = MAX_TOKENS, kv: str = "f16") -> list[int]:
    """The ids that one device generates."""
    model = swarm.load(path, threads=1, context=CONTEXT, kv=kv)
    params = SamplingParams(temperature=0.9, top_p=0.95, seed=SEED, presence_penalty=0.5)
    generation = model.chat(QUESTION, max_tokens=max_tokens, params=params)
    assert generation.text or generation.thinking_text
    return generation.tokens


def body(model: str, max_tokens: int = MAX_TOKENS) -> dict[str, object]:
    return {"model": model, "messages": QUESTION, "max_tokens": max_tokens, **PARAMS}


def layers_held(node_status: dict[str, object]) -> dict[str, int]:
    """How many layers each device holds."""
    devices = node_status["devices"]
    assert isinstance(devices, list)
    return {d["name"]: sum(s["end"] - s["first"] for s in d["shards"]) for d in devices}


@pytest.mark.parametrize("layers", [(4, 2), (2, 2, 1), (1, 1, 1, 1, 1)], ids=len)
@pytest.mark.parametrize("name", FAMILIES)
def test_nodes_answer_what_one_answers_for_every_family(tmp_path: Path, name: str, layers: tuple[int, ...]) -> None:
    tiny = replace(TINY[name], n_layers=sum(layers))
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")
    memories = memories_for(cost_of(path), layers, SESSION)
    with Swarm(tmp_path / "swarm", memories, model=path, context=CONTEXT) as nodes:
        heard = [node.ask(body(nodes.model)) for node in nodes.nodes]
        held = layers_held(nodes.nodes[0].status())
    print(held)
    expected = alone(path)
    assert [answer.error for answer in heard] == [""] * len(layers)
    assert all(answer.tokens == expected for answer in heard), "every node is an entry"
    assert all(held.values()) and max(held.values()) < sum(layers)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_unequal_nodes_answer_what_one_answers_with_real_weights(tmp_path: Path, real_model: Path, n: int) -> None:
    cost = cost_of(real_model)
    layers = {2: (22, 8), 3: (14, 4, 12), 5: (8, 2, 9, 5, 6)}[n]
    memories = memories_for(cost, layers, CONTEXT)
    with Swarm(tmp_path / "swarm", memories, model=real_model, context=CONTEXT) as nodes:
        heard = [node.ask(body(nodes.model)) for node in (nodes.nodes[0], nodes.nodes[-1])]
        held = layers_held(nodes.nodes[0].status())
    print(held)
    expected = alone(real_model)
    assert [answer.error for answer in heard] == [""] * 2
    assert all(answer.tokens == expected for answer in heard)
    assert all(held.values()) and max(held.values()) < 30, "everybody took part, nobody held the whole model"


def test_keys_and_values_are_kept_as_the_entry_node_says(tmp_path: Path, real_model: Path) -> None:
    """On every stage of its sessions, whatever the others' setting is; the planner counts their bytes."""
    cost = cost_of(real_model).kept_as("q8_0")
    assert cost is not None
    memories = [size + 2_000_000 for size in memories_for(cost, (22, 8), CONTEXT)]
    with Swarm(tmp_path / "swarm", memories, model=real_model, context=CONTEXT, kv=("q8_0", "f16")) as nodes:
        eighths, halves = (node.ask(body(nodes.model)) for node in nodes.nodes)
        held = layers_held(nodes.nodes[0].status())
    print(held)
    assert (eighths.error, halves.error) == ("", "") and all(held.values())
    assert eighths.tokens == alone(real_model, kv="q8_0")
    assert halves.tokens == alone(real_model, kv="f16")
    assert eighths.tokens != halves.tokens
