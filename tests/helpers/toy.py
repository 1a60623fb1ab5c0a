"""A toy model for the simulator: its text shows every lost, repeated or swapped position and every wrong layer.

Each layer keeps a running hash of all inputs it saw (its "KV"), and its output mixes that hash with its input. The next
token is a hash of the last layer's output, so it depends on all ids before it, in order, each passed through every
layer exactly once. One device gives the reference.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from swarm.cluster.cost import LayerCost, ModelCost
from swarm.cluster.cuts import Cuts

VOCABULARY = 200
END_ID = 7
EMBED = -1
WIDTH = 2  # floats of an activation
CUTS = Cuts((8, 512, 0, 0, VOCABULARY), (1, 64, 64, 64, 16), 4)
FINITE = ~0x4000000040000000  # a value travels as two floats: neither may be infinite or no number


def model_cost(n_layers: int, layer_bytes: int, kv_bytes: int) -> ModelCost:
    """What the planner is told about the toy."""
    layer = LayerCost(
        dense_bytes=layer_bytes,
        macs=layer_bytes,
        kv_bytes=kv_bytes,
        query_bytes=layer_bytes * 3 // 10,
        key_bytes=layer_bytes // 10,
        ffn_bytes=layer_bytes // 2,
    )
    ends = layer_bytes // 2
    return ModelCost("toy", (layer,) * n_layers, ends, ends, WIDTH, layer_bytes // 2, VOCABULARY, CUTS)


@dataclass
class ToyKv:
    """The caches of layers [first, end): after each position, the hash of all inputs so far."""

    first: int
    end: int
    slice: tuple[int, ...] = ()
    layers: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layers = [[layer] for layer in range(self.first, self.end)]

    @property
    def length(self) -> int:
        return len(self.layers[0]) - 1

    def spoil(self, n: int) -> None:
        """From position n on, what is kept is wrong."""
        for cache in self.layers:
            cache[n + 1 :] = [value ^ 1 for value in cache[n + 1 :]]

    def cut(self, n: int) -> None:
        for cache in self.layers:
            del cache[n + 1 :]

    def run(self, position: int, values: list[int]) -> list[int]:
        """Pass values of consecutive positions through the layers."""
        assert position == self.length, f"position {position} computed on {self.length} positions of KV"
        for layer, cache in enumerate(self.layers, self.first):
            for i, value in enumerate(values):
                cache.append(hash((cache[-1], value)))
                values[i] = hash((layer, value, cache[-1])) & FINITE
        return values


def embed(position: int, ids: tuple[int, ...]) -> list[int]:
    return [hash((EMBED, position + i, token)) for i, token in enumerate(ids)]


def sample(value: int, seed: int, position: int) -> int:
    return hash((value, seed, position)) % VOCABULARY


def pack(values: list[int]) -> bytes:
    return array("q", values).tobytes()


def unpack(frame: bytes) -> list[int]:
    return list(array("q", bytes(frame)))


def answer(n_layers: int, prompt: tuple[int, ...], max_tokens: int, seed: int) -> list[int]:
    """What one device answers: the new ids, without the end id."""
    kv = ToyKv(0, n_layers)
    values = kv.run(0, embed(0, prompt))
    out: list[int] = []
    position = len(prompt)
    while True:
        token = sample(values[-1], seed, position)
        if token == END_ID:
            return out
        out.append(token)
        if len(out) >= max_tokens:
            return out
        values = kv.run(position, embed(position, (token,)))
        position += 1


def again(n_layers: int, ids: tuple[int, ...], first: int, seed: int) -> list[int]:
    """The tokens at the positions [first, len(ids)), each after the ids before it."""
    values = ToyKv(0, n_layers).run(0, embed(0, ids))
    return [sample(values[position - 1], seed, position) for position in range(first, len(ids))]
