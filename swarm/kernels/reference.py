"""Every float operation of the engine, in NumPy float32: the oracle of the compiled ones.

Written for reading, not speed. Arrays are float32, the first axis is tokens; heads come before their columns.
Sources: the transformers library's eager float32 models, and the papers named below.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def matmul(x: F32, w: F32, bias: F32 | None = None) -> F32:
    """x (tokens, cols) times w (rows, cols) transposed, plus bias (rows,)."""
    y = x @ w.T
    return y if bias is None else y + bias


def rmsnorm(x: F32, weight: F32, eps: float) -> F32:
    """x / sqrt(mean(x ** 2) + eps) * weight over the last axis."""
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float32)
    return np.asarray(x / np.sqrt(mean_square + np.float32(eps)) * weight, dtype=np.float32)


def softmax(x: F32) -> F32:
    """Softmax over the last axis; -inf gives 0."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True), dtype=np.float32)


def sigmoid(x: F32) -> F32:
    """1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, e) / (1 + e), dtype=np.float32)


def silu_mul(gate: F32, up: F32) -> F32:
    """gate * sigmoid(gate) * up."""
    return gate * sigmoid(gate) * up


def swiglu(gate: F32, up: F32, alpha: float, limit: float) -> F32:
    """(up + 1) * gate * sigmoid(alpha * gate), where gate is at most `limit` and up within it on both sides."""
    gate, up = np.minimum(gate, np.float32(limit)), np.clip(up, np.float32(-limit), np.float32(limit))
    return np.asarray((up + 1) * (gate * sigmoid(np.float32(alpha) * gate)), dtype=np.float32)


# ---- rotary positions ----


def rope_frequencies(dims: int, theta: float, divisors: F32 | None = None) -> F32:
    """Radians per position of each rotated pair, (dims / 2,): theta ** (-2i / dims), divided by `divisors`."""
    frequencies = np.array([theta ** (-2 * i / dims) for i in range(dims // 2)], dtype=np.float32)
    return frequencies if divisors is None else frequencies / divisors


def llama3_divisors(
    dims: int, theta: float, *, factor: float, low_factor: float, high_factor: float, original_context: int
) -> F32:
    """What Llama 3 divides its frequencies by, (dims / 2,): 1 for fast ones, `factor` for slow, blended between."""
    turns = original_context * rope_frequencies(dims, theta).astype(np.float64) / (2 * math.pi)
    blend = np.clip((turns - low_factor) / (high_factor - low_factor), 0, 1)
    return (1 / ((1 - blend) / factor + blend)).astype(np.float32)


def yarn_divisors(
    dims: int,
    theta: float,
    *,
    factor: float,
    original_context: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    whole_pairs: bool = True,
) -> F32:
    """What YaRN divides frequencies by, (dims / 2,) (arXiv 2309.00071, section 3.2).

    `whole_pairs`: the blend begins and ends at a pair, as published code has it, and not between two.
    """

    def pair_that_turns(times: float) -> float:
        return dims * math.log(original_context / (times * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_that_turns(beta_fast), pair_that_turns(beta_slow)
    if whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    low, high = max(first, 0.0), min(last, dims - 1.0)
    ramp: F64 = np.clip((np.arange(dims // 2) - low) / max(high - low, 0.001), 0, 1)
    return (1 / (ramp / factor + (1 - ramp))).astype(np.float32)


def rope_table(frequencies: F32, positions: I64, factor: float = 1.0) -> tuple[F32, F32]:
    """cos and sin, each (tokens, dims / 2), of positions times frequencies, multiplied by `factor`."""
    cos, sin = cos_sin(positions.astype(np.float64)[:, None] * frequencies.astype(np.float64))
    return (cos * factor).astype(np.float32), (sin * factor).astype(np.float32)


# pi / 2 in three parts; the first two have so few bits that their products with a number of quarter turns are exact.
_QUARTER_TURN = (
    float.fromhex("0x1.921fb544p+0"),
    float.fromhex("0x1.0b4611a6p-34"),
    float.fromhex("0x1.3198a2e037073p-69"),
)
_COS_SERIES = tuple((-1) ** n / math.factorial(2 * n) for n in range(10))
_SIN_SERIES = tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(10))


def cos_sin(angles: F64) -> tuple[F64, F64]:
    """cos and sin of angles up to a million turns, within 2e-16, and with the same bits on every machine.

    NumPy's own differ in the last bit between instruction sets; here are only single IEEE operations.
    """
    quarter_turns = np.rint(angles * (2 / math.pi))
    rest = angles
    for part in _QUARTER_TURN:
        rest = rest - quarter_turns * part
    square = rest * rest
    cos, sin = _polynomial(_COS_SERIES, square), rest * _polynomial(_SIN_SERIES, square)
    quadrant = quarter_turns.astype(np.int64) & 3
    odd, cos_sign = quadrant & 1 == 1, np.where((quadrant == 1) | (quadrant == 2), -1.0, 1.0)
    sin_sign = np.where(quadrant >= 2, -1.0, 1.0)
    return np.where(odd, sin, cos) * cos_sign, np.where(odd, cos, sin) * sin_sign


def _polynomial(coefficients: tuple[float, ...], x: F64) -> F64:
    y = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        y = y * x + coefficient
    return y


_LN_2 = 0.6931471805599453
_ATANH_SERIES = tuple(1 / (2 * n + 1) for n in range(14))


def natural_log(x: float) -> float:
    """ln x of a positive number, within 1e-15, and with the same bits on every machine, as for `cos_sin`."""
    part, exponent = math.frexp(x)
    if part < 0.7:
        part, exponent = 2 * part, exponent - 1
    y = (part - 1) / (part + 1)
    total = 0.0
    for coefficient in reversed(_ATANH_SERIES):
        total = total * (y * y) + coefficient
    return exponent * _LN_2 + 2 * y * total


def temper(positions: I64, scale: float, step: int) -> F32:
    """What queries at these positions are multiplied with, (tokens,): 1 + scale * ln(1 + position // step)."""
    return np.array([1 + scale * natural_log(1 + position // step) for position in positions.tolist()], np.float32)


def rope_half(x: F32, cos: F32, sin: F32) -> F32:
    """Rotate x (tokens, heads, head_dim): column i with column i + dims / 2, for the first dims columns."""
    half = cos.shape[-1]
    c, s = cos[:, None, :], sin[:, None, :]
    first, second = x[..., :half], x[..., half : 2 * half]
    return np.concatenate([first * c - second * s, second * c + first * s, x[..., 2 * half :]], axis=-1)


def rope_pair(x: F32, cos: F32, sin: F32) -> F32:
    """Rotate x (tokens, heads, head_dim): column 2i with column 2i + 1, for the first dims columns."""
    dims = 2 * cos.shape[-1]
    c, s = cos[:, None, :], sin[:, None, :]
    even, odd = x[..., 0:dims:2], x[..., 1:dims:2]
    y = x.copy()
    y[..., 0:dims:2] = even * c - odd * s
    y[..., 1:dims:2] = odd * c + even * s
    return y


# ---- attention ----


def hadamard(x: F32) -> F32:
    """The Hadamard transform of each power of two that divides the length (the largest), normalised."""
    block = len(x) & -len(x)
    signs = np.ones((1, 1), np.float32)
    while len(signs) < block:
        signs = np.block([[signs, signs], [signs, -signs]])
    return np.asarray(x.reshape(-1, block) @ signs * np.float32(block**-0.5), np.float32).reshape(-1)


def attention(q: F32, k: F32, v: F32, scale: float, *, window: int = 0, sinks: F32 | None = None) -> F32:
    """Causal attention of the last tokens of a sequence over all of it, or over a window that ends with them.

    q (tokens, n_heads, head_dim); k, v (positions, n_kv_heads, columns), the last `tokens` positions being q's own.
    Query head h reads key/value head h * n_kv_heads // n_heads. sinks (n_heads,): scores of one more position, which
    has no value. Returns (tokens, n_heads * columns of v).
    """
    tokens, n_heads, _ = q.shape
    positions, n_kv_heads, _ = k.shape
    k, v = (np.repeat(a, n_heads // n_kv_heads, axis=1) for a in (k, v))
    scores = np.einsum("thd,phd->htp", q, k) * np.float32(scale)
    distance = np.arange(positions - tokens, positions)[:, None] - np.arange(positions)
    hidden = (distance < 0) | (distance >= window) if window else distance < 0
    scores = np.where(hidden, np.float32(-np.inf), scores)
    if sinks is not None:
        scores = np.concatenate([scores, np.broadcast_to(sinks[:, None, None], (n_heads, tokens, 1))], axis=2)
    weights = softmax(scores)[..., :positions]
    return np.asarray(np.einsum("htp,phd->thd", weights, v), dtype=np.float32).reshape(tokens, -1)


# ---- mixtures of experts ----


def best(values: F32, count: int) -> I64:
    """Indices of the `count` greatest of the last axis, greatest first, ties to the lower index."""
    return np.argsort(-values, axis=-1, kind="stable")[..., :count]


def router(
    logits: F32,
    top_k: int,
    *,
    gating: str,
    normalise: bool,
    scale: float = 1.0,
    bias: F32 | None = None,
    n_group: int = 1,
    top_group: int = 1,
) -> tuple[I64, F32]:
    """Which experts run for each token, best first, and with which weights: two (tokens, top_k).

    logits (tokens, n_experts). `bias` and groups affect the choice only, as in DeepSeek-V3 (arXiv 2412.19437).
    """
    scores = softmax(logits) if gating == "softmax" else sigmoid(logits)
    choice = scores if bias is None else scores + bias
    if n_group > 1:
        choice = _only_best_groups(choice, n_group, top_group)
    chosen = best(choice, top_k)
    weights = np.take_along_axis(scores, chosen, axis=-1)
    if normalise:
        # The tiny term keeps sigmoid scores that all vanished from dividing 0 by 0.
        weights = weights / (weights.sum(axis=-1, keepdims=True) + np.float32(1e-20))
    return chosen, weights * np.float32(scale)


def _only_best_groups(choice: F32, n_group: int, top_group: int) -> F32:
    """choice with -inf for experts outside the groups with the greatest sums of two."""
    groups = choice.reshape(len(choice), n_group, -1)
    two_best = np.take_along_axis(groups, best(groups, 2), axis=-1).sum(axis=-1)
    kept = np.zeros((len(choice), n_group, 1), dtype=bool)
    np.put_along_axis(kept, best(two_best, top_group)[..., None], True, axis=1)
    return np.where(kept, groups, np.float32(-np.inf)).reshape(choice.shape)


def _as_it_is(x: F32) -> F32:
    return x


def ffn(x: F32, gate: F32, up: F32, down: F32, *, seen: Callable[[F32], F32] = _as_it_is) -> F32:
    """down @ (silu(gate @ x) * (up @ x)) for x (tokens, hidden). `seen` is what a product sees of its input."""
    x = seen(x)
    return matmul(seen(silu_mul(matmul(x, gate), matmul(x, up))), down)


def experts(
    x: F32,
    chosen: I64,
    weights: F32,
    *,
    gate: F32,
    up: F32,
    down: F32,
    seen: Callable[[F32], F32] = _as_it_is,
) -> F32:
    """The weighted sum of each token's experts: gate, up (n_experts, ffn, hidden), down (n_experts, hidden, ffn)."""
    y = np.zeros_like(x)
    for expert in np.unique(chosen):
        token, place = np.nonzero(chosen == expert)
        out = ffn(x[token], gate[expert], up[expert], down[expert], seen=seen)
        y[token] += out * weights[token, place][:, None]
    return y
