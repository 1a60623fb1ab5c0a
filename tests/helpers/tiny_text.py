"""A vocabulary for small checkpoints: all bytes, some merges, and the special tokens of the families.

Its length is odd on purpose, so that the output's rows do not fill whole panels.
"""

from __future__ import annotations

import numpy as np

SPECIAL = (
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<think>",
    "</think>",
)
_NORMAL, _CONTROL = 1, 3
_PRE = {"chatglm": "chatglm-bpe", "glm4": "glm4", "glm4moe": "glm4", "llama": "llama-bpe"}
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in GPT-2 vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + moved.index(byte)) for byte in range(256)]


def _merges() -> list[str]:
    space = byte_characters()[ord(" ")]
    pairs = (
        "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri"
    )
    words = [f"{pair[0]} {pair[1]}" for pair in pairs.split()]
    starts = [f"{space} {letter}" for letter in "tasiwocbpfdmh"]
    return words + starts


MERGES = _merges()
VOCAB = [*byte_characters(), *(merge.replace(" ", "") for merge in MERGES), *SPECIAL]


def text_metadata(arch: str) -> dict[str, object]:
    """The tokenizer's keys of a GGUF file."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _PRE.get(arch, "qwen2"),
        "tokenizer.ggml.tokens": VOCAB,
        "tokenizer.ggml.token_type": np.array([_CONTROL if token in SPECIAL else _NORMAL for token in VOCAB], np.int32),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": VOCAB.index("[gMASK]"),
        "tokenizer.ggml.eos_token_id": VOCAB.index("<|endoftext|>"),
        "tokenizer.ggml.padding_token_id": VOCAB.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": _TEMPLATE,
    }
