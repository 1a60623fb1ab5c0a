"""Small checkpoints as folders, as transformers would save them: config.json, safetensors files, a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swarm.convert.checkpoint import open_checkpoint
from tests.helpers.tiny import Tiny, make_weights
from tests.helpers.tiny_text import MERGES, SPECIAL, VOCAB
from tests.helpers.transformers_oracle import config_of, state_of

SHARDS = 3


def write_checkpoint(folder: Path, tiny: Tiny, *, dtype: str = "F32", seed: int = 1) -> Path:
    """Write the checkpoint's folder: values in float32, float16 or bfloat16, in several files."""
    folder.mkdir()
    state = {name: np.ascontiguousarray(values) for name, values in state_of(tiny, make_weights(tiny, seed)).items()}
    if tiny.tied:
        del state["lm_head.weight"]
    names = list(state)
    weight_map = {}
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        held = {name: state[name] for name in names[shard::SHARDS]}
        write_safetensors(folder / file, held, dtype)
        weight_map |= dict.fromkeys(held, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config_of(tiny)))
    write_tokenizer(folder)
    return folder


def split_experts(folder: Path, left_out: int = -1) -> None:
    """Write the folder's tensors anew, each expert's matrices on their own, as most checkpoints have them."""
    state: dict[str, np.ndarray] = {}
    for name, tensor in open_checkpoint(folder).tensors.items():
        values = tensor.floats()
        if ".experts." not in name:
            state[name] = values
            continue
        front, part = name.rsplit(".", 1)
        for i, matrix in enumerate(values):
            pieces = {part: matrix}
            if part == "gate_up_proj":
                pieces = dict(zip(("gate_proj", "up_proj"), np.split(matrix, 2), strict=True))
            if i != left_out:
                state |= {f"{front}.{i}.{piece}.weight": value for piece, value in pieces.items()}
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    write_safetensors(folder / "model.safetensors", state, "F32")


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], dtype: str) -> None:
    """A safetensors file, by hand: its package knows no bfloat16 without torch."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        kind = "U8" if values.dtype == np.uint8 else dtype
        raw = _encoded(values, kind)
        table[name] = {"dtype": kind, "shape": values.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(table).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def _encoded(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "BF16":
        return (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2", "U8": "u1"}[dtype]).tobytes()


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of the small vocabulary, cut as Qwen cuts."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    plain = [token for token in VOCAB if token not in SPECIAL]
    tokenizer = {
        "version": "1.0",
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": {**level, "type": "ByteLevel"},
        "decoder": {**level, "type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "vocab": {token: VOCAB.index(token) for token in plain},
            "merges": [merge.split(" ") for merge in MERGES],
        },
        "added_tokens": [{"id": VOCAB.index(t), "content": t, **flags} for t in SPECIAL],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
