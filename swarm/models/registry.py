"""The table of families: what general.architecture may say, and the file that understands it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swarm.models import (
    chatglm,
    deepseek2,
    glm4,
    glm4moe,
    gpt_oss,
    granite,
    llama,
    mistral3,
    qwen2,
    qwen3,
    qwen3moe,
    smollm3,
)
from swarm.models.header import Header, TensorEntry
from swarm.models.spec import ModelSpec, MtpSpec

FAMILIES: dict[str, Callable[[Header], ModelSpec]] = {
    "chatglm": chatglm.declare,
    "deepseek2": deepseek2.declare,
    "glm4": glm4.declare,
    "glm4moe": glm4moe.declare,
    "gpt-oss": gpt_oss.declare,
    "granite": granite.declare,
    "granitemoe": granite.declare,
    "llama": llama.declare,
    "mistral3": mistral3.declare,
    "qwen2": qwen2.declare,
    "qwen3": qwen3.declare,
    "qwen3moe": qwen3moe.declare,
    "smollm3": smollm3.declare,
}


def spec_from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> ModelSpec:
    """The spec of a GGUF file, with every tensor it needs checked.

    Raise UnsupportedModel for a family or feature that Swarm does not run, BadModelFile for values or tensors that
    are missing or make no sense.
    """
    h = Header(metadata, tensors)
    return FAMILIES[h.arch](h)


def mtp_from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> MtpSpec | None:
    """The block of a GGUF file that predicts a further token; None where it has none, or none that is known here."""
    h = Header(metadata, tensors)
    return glm4moe.declare_mtp(h, glm4moe.declare(h)) if h.arch == "glm4moe" else None
