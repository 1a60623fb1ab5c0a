"""A shard of a model that runs: token ids or hidden states in, hidden states or logits out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
import numpy.typing as npt

from swarm.engine.rope import Rope
from swarm.engine.weights import Weights
from swarm.errors import ContextFull
from swarm.kernels import _native
from swarm.models.spec import OUTSIDE_LAYERS, LayerSpec, ModelSpec, Role

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

MAX_STEP_TOKENS = 512  # of one prefill step: enough to read each weight once for many tokens, few enough to interrupt


class Keep(Enum):
    """The tokens of a step whose hidden states are wanted."""

    ALL = 0
    LAST = 1
    NONE = 2


class Decoder:
    """Runs the layers of `weights`, and the embedding and the head where the shard has them.

    Not for two threads at once: a decoder has one set of buffers. Several sessions take turns, each with its KV cache.
    """

    def __init__(
        self, spec: ModelSpec, weights: Weights, *, context: int, threads: int, isa: str = "", kv: str = "f16"
    ) -> None:
        self.spec, self.weights, self.context, self.kv_kind = spec, weights, context, kv
        self.dims = _dims(spec, weights)
        self.engine = _native.Engine(
            self.dims,
            max_tokens=min(MAX_STEP_TOKENS, context),
            context=context,
            keep_float=any(weights.is_float(i) for i in weights.layers),
            threads=threads,
            isa=isa,
        )
        self.threads: int = self.engine.threads
        self.rope = Rope(spec.rope, weights.vectors.get((OUTSIDE_LAYERS, Role.ROPE_FREQS)))
        self.layers = [self._layer(i) for i in weights.layers]
        self._stack = _native.Layers(self.dims, self.layers)
        self._embedding = weights.matrices.get((OUTSIDE_LAYERS, Role.EMBED))
        self._output = weights.matrices.get((OUTSIDE_LAYERS, Role.OUTPUT))
        self._output_norm = weights.vectors.get((OUTSIDE_LAYERS, Role.OUTPUT_NORM))

    def new_kv(self, capacity: int | None = None) -> _native.KvCache:
        """An empty KV cache for the shard's layers. Memory is taken as positions fill."""
        positions = min(capacity or self.context, self.context)
        return _native.KvCache(self.dims, len(self.weights.layers), positions, self.kv_kind)

    def forward(self, ids: Sequence[int] | I32, kv: _native.KvCache) -> F32:
        """Append `ids`; return the logits float32 (vocab,) after the last one."""
        return self._steps(ids, kv, all_logits=False)

    def forward_all(self, ids: Sequence[int] | I32, kv: _native.KvCache) -> F32:
        """Append `ids`; return the logits float32 (len(ids), vocab) after each."""
        return self._steps(ids, kv, all_logits=True)

    def logits(self, ids: Sequence[int] | I32) -> F32:
        """Logits float32 (len(ids), vocab) of a fresh sequence."""
        return self.forward_all(ids, self.new_kv(len(ids)))

    def embed(self, ids: I32, kv: _native.KvCache) -> F32:
        """First stage: append at most MAX_STEP_TOKENS ids; return hidden states float32 (tokens, hidden)."""
        self._advance(ids, kv)
        return self.engine.hidden(len(ids))

    def extend(self, hidden: F32, kv: _native.KvCache) -> F32:
        """Middle stage: append hidden states of the stage before; return this stage's."""
        self._advance(hidden, kv)
        return self.engine.hidden(len(hidden))

    def finish(self, hidden: F32, kv: _native.KvCache) -> F32:
        """Last stage: append hidden states; return the logits float32 (vocab,) after the last."""
        return self._advance_to_logits(hidden, kv)

    def store(self, tokens: I32 | F32, kv: _native.KvCache) -> None:
        """Last stage: append ids (of a shard that is the first, too) or hidden states that nothing is sampled after."""
        self._advance(tokens, kv, Keep.NONE)

    def _steps(self, ids: Sequence[int] | I32, kv: _native.KvCache, *, all_logits: bool) -> F32:
        array = np.ascontiguousarray(ids, np.int32)
        self._check(array, kv)
        steps = [array[start : start + MAX_STEP_TOKENS] for start in range(0, len(array), MAX_STEP_TOKENS)]
        if all_logits:
            return np.concatenate([self._advance_to_all_logits(step, kv) for step in steps])
        for step in steps[:-1]:
            self._advance(step, kv, Keep.NONE)
        return self._advance_to_logits(steps[-1], kv)

    def _advance_to_logits(self, tokens: I32 | F32, kv: _native.KvCache) -> F32:
        """Append ids or hidden states; return the logits (vocab,) after the last."""
        if len(tokens) == 1:
            logits = self._one_call(tokens, kv, self._output)
            assert logits is not None
            return logits
        self._advance(tokens, kv, Keep.LAST)
        last: F32 = self.engine.head(self._output_norm, self._output, 1, 0)[0]
        return last

    def _advance_to_all_logits(self, ids: I32, kv: _native.KvCache) -> F32:
        self._advance(ids, kv)
        return self.engine.head(self._output_norm, self._output, len(ids), 0)

    def _advance(self, tokens: I32 | F32, kv: _native.KvCache, keep: Keep = Keep.ALL) -> None:
        """Append ids or hidden states; leave those hidden states in the engine that are wanted.

        Of the last layer, all tokens need keys and values; only the tokens that are wanted need the rest of it.
        """
        self._check(tokens, kv)
        if len(tokens) == 1:
            self._one_call(tokens, kv, None)
            return
        if tokens.dtype == np.int32:
            self.engine.embed(self._embedding, tokens)
        else:
            self.engine.set_hidden(tokens)
        position, n_tokens = kv.length, len(tokens)
        cos, sin = self.rope.at(position, n_tokens)
        # Back to Python between halves, so that Ctrl-C is heard; a prefill step can take long.
        for i, (attention, ffn) in enumerate(self.layers if keep is Keep.ALL else self.layers[:-1]):
            self.engine.attention(attention, kv, i, position, n_tokens, cos, sin)
            self.engine.ffn(ffn, n_tokens)
        if keep is not Keep.ALL:
            attention, ffn = self.layers[-1]
            self.engine.keys(attention, kv, len(self.layers) - 1, position, n_tokens, cos, sin)
        if keep is Keep.LAST:
            last = position + n_tokens - 1
            self.engine.attention(attention, kv, len(self.layers) - 1, last, 1, *self.rope.at(last, 1))
            self.engine.ffn(ffn, 1)
        self.engine.commit(kv, position, n_tokens)

    def _one_call(self, token: I32 | F32, kv: _native.KvCache, head: _native.Mat | None) -> F32 | None:
        """A decode step, from one id or hidden state to logits where there is a head, in one native call."""
        self._check(token, kv)
        position = kv.length
        cos, sin = self.rope.at(position, 1)
        ids, table = (token, self._embedding) if token.dtype == np.int32 else (None, None)
        if ids is None:
            self.engine.set_hidden(token)
        logits = self.engine.step(
            self._stack, kv, position, 1, cos, sin, ids=ids, table=table, norm=self._output_norm, head=head
        )
        self.engine.commit(kv, position, 1)
        return logits

    def _check(self, tokens: npt.NDArray[np.generic], kv: _native.KvCache) -> None:
        if kv.length + len(tokens) > kv.capacity:
            raise ContextFull(
                f"{kv.length + len(tokens)} tokens do not fit the context of {kv.capacity}; "
                "start anew, or raise the context"
            )

    def _layer(self, i: int) -> tuple[_native.Attention, _native.Ffn]:
        m, v = self.weights.matrices, self.weights.vectors

        def vector(role: Role) -> F32 | None:
            return v.get((i, role))

        attention = _native.Attention(
            self.dims,
            norm=v[i, Role.ATTN_NORM],
            post_norm=vector(Role.ATTN_POST_NORM),
            q=m[i, Role.Q],
            k=m[i, Role.K],
            v=m[i, Role.V],
            o=m[i, Role.O],
            q_bias=vector(Role.Q_BIAS),
            k_bias=vector(Role.K_BIAS),
            v_bias=vector(Role.V_BIAS),
            q_norm=vector(Role.Q_NORM),
            k_norm=vector(Role.K_NORM),
        )
        return attention, self._ffn(i, self.spec.layers[i])

    def _ffn(self, i: int, layer: LayerSpec) -> _native.Ffn:
        m, v, experts, moe = self.weights.matrices, self.weights.vectors, self.weights.experts, layer.moe
        norm, post_norm = v[i, Role.FFN_NORM], v.get((i, Role.FFN_POST_NORM))
        if moe is None:
            gate, up, down = (m[i, role] for role in (Role.GATE, Role.UP, Role.DOWN))
            return _native.Ffn(self.dims, norm=norm, layer=i, post_norm=post_norm, gate=gate, up=up, down=down)
        matrices = (experts[i, role] for role in (Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN))
        return _native.Ffn(
            self.dims,
            norm=norm,
            layer=i,
            post_norm=post_norm,
            gate=m.get((i, Role.SHARED_GATE)),
            up=m.get((i, Role.SHARED_UP)),
            down=m.get((i, Role.SHARED_DOWN)),
            router=m[i, Role.ROUTER],
            router_bias=v.get((i, Role.ROUTER_BIAS)),
            experts=list(zip(*matrices, strict=True)),
            top_k=moe.top_k,
            sigmoid=moe.gating == "sigmoid",
            normalise=moe.normalise,
            scale=moe.scale,
            n_group=moe.n_group,
            top_group=moe.top_group,
        )


def _dims(spec: ModelSpec, weights: Weights) -> _native.Dims:
    layers = [spec.layers[i] for i in weights.layers]
    mixtures = [layer.moe for layer in layers if layer.moe is not None]
    return _native.Dims(
        hidden=spec.hidden,
        n_heads=spec.n_heads,
        n_kv_heads=spec.n_kv_heads,
        head_dim=spec.head_dim,
        rope_dims=spec.rope.dims,
        rope_pair=spec.rope.style == "pair",
        eps=spec.norm_eps,
        q_scale=spec.attention_scale,
        ffn=max((layer.ffn for layer in layers), default=0),
        n_experts=max((m.n_experts for m in mixtures), default=0),
        top_k=max((m.top_k for m in mixtures), default=0),
        expert_ffn=max((max(m.expert_ffn, m.shared_ffn) for m in mixtures), default=0),
    )
