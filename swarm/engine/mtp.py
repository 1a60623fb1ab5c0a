"""A model that guesses for itself: the block of its file that predicts the token after the next one.

The block is one more layer with a KV cache of its own. Its entry for position p is made of the token there and of the
model's state at position p - 1, so it follows what the model computes: at once through a prompt, and when it is asked
through an answer. It says one token; for a further one it would have to go on from its own state, for which it was not
trained. Only the model's logits decide what comes, so nothing here shows in a text.

Pairing and order as in llama.cpp's draft_mtp (common/speculative.cpp), where the state is the one after the last norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from swarm.engine.decoder import MAX_STEP_TOKENS, Decoder, Keep, Rows
from swarm.engine.draft import Choose
from swarm.engine.expert_cache import CachedExperts
from swarm.engine.weights import TensorSource, Weights, load_weights
from swarm.kernels import _native
from swarm.models.spec import OUTSIDE_LAYERS, MtpSpec, Role
from swarm.parts import EMBED, LM_HEAD, Part

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
SAMPLED_ROWS = 64  # of two tables, which are held to be the same where these are
MAX_LAG = 256  # states that wait for the block, at most


@dataclass
class MtpKv:
    """The KV cache of a session, and how far the block has followed it."""

    model: _native.KvCache
    block: _native.KvCache
    ids: list[int] = field(default_factory=list)  # of the positions in `model`
    block_ids: list[int] = field(default_factory=list)  # and of those in `block`
    states: dict[int, F32] = field(default_factory=dict)  # by position: the model's, after its last norm

    @property
    def length(self) -> int:
        return self.model.length

    @property
    def capacity(self) -> int:
        return self.model.capacity

    def truncate(self, length: int) -> None:
        """Forget the positions from there on."""
        self.model.truncate(length)
        del self.ids[length:]
        self.states = {position: state for position, state in self.states.items() if position < length}

    def cut_block(self, length: int) -> None:
        """The same of the block."""
        self.block.truncate(length)
        del self.block_ids[length:]


class MtpBlock:
    """The weights of the block, ready to compute."""

    def __init__(self, mtp: MtpSpec, weights: Weights, decoder: Decoder) -> None:
        """`weights`: of the block's layer, an embedding and a head; `decoder`: of the model, or of its last layers."""
        norm = weights.vectors[0, Role.MTP_NORM]
        self.weights = replace(
            weights, layers=range(1), vectors={**weights.vectors, (OUTSIDE_LAYERS, Role.OUTPUT_NORM): norm}
        )
        self.decoder = Decoder(
            mtp.spec,
            self.weights,
            context=decoder.context,
            threads=decoder.threads,
            isa=decoder.engine.isa,
            kv=decoder.kv_kind,
        )
        self._embedding = weights.matrices.get((OUTSIDE_LAYERS, Role.EMBED))

    @classmethod
    def of_file(cls, mtp: MtpSpec, source: TensorSource, decoder: Decoder) -> MtpBlock:
        """From a file; `decoder`: of the whole model, whose embedding and head serve where they are the same."""
        model = decoder.weights
        shared = {role for role in (Role.EMBED, Role.LM_HEAD) if _is_same(source, mtp, decoder, role)}
        parts = [Part(0)]
        parts += [] if Role.EMBED in shared else [EMBED]
        parts += [] if Role.LM_HEAD in shared else [LM_HEAD]
        own = load_weights(source, mtp.spec, parts, threads=decoder.threads)
        tables = {(OUTSIDE_LAYERS, role): model.matrices[OUTSIDE_LAYERS, role] for role in shared}
        return cls(mtp, replace(own, matrices={**own.matrices, **tables}), decoder)

    def entries(self, ids: Sequence[int], states: F32) -> F32:
        """What enters the layer, float32 (tokens, hidden): for each token, and the model's state before it."""
        eps, weights = self.decoder.spec.norm_eps, self.weights
        tokens = normed(self._rows(ids), weights.vectors[0, Role.MTP_TOKEN_NORM], eps)
        both = np.concatenate([tokens, normed(states, weights.vectors[0, Role.MTP_STATE_NORM], eps)], axis=1)
        engine = self.decoder.engine
        projected: F32 = _native.matmul(weights.matrices[0, Role.MTP_PROJECTION], both, engine.isa, engine.threads)
        return projected

    def _rows(self, ids: Sequence[int]) -> F32:
        """Of the embedding, which is in memory or on the disk."""
        if self.weights.table is not None:
            places, matrix = self.weights.table.take(ids)
            return np.stack([matrix.row(place) for place in places.tolist()])
        assert self._embedding is not None, "a block is given an embedding"
        return np.stack([self._embedding.row(token) for token in ids])


