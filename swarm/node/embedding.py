"""A text becomes a vector: which of a model's hidden states it is, and how long.

A model that writes text knows all of it behind its last token, so the hidden state there, behind the last norm, stands
for the text; models that were trained to embed say so (`pooling_type`). It is made of length 1, as programs expect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from swarm.errors import ConfigError, SwarmNetworkError
from swarm.node.answer import Embedding
from swarm.node.library import KnownModel
from swarm.text.model_text import Prompt

F32 = npt.NDArray[np.float32]
FIRST, LAST = 2, 3  # of llama.cpp's kinds of pooling
OTHER_KINDS = {0: "none: a vector of each token", 1: "the mean of all tokens", 4: "a rank of two texts"}


def embedding_prompt(model: KnownModel, text: str | Sequence[int], context: int, *, cuts: bool) -> Prompt:
    """What the model is given, the last token of which its vector is taken after; slow when a model is new.

    Raise ConfigError for a model whose vectors are made in a way that is not done here.
    """
    pooling = pooling_of(model)
    prompt = model.text.embedded(text, context=context, cuts=cuts)
    return prompt if pooling == LAST else prompt._replace(ids=prompt.ids[:1])  # no later token is seen there


def pooling_of(model: KnownModel) -> int:
    """FIRST or LAST."""
    metadata = model.source.metadata
    kind = metadata.get(f"{metadata.get('general.architecture')}.pooling_type", LAST)
    if kind not in (FIRST, LAST):
        words = OTHER_KINDS.get(kind, "unknown") if isinstance(kind, int) else "unknown"
        raise ConfigError(
            f"{model.name} makes its vectors with pooling_type {kind!r:.20} ({words}), which is not done here; "
            "take a model with pooling_type 3 (the last token), or one whose file does not say"
        )
    return int(kind)


def check_embedding(embedding: Embedding, model: KnownModel) -> None:
    """Raise ConfigError when the model has fewer dimensions than are asked for."""
    most = model.spec.hidden
    if embedding.dimensions is not None and not 1 <= embedding.dimensions <= most:
        raise ConfigError(f"dimensions is {embedding.dimensions}; {model.name} makes vectors of 1 to {most}")


def unit_vector(data: bytes, dimensions: int | None = None) -> F32:
    """The first `dimensions` of a hidden state, of length 1. Raise SwarmNetworkError for one that has no direction."""
    state = np.frombuffer(data, "<f4")[:dimensions].astype(np.float64)
    length = math.sqrt(math.fsum(np.square(state).tolist())) if np.isfinite(state).all() else math.nan
    if not 0 < length < math.inf:
        raise SwarmNetworkError("the model made a vector that is none; its file may be damaged: `swarm verify` tells")
    unit: F32 = (state / length).astype(np.float32)
    return unit
