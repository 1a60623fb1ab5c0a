"""Filling in a gap, asked of a real node whose model has the marks for it, in the words of three dialects."""

from __future__ import annotations

from pathlib import Path

from swarm.store.gguf import open_gguf
from swarm.text.infill import Infill, infill_ids
from swarm.text.tokenizer import Tokenizer
from tests.helpers.nodes import Swarm
from tests.helpers.tiny import TINY, make_weights, write_tiny
from tests.helpers.tiny_text import VOCAB

MARKS = {"<|system|>": "<|fim_prefix|>", "<|observation|>": "<|fim_suffix|>", "<|eot_id|>": "<|fim_middle|>"}
BEFORE, AFTER = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
N = 12


def test_a_gap_is_filled_in_from_both_sides_in_every_dialect(tmp_path: Path) -> None:
    tiny = TINY["qwen2"]
    tokens = [MARKS.get(token, token) for token in VOCAB]
    path = write_tiny(tmp_path / "coder.gguf", tiny, make_weights(tiny), "Q8_0", {"tokenizer.ggml.tokens": tokens})
    with open_gguf(path) as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    ids, _ = infill_ids("coder", tokenizer, Infill(BEFORE, AFTER))
    assert {tokens[i] for i in ids} >= set(MARKS.values())
    with Swarm(tmp_path / "swarm", [2_000_000_000], model=path, context=256) as nodes:
        (node,) = nodes.nodes
        greedy = {"model": nodes.model, "temperature": 0, "n_predict": N}
        asked = node.post("/completion", {"prompt": ids, **greedy})
        filled = node.post("/infill", {"input_prefix": BEFORE, "input_suffix": AFTER, **greedy})
        openai = {"model": nodes.model, "prompt": BEFORE, "temperature": 0, "max_tokens": N}
        completed = node.post("/v1/completions", {**openai, "suffix": AFTER})["choices"]
        plain = node.post("/v1/completions", openai)["choices"]
        options = {"temperature": 0, "num_predict": N}
        generated = node.post(
            "/api/generate",
            {"model": nodes.model, "prompt": BEFORE, "suffix": AFTER, "stream": False, "options": options},
        )
    print(asked, filled, completed, plain, generated)
    assert filled["content"] == asked["content"] != ""
    assert str(filled["content"]).startswith(completed[0]["text"])  # type: ignore[index]
    assert completed[0]["text"] == generated["response"] != plain[0]["text"]  # type: ignore[index]
