"""Which kinds of GGUF file there are, and which of them Swarm runs: told by the metadata alone, before any tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarm.errors import BadModelFile, UnsupportedModel

# What general.architecture may say; swarm/models has a file for each.
ARCHITECTURES = (
    "chatglm",
    "deepseek2",
    "glm4",
    "glm4moe",
    "gpt-oss",
    "granite",
    "granitemoe",
    "llama",
    "mistral3",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "smollm3",
)

# How makers call their architectures.
_MAKERS = (
    ("glm",),
    ("qwen",),
    ("mistral", "mixtral"),
    ("llama",),
    ("deepseek",),
    ("granite",),
    ("smollm",),
    ("gpt-oss",),
)

MAX_QUOTED = 80  # characters of a file's text shown in a message

# What lies beside models under the same ending, by general.type or general.architecture, and what to do with it.
_VISION_PART = "it is the part of a model that sees or hears; give the model itself, another file of the same folder"
_CONTROL_VECTOR = "it is a control vector, not a model; give the model that it was made for"
_IMPORTANCE_MATRIX = "it is an importance matrix, not a model; give a model file of the same folder"
_OTHER_KINDS = {
    "adapter": "it is an adapter (LoRA), not a model; merge it into its base model, and give that",
    "mmproj": _VISION_PART,
    "clip": _VISION_PART,
    "imatrix": _IMPORTANCE_MATRIX,
    "vocab": "it is a vocabulary without a model; give the model itself",
    "control_vector": _CONTROL_VECTOR,
    "controlvector": _CONTROL_VECTOR,
}


def architecture(metadata: Mapping[str, Any]) -> str:
    """The value of general.architecture, one of ARCHITECTURES.

    Raise UnsupportedModel for another one or for a file that is no model, BadModelFile when the file does not say.
    """
    arch = metadata.get("general.architecture")
    for kind in (metadata.get("general.type"), arch):
        if isinstance(kind, str) and kind in _OTHER_KINDS:
            raise UnsupportedModel(_OTHER_KINDS[kind])
    if arch is None and "imatrix.chunk_count" in metadata:
        raise UnsupportedModel(_IMPORTANCE_MATRIX)
    if not isinstance(arch, str) or not arch:
        raise BadModelFile(f"general.architecture is {quoted(arch)}: the file does not say which kind of model it is")
    if arch not in ARCHITECTURES:
        near = nearest(arch)
        hint = f"; nearest to it, {' and '.join(near)}" if near else ""
        raise UnsupportedModel(f"model architecture {quoted(arch)}: Swarm runs {', '.join(ARCHITECTURES)}{hint}")
    return arch


def nearest(arch: str) -> tuple[str, ...]:
    """What Swarm runs of the makers of an architecture that it does not: another model of theirs may do."""
    makers = next((names for names in _MAKERS if any(name in arch.lower() for name in names)), ())
    return tuple(runs for runs in ARCHITECTURES if any(name in runs for name in makers))


def quoted(value: Any) -> str:
    """A file's value as it may be shown: escaped, and cut when long."""
    if hasattr(value, "__len__") and not isinstance(value, str | bytes):
        return f"a list of {len(value)}"
    text = ascii(value)
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "..."
