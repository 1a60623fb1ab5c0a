"""A model as slices that run side by side in one process; what devices will tell one another is added by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swarm.engine.decoder import Decoder, Rows
from swarm.engine.weights import TensorSource, load_weights
from swarm.models.slices import SliceBounds, narrow
from swarm.models.spec import ModelSpec
from swarm.parts import all_parts


class SlicedModel:
    """Every slice's decoder, half by half in step; the pending `delta` of each becomes the sum of all."""

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self.decoders = decoders
        for decoder in decoders:
            decoder.engine.share()
        self.caches = [d.new_kv() for d in decoders]

    @classmethod
    def load(cls, source: TensorSource, spec: ModelSpec, slices: Sequence[SliceBounds], *, kv: str) -> SlicedModel:
        return cls([slice_decoder(source, spec, bounds, kv=kv) for bounds in slices])

    def logits(self, ids: Sequence[int], steps: Sequence[int]) -> np.ndarray:
        """Logits (len(ids), vocab) of a fresh sequence that is appended in steps of these lengths."""
        for cache in self.caches:
            cache.truncate(0)
        pieces = np.split(np.asarray(ids, np.int32), np.cumsum(steps)[:-1])
        return np.concatenate([self._step(piece) for piece in pieces])

    def _step(self, ids: np.ndarray) -> np.ndarray:
        for d, cache in zip(self.decoders, self.caches, strict=True):
            d._begin([Rows(ids, cache)])
            d.engine.embed(d._embedding, ids)
        for layer in range(self.decoders[0].spec.n_layers):
            for d in self.decoders:
                d.engine.attention(d.layers[layer][0])
            self._all_reduce()
            for d in self.decoders:
                d.engine.ffn(d.layers[layer][1])
            self._all_reduce()
        return np.concatenate([d.engine.lm_head(d._output_norm, d._output) for d in self.decoders], axis=1)

    def _all_reduce(self) -> None:
        total = sum(d.engine.sums() for d in self.decoders)
        for d in self.decoders:
            d.engine.set_sums(total)


def slice_decoder(source: TensorSource, spec: ModelSpec, bounds: SliceBounds, *, kv: str, isa: str = "") -> Decoder:
    """The decoder of one slice."""
    narrowed = narrow(spec, source.tensors, bounds)
    weights = load_weights(source, narrowed, all_parts(spec.n_layers))
    return Decoder(narrowed, weights, context=128, threads=1, kv=kv, isa=isa)
