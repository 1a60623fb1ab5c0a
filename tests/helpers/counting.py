"""A small GLM mixture that counts: after each token comes the next one, and its own block knows that."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.helpers.gguf_writer import write_gguf
from tests.helpers.tiny import TINY, gguf_metadata, make_weights, tensors_of
from tests.helpers.tiny_text import SPECIAL, VOCAB

N_COUNTED = len(VOCAB) - len(SPECIAL)  # tokens; after the last one comes the first one again
_ADDED = ("attn_output.weight", "ffn_down.weight", "ffn_down_exps.weight", "ffn_down_shexp.weight")


def after(token: int) -> int:
    """The token that comes after this one."""
    return (token + 1) % N_COUNTED


def make_counting(path: Path) -> Path:
    """Write it: no layer adds anything to a token, and the head's row of each token is what stands for the one before.

    The block takes the token that it is fed with as it is, and has the same head.
    """
    tiny = TINY["air"]
    tensors = tensors_of(tiny, make_weights(tiny))
    embedding = np.random.default_rng(5).standard_normal((tiny.vocab, tiny.hidden)).astype(np.float32)
    head = np.zeros_like(embedding)
    head[[after(token) for token in range(N_COUNTED)]] = embedding[:N_COUNTED]
    replaced = {"token_embd.weight": embedding, "output.weight": head}
    for name, (values, _) in tensors.items():
        if name.endswith(_ADDED):
            replaced[name] = np.zeros_like(values)
        elif name.endswith(("output_norm.weight", "enorm.weight", "hnorm.weight", "shared_head_norm.weight")):
            replaced[name] = np.ones_like(values)
        elif name.endswith("eh_proj.weight"):
            replaced[name] = np.eye(*values.shape, dtype=np.float32)
    kept = {name: (replaced.get(name, values), quant) for name, (values, quant) in tensors.items()}
    return write_gguf(path, gguf_metadata(tiny), kept)
