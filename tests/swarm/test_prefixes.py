"""What two conversations of one asker have in common is computed once: real processes, the same text as without."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from tests.helpers.nodes import PATIENCE_S, Heard, NodeProcess, Swarm, cost_of, memories_for
from tests.helpers.tiny import TINY, make_weights, write_tiny

CONTEXT = 512
SYSTEM = "You are a lighthouse keeper who answers in short and clear words, and who has seen all ships of the sea. " * 2
QUESTIONS = ("Why is the sky blue?", "Which ship is the fastest one, and who built it?")
PARAMS = {"temperature": 0.9, "top_p": 0.95, "seed": 7, "presence_penalty": 0.5}
SAMPLING = SamplingParams(temperature=0.9, top_p=0.95, seed=7, presence_penalty=0.5)
MAX_TOKENS = 30


def conversation(question: str) -> list[dict[str, str]]:
    """The system prompt, and a question."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def alone(path: Path, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """The prompt's ids and the answer's, of a device that has never heard anything."""
    model = swarm.load(path, threads=1, context=CONTEXT)
    generation = model.chat(messages, max_tokens=MAX_TOKENS, params=SAMPLING)
    assert generation.text or generation.thinking_text
    return list(generation.order.prompt), generation.tokens


def going_on(path: Path, ids: list[int]) -> list[int]:
    """What such a device says after these ids."""
    generation = swarm.load(path, threads=1, context=CONTEXT).generate(ids, max_tokens=MAX_TOKENS, params=SAMPLING)
    list(generation)
    return generation.tokens


def ask(node: NodeProcess, model: str, messages: list[dict[str, str]], **more: object) -> Heard:
    body = {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, **PARAMS}
    heard = node.ask(body, **more)  # type: ignore[arg-type]
    assert heard.error == ""
    return heard


def cached_for(node: NodeProcess, key: str, model: str, messages: list[dict[str, str]]) -> int:
    """The tokens that were reused for whoever has this key."""
    assert node.local is not None
    connection = node.local.connect(PATIENCE_S)
    body = json.dumps({"model": model, "messages": messages, "max_tokens": 1})
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    reply = json.loads(connection.getresponse().read())
    connection.close()
    n = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert reply["timings"]["cache_n"] == n
    return int(n)


@pytest.mark.parametrize("layers", [(4,), (2, 1, 2)], ids=["one device", "a pipeline of three"])
def test_a_system_prompt_is_computed_once(tmp_path: Path, layers: tuple[int, ...]) -> None:
    tiny = replace(TINY["qwen3"], n_layers=sum(layers), ffn=8192)  # a layer is larger than all conversations
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")
    first, second = conversation(QUESTIONS[0]), conversation(QUESTIONS[1])
    first_ids, first_tokens = alone(path, first)
    second_ids, second_tokens = alone(path, second)
    common = next(i for i, (a, b) in enumerate(zip(first_ids, second_ids, strict=False)) if a != b)
    assert common > 50, "the system prompt is most of it"
    memories = memories_for(cost_of(path), layers, 4 * CONTEXT)  # room for several conversations
    with Swarm(tmp_path / "swarm", memories, model=path, context=CONTEXT) as nodes:
        node = nodes.nodes[0]
        beside: list[Heard] = []

        def ask_beside(heard: Heard) -> None:
            if not beside:
                beside.append(ask(node, nodes.model, second))

        heard = ask(node, nodes.model, first, on_piece=ask_beside)  # the second begins while the first is answered
        held = [d["name"] for d in node.status()["devices"] if d["shards"]]  # type: ignore[attr-defined]
        assert len(held) == len(layers)
        assert heard.tokens == first_tokens and heard.timings["cache_n"] == 0
        assert beside[0].tokens == second_tokens and beside[0].timings["cache_n"] == common
        again = ask(node, nodes.model, second)  # nothing but its last token is new
        assert again.tokens == second_tokens and again.timings["cache_n"] == len(second_ids) - 1
        for ids, said in ((first_ids, heard), (second_ids, again)):  # both conversations are whole, and go on
            more = [*ids, *said.tokens, 7, 8, 9]
            turn = node.ask({"model": nodes.model, "prompt": more, "max_tokens": MAX_TOKENS, **PARAMS})
            assert turn.tokens == going_on(path, more)
            assert turn.timings["cache_n"] >= len(ids) + len(said.tokens) - 1
        assert cached_for(node, "somebody else's", nodes.model, second) == 0
        assert cached_for(node, "somebody else's", nodes.model, second) == len(second_ids) - 1
