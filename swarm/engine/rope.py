"""What depends on positions: cos and sin of any run of them, and the temper of queries."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from swarm.kernels import reference
from swarm.models.spec import RopeSpec, Temper

F32 = npt.NDArray[np.float32]
BLOCK = 64  # positions computed at once
KEPT_BLOCKS = 32  # enough for as many sessions that take turns


class Rope:
    """cos and sin for positions, float32 (tokens, dims / 2). `divisors` are the ROPE_FREQS of the file, if any."""

    def __init__(self, spec: RopeSpec, divisors: F32 | None, temper: Temper | None = None) -> None:
        self._temper = temper
        # A table of one position costs nearly as much as one of a block: steps that follow each other share it.
        self._block = lru_cache(maxsize=KEPT_BLOCKS)(self._compute)
        self.magnitude = spec.scaling.attention_factor if spec.scaling is not None else 1.0
        self.frequencies = reference.rope_frequencies(spec.dims, spec.theta, divisors)
        if spec.scaling is not None and spec.scaling.kind == "linear":
            self.frequencies = self.frequencies / np.float32(spec.scaling.factor)
        elif spec.scaling is not None:
            self.frequencies = self.frequencies / reference.yarn_divisors(
                spec.dims,
                spec.theta,
                factor=spec.scaling.factor,
                original_context=spec.scaling.original_context,
                beta_fast=spec.scaling.beta_fast,
                beta_slow=spec.scaling.beta_slow,
                whole_pairs=spec.scaling.whole_pairs,
            )

    def at(self, position: int, n_tokens: int) -> tuple[F32, F32]:
        """The table of positions [position, position + n_tokens)."""
        number, first = divmod(position, BLOCK)
        last = position + n_tokens - 1
        if first + n_tokens <= BLOCK:  # nearly always, and for every token
            cos, sin = self._block(number)
            return cos[first : first + n_tokens], sin[first : first + n_tokens]
        blocks = [self._block(number) for number in range(number, last // BLOCK + 1)]
        cos, sin = (np.concatenate(tables) for tables in zip(*blocks, strict=True))
        return cos[first : first + n_tokens], sin[first : first + n_tokens]

    def temper(self, position: int, n_tokens: int) -> F32 | None:
        """What the queries of these positions are multiplied with, float32 (tokens,), where that depends on them."""
        if self._temper is None:
            return None
        positions = np.arange(position, position + n_tokens)
        return reference.temper(positions, self._temper.scale, self._temper.step)

    def _compute(self, number: int) -> tuple[F32, F32]:
        return reference.rope_table(self.frequencies, np.arange(number * BLOCK, (number + 1) * BLOCK), self.magnitude)
