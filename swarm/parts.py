"""What a model is cut into: the embedding, each layer and the LM head, held, loaded and counted one by one.

MTP is beside these: the block of some files that predicts further tokens. A model is whole without it.

This stands below every package, because declarations, weights, disks and decisions all speak of parts. A part does not
travel: messages name layer ranges (`wire.records.Shard`) and chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import gcd
from typing import NamedTuple

WHOLE: tuple[int, ...] = ()
ALL_EXPERTS = -1


class Part(NamedTuple):
    """EMBED, LM_HEAD, MTP, or a layer by its number from 0; of a layer a device may hold a slice, or one expert only.

    Parts sort in the order that a token passes them. A tuple, because ledgers keep and compare sets of them.
    """

    layer: int
    slice: tuple[int, ...] = WHOLE  # a `models.slices.SliceBounds`
    expert: int = ALL_EXPERTS

    @property
    def is_layer(self) -> bool:
        return EMBED.layer < self.layer < LM_HEAD.layer

    @property
    def name(self) -> str:
        """As a person is told of it."""
        outside = {EMBED.layer: "the embedding", MTP.layer: "the block that predicts further tokens"}
        what = f"layer {self.layer}" if self.is_layer else outside.get(self.layer, "the head")
        return f"a slice of {what}" if self.slice else what

    @property
    def whole(self) -> Part:
        """The part that this is a slice of, or itself."""
        return self._replace(slice=WHOLE) if self.slice else self


EMBED = Part(-1)
LM_HEAD = Part(2**31 - 1)
MTP = Part(2**31)


def parts_of(first: int, end: int, n_layers: int, cut: tuple[int, ...] = WHOLE) -> tuple[Part, ...]:
    """What a stage of the layers [first, end) holds: the first one has the embedding, too, the last one the head.

    Of one that shares each layer with others, its slice; the embedding is whole everywhere.
    """
    embed = (EMBED,) if first == 0 else ()
    lm_head = (Part(LM_HEAD.layer, cut),) if end == n_layers else ()
    return (*embed, *(Part(layer, cut) for layer in range(first, end)), *lm_head)


def all_parts(n_layers: int) -> tuple[Part, ...]:
    """Every part of a model."""
    return parts_of(0, n_layers, n_layers)


def layers_of(parts: Iterable[Part]) -> range:
    """The layers among parts, which must follow one another (ValueError otherwise)."""
    layers = sorted({part.layer for part in parts if part.is_layer})
    if not layers:
        return range(0)
    if layers[-1] - layers[0] >= len(layers):
        raise ValueError(f"layers {layers} do not follow one another")
    return range(layers[0], layers[-1] + 1)


def whole_steps(
    size: int, step: int, shares: Sequence[float], what: str, most: Sequence[int] = ()
) -> list[tuple[int, int]]:
    """Ranges [start, end) of whole steps (the last one may be shorter), as near to these shares as can be, none empty.

    (0, 0) for everybody where there is nothing. `most`: how many steps each may get, where there is a limit.
    ValueError, which says `what`, where steps are too few, or more than all may get.
    """
    if size == 0:
        return [(0, 0)] * len(shares)
    n_steps = -(-size // step)
    if n_steps < len(shares):
        raise ValueError(f"{size} {what} in steps of {step} do not make {len(shares)} slices")
    limit = most or [n_steps] * len(shares)
    if sum(limit) < n_steps or min(limit) < 1:
        raise ValueError(f"{size} {what} in steps of {step} are more than all may get")
    wanted = [max(share / sum(shares) * n_steps, 1e-9) for share in shares]
    counts = [min(max(int(share), 1), top) for share, top in zip(wanted, limit, strict=True)]
    while (lacking := n_steps - sum(counts)) > 0:
        # To whoever then takes least beyond its share: all wait for the busiest.
        able = [i for i, count in enumerate(counts) if count < limit[i]]
        counts[min(able, key=lambda i: ((counts[i] + 1) / wanted[i], i))] += 1
    for _ in range(-lacking):  # where the least of one step took too much
        several = [i for i, count in enumerate(counts) if count > 1]
        counts[max(several, key=lambda i: (counts[i] / wanted[i], -i))] -= 1
    ends = [min(sum(counts[:i]) * step, size) for i in range(len(counts) + 1)]
    return list(pairwise(ends))


def queries_per_key(start: int, end: int, group: int) -> int:
    """How many of the query heads [start, end) each key head of a slice serves, which must be as many for all of them.

    `group` query heads of the model read one key head; one whose queries are cut is then held several times.
    """
    first, last = (start // group + 1) * group, (end - 1) // group * group  # edges of key heads within
    if first > last:
        return end - start
    return gcd(first - start, group if first < last else 0, end - last)
