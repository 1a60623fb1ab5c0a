"""Finds the tokenizer test data, and reads it as the metadata of a GGUF file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # tokenizer.ggml.token_type


def data_dir() -> Path:
    """The directory of SWARM_TEST_DATA; skips the test where it is not set."""
    root = os.environ.get("SWARM_TEST_DATA")
    if not root:
        pytest.skip("SWARM_TEST_DATA is not set: the shared test data is not here")
    return Path(root)


def metadata_of_gguf(path: Path) -> dict[str, object]:
    """The metadata of a vocabulary-only GGUF file."""
    from swarm.store.gguf import open_gguf

    with open_gguf(path) as model:
        return dict(model.metadata)


def metadata_of_tokenizer_json(path: Path, pre: str) -> dict[str, object]:
    """What a converter would write for a tokenizer.json of byte-level BPE."""
    data = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token for token in data["added_tokens"]}
    names = {i: token for token, i in data["model"]["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    types = [NORMAL if i not in added else CONTROL if added[i]["special"] else USER_DEFINED for i in range(len(names))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [names[i] for i in range(len(names))],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    }


def golden_pairs(name: str) -> list[tuple[str, list[int]]]:
    """The texts of ggml-vocab-NAME.gguf.inp with the ids of its .out."""
    base = data_dir() / "tokenizers" / "ggml-vocab" / f"ggml-vocab-{name}.gguf"
    texts = base.with_name(base.name + ".inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = base.with_name(base.name + ".out").read_text(encoding="utf-8").split("\n")
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=False)]