class MtpDecoder:
    """A decoder of a whole model whose sessions guess for themselves; each has an MtpKv in place of a KV cache."""

    def __init__(self, decoder: Decoder, block: MtpBlock) -> None:
        self._decoder, self._block = decoder, block
        norm = decoder.weights.vectors[OUTSIDE_LAYERS, Role.OUTPUT_NORM]
        self._output_norm: F32 = norm

    @property
    def context(self) -> int:
        """Positions that a session may have."""
        return self._decoder.context

    @property
    def threads(self) -> int:
        """That compute."""
        return self._decoder.threads

    @property
    def experts(self) -> CachedExperts | None:
        """Those that are on disk."""
        return self._decoder.experts

    def new_kv(self, capacity: int) -> MtpKv:
        """An empty one."""
        return MtpKv(self._decoder.new_kv(capacity), self._block.decoder.new_kv(capacity))

    def logits(self, ids: I32) -> F32:
        """Logits float32 (len(ids), vocab) of a fresh sequence."""
        return self._decoder.logits(ids)

    def forward(self, ids: I32, kv: MtpKv) -> F32:
        """Append `ids`; return the logits float32 (vocab,) after the last."""
        array = np.ascontiguousarray(ids, np.int32)
        self._decoder.check_room(Rows(array, kv.model))
        for start in range(0, len(array) - 1, MAX_STEP_TOKENS):
            piece = array[start : min(start + MAX_STEP_TOKENS, len(array) - 1)]
            self._saw(kv, piece, self._decoder.step_hidden([Rows(piece, kv.model)]))
        last: F32 = self._decoder.step_logits([Rows(array[-1:], kv.model)])[0]
        self._saw(kv, array[-1:], self._decoder.engine.states())
        return last

    def forward_all(self, ids: I32, kv: MtpKv) -> F32:
        """Append `ids`; return the logits float32 (len(ids), vocab) after each."""
        array = np.ascontiguousarray(ids, np.int32)
        self._decoder.check_room(Rows(array, kv.model))
        logits = []
        for start in range(0, len(array), MAX_STEP_TOKENS):
            piece = array[start : start + MAX_STEP_TOKENS]
            logits.append(self._decoder.step_logits([Rows(piece, kv.model, Keep.ALL)]))
            self._saw(kv, piece, self._decoder.engine.states())
        return np.concatenate(logits)

    def propose(self, ids: Sequence[int], choose: Choose, kv: MtpKv) -> list[int]:
        """The token that may come after `ids`, of which the last one is not computed yet, chosen as the model does."""
        if len(ids) > self.context:
            return []
        rows = self._behind(kv, ids)
        logits = self._block.decoder.step_logits([Rows(rows, kv.block)])[0]
        kv.block_ids[:] = ids
        return [choose(logits, ids)]

    def _saw(self, kv: MtpKv, ids: I32, hidden: F32) -> None:
        """The model has computed these: their states, before the last norm."""
        states = normed(hidden, self._output_norm, self._decoder.spec.norm_eps)
        for token, state in zip(ids.tolist(), states, strict=True):
            kv.states[len(kv.ids)] = state
            kv.ids.append(token)
        if len(kv.states) > MAX_LAG:
            rows = self._behind(kv, kv.ids)
            for start in range(0, len(rows), MAX_STEP_TOKENS):
                self._block.decoder.store(rows[start : start + MAX_STEP_TOKENS], kv.block)
            kv.block_ids[:] = kv.ids
            kv.states = {len(kv.ids) - 1: states[-1]}

    def _behind(self, kv: MtpKv, ids: Sequence[int]) -> F32:
        """What the block has to compute to be where these ids end, at least its last entry.

        There is no state before the first token, nor one before where a conversation was taken up again.
        """
        n = min(len(kv.block_ids), len(ids) - 1)
        have = kv.block_ids
        same = n if have[:n] == list(ids[:n]) else next(i for i in range(n) if have[i] != ids[i])
        kv.cut_block(same)
        nothing = np.zeros(self._decoder.spec.hidden, np.float32)
        states = np.stack([kv.states.get(position, nothing) for position in range(same - 1, len(ids) - 1)])
        return self._block.entries(ids[same:], states)


def normed(x: F32, weight: F32, eps: float) -> F32:
    """RMS norm of rows float32 (tokens, hidden)."""
    scale = 1 / np.sqrt(np.mean(np.square(x), axis=1, keepdims=True, dtype=np.float32) + np.float32(eps))
    normed: F32 = x * scale.astype(np.float32) * weight
    return normed


def _is_same(source: TensorSource, mtp: MtpSpec, decoder: Decoder, role: Role) -> bool:
    """Whether the block's table is the model's: the same tensor, or one with the same rows as far as is looked."""
    own, model = mtp.spec.tensors[role].name, decoder.spec.tensors[role].name
    if own == model:
        return True
    if source.tensors[own].quant.id != source.tensors[model].quant.id:
        return False
    step = max(mtp.spec.vocab // SAMPLED_ROWS, 1)
    rows = [range(i, i + 1) for i in range(0, mtp.spec.vocab, step)]
    return bool(np.array_equal(source.raw(own, rows), source.raw(model, rows)))
