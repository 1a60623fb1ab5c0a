"""Choosing the next token: a pure function of logits, parameters, seed, position and the tokens before.

The same bits come out on every machine, for an answer may move to another device in the middle. So no result depends on
the C library's mathematics: the exponential (csrc/numbers.h) is made of IEEE 754 double multiplications, additions and
square roots in one fixed order, sums run from left to right (numpy's cumsum), and the random number is Philox4x64-10 of
(seed, position).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from swarm.errors import ConfigError, ModelError
from swarm.kernels import _native

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
Bias = tuple[tuple[int, float], ...]  # token ids, and what is added to the logit of each

MAX_SEED = 2**63 - 1
_FIRST_CUT = 1024  # likeliest tokens looked at first for top_p; nearly always enough
# exp(-46) = 1e-20: together, the tokens that far below the likeliest weigh less than one rounding of the sum.
_NEGLIGIBLE = 46.0
MAX_BIAS = 100.0  # as OpenAI has it: such a token is certain, or never comes
MAX_BIASES = 1024  # OpenAI allows 300
MAX_TOLD = 21  # OpenAI's most: the token that was chosen, and the 20 likeliest

_WHOLE = frozenset(("top_k", "repeat_last_n", "n_told"))
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("temperature", 0, 100),
    ("top_k", 0, 2**31 - 1),
    ("top_p", 0, 1),
    ("min_p", 0, 1),
    ("repetition_penalty", 0.01, 100),
    ("repeat_last_n", -1, 2**31 - 1),
    ("frequency_penalty", -100, 100),
    ("presence_penalty", -100, 100),
    ("n_told", 0, MAX_TOLD),
)


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. The steps run in the order of the fields below.

    First logit_bias is added. Then the penalties: repetition_penalty divides (or, where negative, multiplies) the
    logits of the last repeat_last_n tokens (-1: of all, 0: none); frequency_penalty is taken off per occurrence there,
    presence_penalty once. Then top_k (0: all), top_p (1: all), min_p (0: all) each keep the likeliest tokens; then
    temperature: 0 takes the likeliest, the lowest id among equals. `seed` None is a new seed for every answer.
    `n_told`: how many log probabilities are told with each token: none, its own, or beside it those of the n_told - 1
    likeliest.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Bias = ()
    n_told: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError naming the field that is out of range."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            whole = name in _WHOLE
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ConfigError(f"{name} is {value!r:.40}; it must be a {'whole ' if whole else ''}number")
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; it must be from {low:g} to {high:g}")
        if self.seed is not None and (type(self.seed) is not int or not 0 <= self.seed <= MAX_SEED):
            raise ConfigError(f"seed is {self.seed!r:.40}; it must be a whole number from 0 to {MAX_SEED}")
        if len(self.logit_bias) > MAX_BIASES:
            raise ConfigError(f"logit_bias has {len(self.logit_bias)} tokens; the most is {MAX_BIASES}")
        wrong = next((each for each in self.logit_bias if not -MAX_BIAS <= each[1] <= MAX_BIAS), None)
        if wrong is not None:
            raise ConfigError(f"logit_bias of {wrong[0]} is {wrong[1]}; it must be from -{MAX_BIAS:g} to {MAX_BIAS:g}")

    def seeded(self) -> SamplingParams:
        """The same with a seed, a fresh one where there is none."""
        return self if self.seed is not None else replace(self, seed=int.from_bytes(os.urandom(8)) >> 1)


class SamplingFields(TypedDict, total=False):
    """The fields of SamplingParams, to be given by name."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    repeat_last_n: int
    frequency_penalty: float
    presence_penalty: float
    seed: int | None
    logit_bias: Bias
    n_told: int


GREEDY = SamplingParams(temperature=0.0)


