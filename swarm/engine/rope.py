"""Rotary frequencies: cos and sin of any run of positions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from swarm.models.spec import RopeSpec

F32 = npt.NDArray[np.float32]


class Rope:
    """cos and sin for positions, float32 (tokens, dims / 2), as transformers computes them: angles in float32."""

    def __init__(self, spec: RopeSpec, divisors: F32 | None) -> None:
        i = np.arange(0, spec.dims, 2, dtype=np.float64)
        inv_freq = spec.theta ** -(i / spec.dims)
        if divisors is not None:
            inv_freq = inv_freq / divisors
        self.magnitude = 1.0
        if spec.scaling is not None and spec.scaling.kind == "linear":
            inv_freq = inv_freq / spec.scaling.factor
        elif spec.scaling is not None:
            inv_freq = inv_freq * _yarn(spec)
            self.magnitude = spec.scaling.attention_factor
        self.inv_freq: F32 = inv_freq.astype(np.float32)

    def at(self, position: int, n_tokens: int) -> tuple[F32, F32]:
        """cos and sin of positions [position, position + n_tokens)."""
        positions = np.arange(position, position + n_tokens, dtype=np.float32)
        angles = (positions[:, None] * self.inv_freq).astype(np.float64)
        cos, sin = np.cos(angles) * self.magnitude, np.sin(angles) * self.magnitude
        return cos.astype(np.float32), sin.astype(np.float32)


def _yarn(spec: RopeSpec) -> npt.NDArray[np.float64]:
    """What YaRN (arXiv 2309.00071, section 3.2) multiplies each frequency by: 1 for fast ones, 1 / factor for slow."""
    scaling = spec.scaling
    assert scaling is not None
    low, high = (_pair_turning(spec, turns) for turns in (scaling.beta_fast, scaling.beta_slow))
    low, high = max(math.floor(low), 0), min(math.ceil(high), spec.dims - 1)
    ramp = np.clip((np.arange(spec.dims // 2) - low) / max(high - low, 0.001), 0.0, 1.0)
    return (1.0 - ramp) + ramp / scaling.factor


def _pair_turning(spec: RopeSpec, turns: float) -> float:
    """The (fractional) index of the pair that makes `turns` rotations over the original context."""
    assert spec.scaling is not None
    return spec.dims * math.log(spec.scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(spec.theta))
