"""One row of the table of families: the engine against transformers, and against itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swarm.engine.decoder import Decoder
from swarm.engine.weights import load_weights
from swarm.kernels import _native
from swarm.models import spec_from_gguf
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from tests.helpers.numpy_decoder import NumpyDecoder
from tests.helpers.tiny import TINY, Tiny, after_storage, make_weights, wide, write_tiny
from tests.helpers.transformers_oracle import transformers_logits

MIXES = ("F32", "Q8_0", "Q4_K")
N_TOKENS = 100  # past the 64 positions for which the stretched checkpoints were made
CHUNKS = (1, 7, 64, 3, 25)
F32_BOUND = 1e-3  # of the largest logit
SEEDS = 200
ENOUGH = 60  # sequences, among which the steadiest is steady enough
WAYS = ((True, False), (False, True), (True, True))  # keys and values rounded, sums on their grid


@dataclass(frozen=True)
class Row:
    """What was measured of one checkpoint in one mix; differences are relative to the largest logit."""

    name: str
    mix: str
    worst: float  # largest difference from transformers at any position
    typical: float  # median over positions of the largest difference at one
    same_argmax: int  # positions, of N_TOKENS
    widest_flip: float  # where the best token differs: how much worse the engine's is, in transformers' eyes
    float_kv: float  # as `worst`, of the engine with keys and values kept as float32
    same_sums: float  # with keys and values kept as float32: difference from NumPy that sums as the engine does
    same_rounding: float  # difference from NumPy that rounds sums, activations, keys and values as the engine does
    same_bits: bool  # prefill, token by token, mixed chunks, one thread, and every instruction set

    @property
    def within_bounds(self) -> bool:
        """F32: the project's bar. Others carry activations rounded to int8, which tips routers at near ties."""
        if self.mix == "F32":
            worst = max(self.worst, self.float_kv, 100 * self.same_sums)
            return worst <= F32_BOUND and self.same_argmax == N_TOKENS and self.same_bits
        return self.typical <= 0.04 and self.same_rounding <= 1e-4 and self.same_bits


def tiny_for(name: str, mix: str) -> Tiny:
    """The checkpoint as it suits the mix: K-quants need wide rows, and 352 columns make some of them fall back."""
    return wide(TINY[name], ffn=352) if mix == "Q4_K" else TINY[name]


def measure(name: str, mix: str, folder: Path) -> Row:
    """Write the checkpoint in this mix and compare."""
    tiny = tiny_for(name, mix)
    weights = make_weights(tiny)
    path = write_tiny(folder / f"{name}-{mix}.gguf", tiny, weights, mix)
    ids = steady_ids(path) if mix == "F32" else random_ids(tiny.vocab, seed=0)
    expected = transformers_logits(tiny, after_storage(tiny, weights, mix), ids)
    found = open_decoder(path).logits(ids)
    largest = np.abs(expected).max()
    by_position = np.abs(found - expected).max(axis=1) / largest
    best = found.argmax(axis=1)
    lost = expected.max(axis=1) - np.take_along_axis(expected, best[:, None], axis=1)[:, 0]
    return Row(
        name=name,
        mix=mix,
        worst=float(by_position.max()),
        typical=float(np.median(by_position)),
        same_argmax=int((lost == 0).sum()),
        widest_flip=float(lost.max() / largest),
        float_kv=float(np.abs(open_decoder(path, kv="f32").logits(ids) - expected).max() / largest),
        same_sums=same_rounding(path, rounded=False),
        same_rounding=same_rounding(path, rounded=True),
        same_bits=same_bits(path, ids, found),
    )


def random_ids(vocab: int, seed: int) -> list[int]:
    """N_TOKENS token ids."""
    return np.random.default_rng(seed).integers(0, vocab, N_TOKENS).tolist()


def steady_ids(path: Path) -> list[int]:
    """Ids at which no near tie is tipped when keys and values become half floats, or sums go on their grid, or both.

    Judged by NumPy alone; of those at which half floats tip none, the steadiest. A near tie, of a router or of the best
    two tokens, says nothing of an engine; once a router's is tipped the token has another expert and other logits.
    """
    plain = NumpyDecoder.open(path)
    others = [NumpyDecoder.open(path, rounded=rounded, exact=exact) for rounded, exact in WAYS]
    best, steadiest = 0, list[int]()
    for seed in range(SEEDS):
        ids = random_ids(plain.spec.vocab, seed)
        expected = plain.logits(ids)
        if not _is_near(others[0].logits(ids), expected):
            continue
        score = 1 + _is_clear(expected) + sum(_is_near(other.logits(ids), expected) for other in others[1:])
        if score > best:
            best, steadiest = score, ids
        if best == len(others) + 1 or seed >= ENOUGH:
            break
    assert steadiest, f"{path.name}: a near tie in each of {SEEDS} sequences"
    return steadiest


def _is_clear(logits: np.ndarray) -> bool:
    """True when the best token of every position is further ahead of the second than the bound is wide."""
    second, best = np.partition(logits, -2, axis=1)[:, -2:].T
    return bool((best - second).min() > F32_BOUND * np.abs(logits).max())


def _is_near(logits: np.ndarray, expected: np.ndarray) -> bool:
    near = np.abs(logits - expected).max() <= 0.8 * F32_BOUND * np.abs(expected).max()
    return bool(near) and np.array_equal(logits.argmax(1), expected.argmax(1))


def open_decoder(
    path: Path, *, threads: int = 2, isa: str = "", kv: str = "f16", context: int = 2 * N_TOKENS
) -> Decoder:
    """The engine on a whole model."""
    model = open_gguf(path)
    spec = spec_from_gguf(model.metadata, model.tensors)
    weights = load_weights(model, spec, all_parts(spec.n_layers))
    return Decoder(spec, weights, context=context, threads=threads, isa=isa, kv=kv)


def same_rounding(path: Path, *, rounded: bool) -> float:
    """The least, over single tokens, of the largest difference from NumPy that rounds as the engine does.

    Without `rounded` only sums are. The least, because a rounding that goes the other way by a last bit spreads to all
    that follows, and the grid of the sums is fine enough for one in most sequences; a mistake is in all of them.
    """
    engine = open_decoder(path, kv="f16" if rounded else "f32")
    numpy = NumpyDecoder.open(path, rounded=rounded, exact=True)
    least = np.inf
    for token in range(numpy.spec.vocab):
        expected = numpy.logits([token])
        least = min(least, np.abs(engine.logits([token]) - expected).max() / np.abs(expected).max())
        if least <= 1e-6:
            break
    return float(least)


def same_bits(path: Path, ids: list[int], prefilled: np.ndarray) -> bool:
    """Whether every other way to run the sequence gives the very same logits as one prefill."""
    decoder = open_decoder(path)
    ways = [
        in_steps(decoder, ids, (1,) * len(ids)),
        in_steps(decoder, ids, CHUNKS),
        open_decoder(path, threads=1).logits(ids),
    ]
    ways += [open_decoder(path, isa=isa).logits(ids) for isa in _native.isa_names()]
    return all(np.array_equal(way, prefilled) for way in ways)


def in_steps(decoder: Decoder, ids: list[int], steps: tuple[int, ...]) -> np.ndarray:
    """Logits of a fresh sequence that is appended in steps of these lengths."""
    assert sum(steps) == len(ids)
    kv = decoder.new_kv(len(ids))
    ends = np.cumsum(steps)
    return np.concatenate([decoder.forward_all(ids[end - n : end], kv) for end, n in zip(ends, steps, strict=True)])
