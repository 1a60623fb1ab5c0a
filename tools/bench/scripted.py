"""A random mixture whose routing follows traces, in every engine: how an expert cache does on a trace can be measured.

The embedding of token 1 + n is row n of a Hadamard matrix: signs, which are exact in Q4_0 and orthogonal to all others.
The router of a layer is the sum over tokens of (the experts wanted) x (that row), and outputs of layers are so small
that the residual stream stays the embedding. So feeding the ids of a trace in order plays it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "bench")]

import shapes  # noqa: E402

from swarm.kernels import _native  # noqa: E402
from swarm.kernels.quants import Quant  # noqa: E402
from swarm.kernels.reference_experts import FAST_HALF_LIFE, SLOW_HALF_LIFE, fading  # noqa: E402
from tests.helpers import routing  # noqa: E402

I32 = npt.NDArray[np.int32]
SHAPE, MIX = "glm4.5-air", "Q4_0"
QUIET = {"attn_output", "ffn_down", "ffn_down_exps", "ffn_down_shexp"}  # what is added to the residual stream
QUIETER = 200.0  # so much smaller than noise usually is
LOGIT = 6.0  # of a wanted expert; others have about 0
LAYERS = [4, 20, 40]  # of the trace: one for each mixture of the file


@dataclass(frozen=True)
class Played:
    """A trace that the file plays: int32 (tokens, mixtures, top_k), and the id of its first token."""

    first: int
    trace: I32

    @property
    def ids(self) -> I32:
        """The tokens to feed, in this order."""
        return np.arange(self.first, self.first + len(self.trace), dtype=np.int32)

    def replay(self, n_slots: int, begin: int, end: int) -> tuple[int, int]:
        """Hits and misses of tokens [begin, end) by the policy alone, from an empty cache."""
        did = self._empty(n_slots).replay(np.ascontiguousarray(self.trace[:end]))[begin:]
        return int((did == _native.HIT).sum()), int((did != _native.HIT).sum())

    def ranks(self) -> list[float]:
        """What a cache learns of the use of experts over the whole trace, as `swarm plan` takes it."""
        residents = self._empty(self.trace.shape[2])
        residents.replay(self.trace)
        return [float(uses) for uses in residents.ranks()]

    def _empty(self, n_slots: int) -> _native.Residents:
        n_slots = min(n_slots, self.trace.shape[1] * routing.N_EXPERTS)
        fades = fading(FAST_HALF_LIFE), fading(SLOW_HALF_LIFE)
        return _native.Residents(self.trace.shape[1], routing.N_EXPERTS, n_slots, *fades)


def traces() -> dict[str, Played]:
    """What the file plays: a trace as flat as GLM's routing is said to be, and one without any locality."""
    flat, uniform = routing.flat(500)[:, LAYERS], routing.uniform(160)[:, LAYERS]
    each = {"flat": np.ascontiguousarray(np.sort(flat)), "uniform": np.ascontiguousarray(np.sort(uniform))}
    firsts = np.cumsum([1, *(len(trace) for trace in each.values())])
    return {name: Played(int(first), trace) for (name, trace), first in zip(each.items(), firsts, strict=False)}


def scripted_model(folder: Path) -> Path:
    """The file, written when it is missing: GLM-4.5-Air's layers, four of 46, 5 GB."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{SHAPE}-{MIX}-scripted.gguf"
    return shapes.write_model(path, shapes.SHAPES[SHAPE], MIX, _Script(shapes.SHAPES[SHAPE]))


class _Script:
    """What makes the noise of shapes.py play the traces."""

    def __init__(self, shape: shapes.Shape) -> None:
        wanted = np.concatenate([played.trace for played in traces().values()])  # (tokens, mixtures, top_k)
        self.wanted = np.zeros((*wanted.shape[:2], shape.n_experts), np.float32)
        np.put_along_axis(self.wanted, wanted, 1.0, axis=2)
        self.signs = _hadamard(shape.hidden)[1 : 1 + len(wanted)]  # (tokens, hidden)
        self.shape = shape

    def metadata(self, w: GGUFWriter) -> bool:
        """Nothing more, and no tokenizer."""
        return False

    def matrix(self, name: str, quant: Quant, rows: shapes.U8) -> None:
        blocks = rows.reshape(-1, quant.block_bytes)
        if name in QUIET:
            for offset, _ in shapes.SCALES[quant.name]:
                scale = np.ascontiguousarray(blocks[:, offset : offset + 2]).view(np.float16) / np.float16(QUIETER)
                blocks[:, offset : offset + 2] = scale.astype(np.float16).view(np.uint8)
        if name == "token_embd":
            assert quant.name == "Q4_0"
            nibbles = np.where(self.signs > 0, 15, 1).astype(np.uint8).reshape(len(self.signs), -1, 32)
            ours = blocks.reshape(len(rows), -1, quant.block_bytes)[1 : 1 + len(self.signs)]
            ours[:, :, :2] = np.array([1 / 7], np.float16).view(np.uint8)
            ours[:, :, 2:] = nibbles[:, :, :16] | nibbles[:, :, 16:] << 4

    def vectors(self, layer: int, found: dict[str, tuple[np.ndarray, str]]) -> None:
        mixture, shape = layer - self.shape.dense_layers, self.shape
        if mixture >= 0:
            router = LOGIT / shape.hidden * (self.wanted[:, mixture].T @ self.signs.astype(np.float32))
            found["ffn_gate_inp"] = (router, "weight")
            found["post_attention_norm"] = (np.ones(shape.hidden, np.float32), "weight")
            found["exp_probs_b"] = (np.zeros(shape.n_experts, np.float32), "bias")


def _hadamard(n: int) -> npt.NDArray[np.int8]:
    """n a power of two: rows of 1 and -1 that are orthogonal."""
    rows = np.ones((1, 1), np.int8)
    while len(rows) < n:
        rows = np.block([[rows, rows], [rows, -rows]]).astype(np.int8)
    return rows
