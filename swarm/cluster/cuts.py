"""What a model can be cut along, and where: the arithmetic of slices without the model itself.

A slice is ten counts, [start, end) along each of five axes, in the order of `models.slices.SliceBounds`: query heads,
columns of a dense FFN, of an expert and of the shared expert, rows of the vocabulary. None of them: all of each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarm import limits
from swarm.parts import queries_per_key, whole_steps

Bounds = tuple[int, ...]  # ten counts; none: whole layers
HEADS, FFN, EXPERT, SHARED, VOCAB = range(5)
AXES = (HEADS, FFN, EXPERT, SHARED, VOCAB)


@dataclass(frozen=True, slots=True)
class Cuts:
    """How much there is along each axis, and what no cut divides."""

    sizes: tuple[int, int, int, int, int]  # 0 where the model has no such thing
    steps: tuple[int, int, int, int, int]  # cuts fall on multiples of these, or the end
    n_key_heads: int  # that the query heads share; 0: every slice keeps the whole cache (latent attention)

    @property
    def most_members(self) -> int:
        """How many devices can have a slice."""
        units = [-(-size // step) for size, step in zip(self.sizes, self.steps, strict=True) if size]
        return min(*units, limits.MAX_STAGE_MEMBERS)

    def has(self, bounds: Bounds) -> bool:
        """True for a slice of this model, whatever others have of it."""
        pairs = zip(bounds[::2], bounds[1::2], self.sizes, strict=False)
        return len(bounds) == 2 * len(AXES) and all(0 <= start <= end <= size for start, end, size in pairs)

    def share(self, bounds: Bounds, axis: int) -> float:
        """What part of all along an axis is in a slice."""
        start, end = bounds[2 * axis : 2 * axis + 2]
        return (end - start) / self.sizes[axis] if self.sizes[axis] else 0.0

    def key_share(self, bounds: Bounds) -> float:
        """Key heads that a slice holds, over all there are: those of a cut group are held once for each of its pieces.

        As `models.slices.narrow` does it, for the engine wants as many queries for each key head.
        """
        if not self.n_key_heads:
            return 1.0
        start, end = bounds[:2]
        group = self.sizes[HEADS] // self.n_key_heads
        queries = queries_per_key(start, end, group)
        return (end - start) / queries / self.n_key_heads

    def are_whole(self, slices: Sequence[Bounds]) -> bool:
        """True when these slices together are the model, each once, with cuts only where they may fall."""
        if not 1 < len(slices) <= self.most_members or any(len(bounds) != 2 * len(AXES) for bounds in slices):
            return False
        return all(self._are_whole([bounds[2 * axis : 2 * axis + 2] for bounds in slices], axis) for axis in AXES)

    def _are_whole(self, ranges: Sequence[Bounds], axis: int) -> bool:
        size, step = self.sizes[axis], self.steps[axis]
        if not size:
            return all(start == end == 0 for start, end in ranges)
        ordered = sorted(ranges)
        ends = [0, *(end for _, end in ordered)]
        meet = all(start == before < end for before, (start, end) in zip(ends, ordered, strict=False))
        return meet and ends[-1] == size and all(end % step == 0 for end in ends[:-1])

    def n_steps(self, axis: int, group: int = 1) -> int:
        """How many pieces an axis makes at most; heads in `group` steps at a time."""
        return -(-self.sizes[axis] // self._step(axis, group))

    def ranges(
        self, axis: int, shares: Sequence[float], group: int = 1, most: Sequence[int] = ()
    ) -> list[tuple[int, int]]:
        """Of each one [start, end) along an axis, as near to its share as steps allow, and `most` so many, if any.

        Heads are in steps of `group` steps. ValueError when the steps are too few for all of them, or too many.
        """
        return whole_steps(self.sizes[axis], self._step(axis, group), shares, "units", most)

    def _step(self, axis: int, group: int) -> int:
        return self.steps[axis] * (group if axis == HEADS else 1)

    def head_groups(self, n_members: int) -> list[int]:
        """Steps of heads that may be kept together: the larger ones hold fewer key heads twice."""
        step, heads = self.steps[HEADS], self.sizes[HEADS]
        per_key = heads // self.n_key_heads if self.n_key_heads else step
        sizes = [n for n in range(1, max(per_key // step, 1) + 1) if per_key % (n * step) == 0]
        return [n for n in sizes if heads // (n * step) >= n_members] or [1]