def sample(
    logits: F32, params: SamplingParams, position: int, recent: Sequence[int], allowed: Bits | None = None
) -> int:
    """The id of the token at `position`, after the tokens `recent` (all so far, or at least the last repeat_last_n).

    `logits`: float32 (vocab,). `allowed`: bool (vocab,), tokens that may come; None: all. Raise ModelError when one of
    the logits is NaN or infinite upwards; `params` needs a seed unless its temperature is 0.
    """
    logits = adjusted(logits, params, recent)
    if allowed is not None:
        logits = np.where(allowed, logits, np.float32(-np.inf))
    return choose(logits, params, position)


def adjusted(logits: F32, params: SamplingParams, recent: Sequence[int]) -> F32:
    """`logits` with biases added and penalties taken off; a copy where there are any."""
    return _penalised(_biased(logits, params.logit_bias), params, recent)


def choose(logits: F32, params: SamplingParams, position: int) -> int:
    """The index of the token at `position`, of adjusted logits; raise ModelError as `sample` does."""
    best = _checked_maximum(logits, position)
    if params.temperature == 0 or params.top_k == 1:
        return int(np.argmax(logits))
    ids = _kept(logits, best, params)
    if len(ids) == 1:
        return int(ids[0])
    return int(ids[_draw(_weights(logits, ids, best, params.temperature), params, position)])


def likeliest(logits: F32, k: int) -> I64:
    """The ids of the k largest logits, ascending; among equals the lower ids."""
    return np.sort(_native.largest(logits, k, -math.inf))


def told(logits: F32, token: int, n: int) -> Bias:
    """The log probability of a token, then those of the n - 1 likeliest, likeliest first: as the model computed them.

    `logits`: float32 (vocab,), before biases and penalties. The same bits on every machine, as for `sample`.
    """
    best = logits.max()
    everything = np.flatnonzero(logits >= best - np.float32(_NEGLIGIBLE))
    log_total = _logarithm(_total(_weights(logits, everything, best)))
    likeliest = _native.largest(logits, n - 1, best - np.float32(_NEGLIGIBLE))
    below = logits.astype(np.float64) - best
    return tuple((int(i), float(below[i]) - log_total) for i in (token, *likeliest))


def _logarithm(x: float) -> float:
    """ln x for x > 0, to 1e-15 relative: the series of artanh, made of the four operations only."""
    mantissa, exponent = math.frexp(x)
    s = (mantissa - 1) / (mantissa + 1)  # |s| <= 1/3
    square, power, total = s * s, s, 0.0
    for i in range(1, 36, 2):
        total += power / i
        power *= square
    return 2 * total + exponent * _LN2


def exponential(x: F64) -> F64:
    """e^x for float64 (n,) in [-47, 0], to 1e-10 relative and the same bits on every machine; less counts as -47."""
    return _native.exponential(np.ascontiguousarray(x), _POWERS)


