"""Floats to blocks of IQ1, IQ2 and IQ3, for test files: plain scales, and for each few values the nearest entry."""

from __future__ import annotations

import numpy as np

from swarm.kernels.grids import grid_of, values_of

UNITS = {"IQ1": 1 / 8, "IQ2": 1 / 8, "IQ3_XXS": 1 / 4, "IQ3_S": 1.0}  # what a type's integers count in
HIGHEST_SCALE = {"IQ1_S": 7, "IQ1_M": 7}
PIECE = 4096  # entries are looked for at once, for the memory that it takes


def entries(name: str) -> np.ndarray:
    """The values (entries, 4 or 8) of a type's grid."""
    grid = grid_of(name)
    assert grid is not None
    return np.array(values_of(name), np.float32)[grid]


def nearest(targets: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The places of the entries nearest to targets (..., 4 or 8)."""
    flat = targets.reshape(-1, targets.shape[-1])
    lengths = (of**2).sum(axis=1)
    places = [(lengths - 2 * flat[at : at + PIECE] @ of.T).argmin(axis=1) for at in range(0, len(flat), PIECE)]
    return np.concatenate(places).reshape(targets.shape[:-1])


def scaled(name: str, blocks: np.ndarray, n_scales: int, largest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bytes of d (n, 2), scales n of 2 n + 1 (n, n_scales), and the blocks in what the type counts in."""
    unit, highest = UNITS.get(name, UNITS.get(name[:3], 1)), HIGHEST_SCALE.get(name, 15)
    wanted = np.abs(blocks).reshape(len(blocks), n_scales, -1).max(axis=-1) / largest / unit
    d = (wanted.max(axis=-1, keepdims=True) / (2 * highest + 1)).astype("<f2")
    step = d.astype(np.float32)
    whole = np.divide(wanted, step, out=np.zeros_like(wanted), where=step != 0)
    scales = np.clip(np.rint((whole - 1) / 2), 0, highest).astype(np.int64)
    steps = np.repeat(step * unit * (2 * scales + 1), 256 // n_scales, axis=1)
    return d.view(np.uint8), scales, np.divide(blocks, steps, out=np.zeros_like(blocks), where=steps != 0)


def sign_bits(x: np.ndarray, *, even: bool) -> np.ndarray:
    """(n, 32): a bit for each negative value of eight. even: their number is, whatever the smallest value's sign."""
    eights = x.reshape(len(x), 32, 8)
    negative = eights < 0
    if even:
        odd = negative.sum(axis=-1) % 2 == 1
        smallest = np.abs(eights).argmin(axis=-1)
        at = np.take_along_axis(negative, smallest[..., None], axis=-1)
        np.put_along_axis(negative, smallest[..., None], at ^ odd[..., None], axis=-1)
    return (negative << np.arange(8)).sum(axis=-1)


def nibbles(scales: np.ndarray) -> np.ndarray:
    return (scales[:, ::2] | scales[:, 1::2] << 4).astype(np.uint8)


def as_bytes(words: np.ndarray, kind: str) -> np.ndarray:
    return np.ascontiguousarray(words.astype(kind)).view(np.uint8).reshape(len(words), -1)


def signs_and_scales(signs: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Words of four times seven signs, and a scale."""
    sevens = signs.reshape(len(signs), 8, 4) & 127
    return (sevens << np.array([0, 7, 14, 21])).sum(axis=-1) | scales << 28


def places_in(name: str, x: np.ndarray) -> np.ndarray:
    of = entries(name)
    return nearest(np.abs(x).reshape(len(x), -1, of.shape[1]), of)


def iq2_xxs(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = scaled("IQ2_XXS", blocks, 8, 43)
    places = places_in("IQ2_XXS", x).astype(np.uint8).reshape(-1, 8, 4)
    words = signs_and_scales(sign_bits(x, even=True), scales).astype("<u4").view(np.uint8).reshape(-1, 8, 4)
    return np.concatenate([d, np.concatenate([places, words], axis=-1).reshape(len(x), 64)], axis=-1)


def iq2_xs(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = scaled("IQ2_XS", blocks, 16, 43)
    words = places_in("IQ2_XS", x) | (sign_bits(x, even=True) & 127) << 9
    return np.concatenate([d, as_bytes(words, "<u2"), nibbles(scales)], axis=-1)


def iq2_s(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = scaled("IQ2_S", blocks, 16, 43)
    places = places_in("IQ2_S", x)
    high = ((places >> 8).reshape(-1, 8, 4) << np.array([0, 2, 4, 6])).sum(axis=-1)
    parts = [places & 255, sign_bits(x, even=False), high, nibbles(scales)]
    return np.concatenate([d, *(part.astype(np.uint8) for part in parts)], axis=-1)


def iq3_xxs(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = scaled("IQ3_XXS", blocks, 8, 62)
    words = as_bytes(signs_and_scales(sign_bits(x, even=True), scales), "<u4")
    return np.concatenate([d, places_in("IQ3_XXS", x).astype(np.uint8), words], axis=-1)


def iq3_s(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = scaled("IQ3_S", blocks, 8, 15)
    places = places_in("IQ3_S", x)
    high = ((places >> 8).reshape(-1, 8, 8) << np.arange(8)).sum(axis=-1)
    parts = [places & 255, high, sign_bits(x, even=False), nibbles(scales)]
    return np.concatenate([d, *(part.astype(np.uint8) for part in parts)], axis=-1)


def shifted(x: np.ndarray, n_shifts: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, 32) of IQ1, and for n_shifts parts of a block whether they are an eighth less."""
    of, eights = 8 * entries("IQ1_S"), x.reshape(len(x), 32, 8)
    tries = [nearest(eights, of + shift) for shift in (1, -1)]
    far = [(((of + shift)[places] - eights) ** 2).sum(axis=-1) for places, shift in zip(tries, (1, -1), strict=True)]
    less = np.less(*(each.reshape(len(x), n_shifts, -1).sum(axis=-1) for each in reversed(far)))
    return np.where(np.repeat(less, 32 // n_shifts, axis=1), tries[1], tries[0]), less.astype(np.int64)


def iq1_s(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = scaled("IQ1_S", blocks, 8, 9)
    places, less = shifted(x, 8)
    high = ((places >> 8).reshape(-1, 8, 4) << np.array([0, 3, 6, 9])).sum(axis=-1) | scales << 12 | less << 15
    return np.concatenate([d, (places & 255).astype(np.uint8), as_bytes(high, "<u2")], axis=-1)


def iq1_m(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = scaled("IQ1_M", blocks, 16, 9)
    places, less = shifted(x, 32)
    high = nibbles(places >> 8 | less << 3)
    pieces = d.view("<u2").astype(np.int64) >> np.array([0, 4, 8, 12]) & 15
    words = (scales.reshape(-1, 4, 4) << np.array([0, 3, 6, 9])).sum(axis=-1) | pieces << 12
    return np.concatenate([(places & 255).astype(np.uint8), high, as_bytes(words, "<u2")], axis=-1)


QUANTIZE = {
    "IQ1_S": iq1_s,
    "IQ1_M": iq1_m,
    "IQ2_XXS": iq2_xxs,
    "IQ2_XS": iq2_xs,
    "IQ2_S": iq2_s,
    "IQ3_XXS": iq3_xxs,
    "IQ3_S": iq3_s,
}
