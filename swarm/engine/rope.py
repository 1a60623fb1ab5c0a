"""Rotary tables: cos and sin of any run of positions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swarm.kernels import reference
from swarm.models.spec import RopeSpec

F32 = npt.NDArray[np.float32]


class Rope:
    """cos and sin for positions, float32 (tokens, dims / 2). `divisors` are the ROPE_FREQS of the file, if any."""

    def __init__(self, spec: RopeSpec, divisors: F32 | None) -> None:
        self.magnitude = 1.0
        self.frequencies = reference.rope_frequencies(spec.dims, spec.theta, divisors)
        if spec.scaling is not None and spec.scaling.kind == "linear":
            self.frequencies = self.frequencies / np.float32(spec.scaling.factor)
        elif spec.scaling is not None:
            self.magnitude = spec.scaling.attention_factor
            self.frequencies = self.frequencies / reference.yarn_divisors(
                spec.dims,
                spec.theta,
                factor=spec.scaling.factor,
                original_context=spec.scaling.original_context,
                beta_fast=spec.scaling.beta_fast,
                beta_slow=spec.scaling.beta_slow,
            )

    def at(self, position: int, n_tokens: int) -> tuple[F32, F32]:
        """The table of positions [position, position + n_tokens)."""
        return reference.rope_table(self.frequencies, np.arange(position, position + n_tokens), self.magnitude)