def _powers() -> F64:
    """2^(-i/64) for i from 0 on, down to e^-48, from correctly rounded square roots and products only."""
    roots = [0.5]
    for _ in range(6):
        roots.append(math.sqrt(roots[-1]))  # 2^(-1/2), 2^(-1/4), ... 2^(-1/64)
    fractions = [math.prod(roots[6 - bit] for bit in range(6) if i >> bit & 1) for i in range(64)]
    return np.array([math.ldexp(fractions[i % 64], -(i // 64)) for i in range(4480)])


_SLICE = 4096
_POWERS = _powers()
_LN2 = 0.6931471805599453


def _biased(logits: F32, bias: Bias) -> F32:
    """`logits` with the biases added, in a copy where there are any."""
    in_vocab = [(token, value) for token, value in bias if 0 <= token < len(logits)]
    if not in_vocab:
        return logits
    out = logits.copy()
    for token, value in in_vocab:
        out[token] += np.float32(value)
    return out


def _penalised(logits: F32, params: SamplingParams, recent: Sequence[int]) -> F32:
    """`logits` with the penalties taken off, in a copy where there are any."""
    if params.repeat_last_n == 0 or (
        params.repetition_penalty == 1 and params.frequency_penalty == 0 and params.presence_penalty == 0
    ):
        return logits
    window = recent if params.repeat_last_n < 0 else recent[-params.repeat_last_n :]
    ids, counts = np.unique(np.asarray(window, dtype=np.int64), return_counts=True)
    in_vocab = (ids >= 0) & (ids < len(logits))
    ids, counts = ids[in_vocab], counts[in_vocab]
    values = logits[ids].astype(np.float64)
    values = np.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    values -= counts * params.frequency_penalty + params.presence_penalty
    out = logits.copy()
    out[ids] = values.astype(np.float32)
    return out


def _checked_maximum(logits: F32, position: int) -> np.float32:
    """The largest logit; ModelError when there is none."""
    best: np.float32 = logits.max()  # NaN where any logit is
    if not np.isfinite(best):
        raise ModelError(
            f"the model computed {best} at position {position}: its file may be damaged, or the model is not supported"
        )
    return best


def _kept(logits: F32, best: np.float32, params: SamplingParams) -> I64:
    """The ids that top_k, top_p and min_p leave, in an order that depends on nothing else; never none."""
    floor = best - _reach(params)
    if params.top_k > 0:
        ids = _native.largest(logits, params.top_k, floor)
        weights = _weights(logits, ids, best)
        ids, weights = _nucleus(ids, weights, params.top_p * _total(weights)) if params.top_p < 1 else (ids, weights)
    elif params.top_p < 1:
        ids, weights = _nucleus_of_many(logits, floor, best, params.top_p)
    else:
        ids = np.flatnonzero(logits >= floor)
        weights = _weights(logits, ids, best) if params.min_p > 0 else np.empty(0)
    return ids[weights >= params.min_p] if params.min_p > 0 else ids


def _reach(params: SamplingParams) -> np.float32:
    """How far below the likeliest token a logit may lie and still matter."""
    reach = _NEGLIGIBLE * max(params.temperature, 1.0)
    if params.min_p > 0 and params.top_p == 1:
        # Only saves work: the exact comparison follows, so the last bit of this logarithm does not matter.
        reach = min(reach, 0.01 - math.log(params.min_p))
    return np.float32(reach)


def _weights(logits: F32, ids: I64, best: np.float32, temperature: float = 1.0) -> F64:
    """Probabilities of `ids`, in proportion to that of the likeliest token of all."""
    return _native.weights(logits, ids, best, temperature, _POWERS)


def _nucleus(ids: I64, weights: F64, wanted: float) -> tuple[I64, F64]:
    """The first ids whose weights add up to `wanted`, at least one, with their weights."""
    size = int(np.searchsorted(np.cumsum(weights), wanted)) + 1
    return ids[:size], weights[:size]


def _nucleus_of_many(logits: F32, floor: np.float32, best: np.float32, top_p: float) -> tuple[I64, F64]:
    """The fewest likeliest of those that reach `floor` whose probabilities add up to `top_p`, and their weights."""
    ids = np.flatnonzero(logits >= floor)
    wanted = top_p * _total(_weights(logits, ids, best))
    size = min(_FIRST_CUT, len(ids))
    while True:
        order = _native.largest(logits, size, floor)
        kept = _nucleus(order, _weights(logits, order, best), wanted)
        if len(kept[0]) < size or size == len(ids):
            return kept
        size = min(size * 16, len(ids))


def _total(weights: F64) -> float:
    """The sum, added in one fixed order: slices onto each other, then from left to right."""
    columns = np.zeros(min(_SLICE, len(weights)))
    for start in range(0, len(weights), _SLICE):
        part = weights[start : start + _SLICE]
        columns[: len(part)] += part
    return float(np.cumsum(columns)[-1])


def _draw(weights: F64, params: SamplingParams, position: int) -> int:
    """An index, with probabilities in proportion to `weights`."""
    if params.seed is None:
        raise ConfigError("sampling needs a seed; use SamplingParams.seeded()")
    sums = np.cumsum(weights)
    random = _native.philox(params.seed, position)
    point = (random >> 11) * 2.0**-53 * float(sums[-1])
    return min(int(np.searchsorted(sums, point, side="right")), len(weights) - 1)
