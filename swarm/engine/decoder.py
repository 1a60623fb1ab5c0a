"""A shard of a model that runs: token ids or hidden states in, hidden states or logits out."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swarm.engine.expert_cache import CachedExperts
from swarm.engine.rope import Rope
from swarm.engine.ways import Choices, for_engine
from swarm.engine.weights import Weights
from swarm.errors import ContextFull, ExpertUnreadable, ModelError, StageLost
from swarm.kernels import _native
from swarm.models.spec import OUTSIDE_LAYERS, LayerSpec, ModelSpec, Role

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

EXPERTS_IN_ORDER = (Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN)
MAX_STEP_TOKENS = 512  # of one prefill step: enough to read each weight once for many tokens, few enough to interrupt
MAX_ONE_CALL_TOKENS = 16  # a token with guesses after it is a decode step, too


class Keep(Enum):
    """The tokens after which logits are wanted."""

    ALL = 0
    LAST = 1
    NONE = 2


class Rows(NamedTuple):  # made for every token: half the time of a frozen dataclass
    """Rows of a step that follow each other in one session: they go to the next positions of its KV cache.

    tokens: ids int32 (tokens,), or hidden states float32 (tokens, hidden) of the stage before.
    """

    tokens: I32 | F32
    kv: _native.KvCache
    keep: Keep = Keep.LAST  # of a last stage


class LongPrompt(NamedTuple):
    """Tokens that go through the model layer by layer, with their hidden states float32 (tokens, hidden) so far."""

    ids: I32
    kv: _native.KvCache
    first: int  # their first position
    held: F32


class Decoder:
    """Runs the layers of `weights`, and the embedding and the head where the shard has them.

    Not for two threads at once: a decoder has one set of buffers. Sessions, each with its KV cache, take turns or share
    a step: the bits of a row do not depend on the rows beside it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: Weights,
        *,
        context: int,
        threads: int,
        isa: str = "",
        kv: str = "f16",
        experts: CachedExperts | None = None,
        ways: Choices | None = None,
        held_tokens: int = 0,
    ) -> None:
        """`experts`: those of the layers whose experts are in files. ways: what was found fastest here. held_tokens:
        there is memory for the hidden states of so many tokens, which `prompt` takes."""
        self.spec, self.weights, self.context, self.kv_kind, self.experts = spec, weights, context, kv, experts
        self.held_tokens = held_tokens if experts is not None else 0
        self.dims = _dims(spec, weights)
        self.engine = _native.Engine(
            self.dims,
            max_tokens=min(MAX_STEP_TOKENS, context),
            context=context,
            keep_float=any(weights.is_float(i) for i in weights.layers),
            threads=threads,
            isa=isa,
        )
        self.choose(ways or {})
        self.threads: int = self.engine.threads
        self.rope = Rope(spec.rope, weights.vectors.get((OUTSIDE_LAYERS, Role.ROPE_FREQS)), spec.temper)
        self.layers = [self._layer(i) for i in weights.layers]
        self._stack = _native.Layers(self.dims, self.layers)
        self._embedding = weights.matrices.get((OUTSIDE_LAYERS, Role.EMBED))
        self._output = weights.matrices.get((OUTSIDE_LAYERS, Role.LM_HEAD))
        self._stage: _native.Stage | None = None
        self._sequence = 0
        self._turn = experts.turn if experts is not None else nullcontext()
        self._output_norm = _scaled(weights.vectors.get((OUTSIDE_LAYERS, Role.OUTPUT_NORM)), spec.scales.logits)

    def choose(self, ways: Choices) -> None:
        """From the next step on, products of a token are computed so. No bit changes. Not while a step runs."""
        self.engine.choose(for_engine(ways))

    def meet(self, stage: _native.Stage | None, sequence: int) -> None:
        """The next step is number `sequence` of a stage whose members share these layers: each half's output is that of
        all of them. With None the layers here are whole.

        Such a step raises StageLost when a member does not take part, and has stored nothing then. If it fails here for
        another reason, the other members are told. Logits are those of this slice's rows of the vocabulary.
        """
        if stage is not self._stage:
            self.engine.meet(stage)
        self._stage, self._sequence = stage, sequence
        if stage is not None:
            stage.begin(sequence)

    def new_kv(self, capacity: int | None = None, kind: str = "") -> _native.KvCache:
        """An empty KV cache for the shard's layers, of the decoder's kind or another. Memory is taken as it fills."""
        positions = min(capacity or self.context, self.context)
        return _native.KvCache(self.dims, len(self.weights.layers), positions, kind or self.kv_kind)

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
        return self.step_hidden([Rows(ids, kv)])

    def extend(self, hidden: F32, kv: _native.KvCache) -> F32:
        """Middle stage: append hidden states of the stage before; return this stage's."""
        return self.step_hidden([Rows(hidden, kv)])

    def finish(self, hidden: F32, kv: _native.KvCache) -> F32:
        """Last stage: append hidden states; return the logits float32 (vocab,) after the last."""
        last: F32 = self.step_logits([Rows(hidden, kv)])[0]
        return last

    def store(self, tokens: I32 | F32, kv: _native.KvCache) -> None:
        """Last stage: append ids (of a shard that is the first, too) or hidden states that nothing is sampled after."""
        self.step_logits([Rows(tokens, kv, Keep.NONE)])

    def step_hidden(self, rows: Sequence[Rows]) -> F32:
        """A step of a stage that is not the last: hidden states float32 (tokens, hidden) of all rows, in order.

        At most MAX_STEP_TOKENS together (or the context of the decoder), each KV cache once.
        """
        try:
            with self._turn:
                tokens = self._begin(rows)
                if len(tokens) == len(rows) or len(tokens) <= MAX_ONE_CALL_TOKENS:
                    self._one_call(tokens, None)
                else:
                    self._halves(tokens, self.layers)
                return self.engine.hidden()
        except BaseException as error:
            self._abandon(error)
            raise

    def step_logits(self, rows: Sequence[Rows]) -> F32:
        """A step of the last stage: logits float32 (wanted, vocab) after the tokens that `keep` says, in order."""
        wanted = _wanted(rows)
        try:
            with self._turn:
                tokens = self._begin(rows)
                if len(wanted) == len(tokens) and (len(tokens) == len(rows) or len(tokens) <= MAX_ONE_CALL_TOKENS):
                    logits = self._one_call(tokens, self._output)
                    assert logits is not None
                    return logits
                return self._logits(tokens, wanted)
        except BaseException as error:
            self._abandon(error)
            raise

    def normed(self, row: int) -> F32:
        """After `step_logits`: the hidden state float32 (hidden,) of a row of its logits, behind the last norm.

        Raise ModelError when it is no number. Sums are rounded once, so the bits are the same on every device.
        """
        state = self.engine.states()[row].astype(np.float64)
        mean_square = math.fsum(np.square(state).tolist()) / len(state)
        norm = self.weights.vectors[OUTSIDE_LAYERS, Role.OUTPUT_NORM]
        normed: F32 = (state / math.sqrt(mean_square + self.spec.norm_eps) * norm).astype(np.float32)
        if not np.isfinite(normed).all():
            raise ModelError("the model computed values that are no numbers: its file may be damaged, or not supported")
        return normed

    def _abandon(self, error: BaseException) -> None:
        self.engine.abandon()
        told = isinstance(error, StageLost) or type(error) is ModelError  # sums that are broken are so at all members
        if self._stage is not None and not told:
            self._stage.refuse(self._sequence, str(error) or type(error).__name__)
        if isinstance(error, ExpertUnreadable) and self.experts is not None:
            raise self.experts.error_of(error) from error

    def _logits(self, tokens: I32 | F32, wanted: list[int]) -> F32:
        """Of the last layer, all rows need keys and values; only those that are wanted need the rest of it."""
        if len(wanted) == len(tokens):
            self._halves(tokens, self.layers)
        else:
            self._halves(tokens, self.layers[:-1])
            attention, ffn = self.layers[-1]
            self.engine.keys(attention, wanted)
            if not wanted:
                return np.empty((0, self.spec.vocab), np.float32)
            self.engine.attention(attention)
            self.engine.ffn(ffn)
        return self.engine.lm_head(self._output_norm, self._output)

    def check_room(self, rows: Rows) -> None:
        """Raise ContextFull when these do not fit their KV cache."""
        end = rows.kv.length + len(rows.tokens)
        if end > rows.kv.capacity:
            raise ContextFull(
                f"{end} tokens do not fit the context of {rows.kv.capacity}; start anew, or raise the context"
            )

    def _steps(self, ids: Sequence[int] | I32, kv: _native.KvCache, *, all_logits: bool) -> F32:
        array = np.ascontiguousarray(ids, np.int32)
        self.check_room(Rows(array, kv))
        pieces = [array[start : start + MAX_STEP_TOKENS] for start in range(0, len(array), MAX_STEP_TOKENS)]
        if all_logits:
            return np.concatenate([self.step_logits([Rows(piece, kv, Keep.ALL)]) for piece in pieces])
        for piece in pieces[:-1]:
            self.store(piece, kv)
        last: F32 = self.step_logits([Rows(pieces[-1], kv)])[0]
        return last

    def prompt(self, ids: I32, kv: _native.KvCache) -> Generator[float, None, F32]:
        """Append at most `held_tokens` ids of a whole model; return the logits float32 (vocab,) after the last one.

        Layer by layer, so that a layer's experts are read for all tokens: once where they have room together. The bits
        are those of `forward`. Yields now and then what share is done; until the end, `kv` is as long as before.
        """
        self.check_room(Rows(ids, kv))
        size, n_layers = self.engine.max_tokens, len(self.layers)
        parts = [range(at, min(at + size, len(ids))) for at in range(0, len(ids), size)]
        long, logits = LongPrompt(ids, kv, kv.length, np.empty((len(ids), self.spec.hidden), np.float32)), None
        for done in range(n_layers * len(parts)):
            layer, part = divmod(done, len(parts))
            with self._turn:
                logits = self._part(layer, parts[part], long)
            if logits is None:
                yield (done + 1) / (n_layers * len(parts))
        assert logits is not None
        return logits

    def _part(self, layer: int, part: range, long: LongPrompt) -> F32 | None:
        """One layer of some tokens of a prompt; the logits where that is the end of it."""
        rows, is_last, more = slice(part.start, part.stop), layer == len(self.layers) - 1, part.stop < len(long.ids)
        place = long.first + part.start, len(part)
        try:
            self._check_mapped()
            if self.experts is not None:
                self.experts.begin_step(part.stop - 1 if is_last else part.start, more=more)
            tables = *self.rope.at(*place), self.rope.temper(*place)
            ahead = place[0] - long.kv.length
            self.engine.begin(((long.kv, len(part)),), *tables, layer=layer, ahead=ahead)
            self._input(long.held[rows] if layer else long.ids[rows])
            if is_last:
                return self._last_of(len(part), more=more)
            self._run([self.layers[layer]])
            self.engine.leave(long.held[rows])
        except BaseException as error:
            self._abandon(error)
            raise
        return None

    def _last_of(self, n_tokens: int, *, more: bool) -> F32 | None:
        """The last layer of a part of a prompt: all its keys and values, and logits after its last token, or more."""
        attention, ffn = self.layers[-1]
        self.engine.keys(attention, [] if more else [n_tokens - 1])
        if more:
            return None
        self._run([(attention, ffn)])
        logits: F32 = self.engine.lm_head(self._output_norm, self._output)[0]
        return logits

    def _check_mapped(self) -> None:
        """Raise BadModelFile when mapped weights were found to be damaged."""
        for mapped in self.weights.mapped:
            mapped.check()

    def _begin(self, rows: Sequence[Rows]) -> I32 | F32:
        """Begin a step: the tokens of all rows. Raise BadModelFile when mapped weights were found to be damaged."""
        self._check_mapped()
        if self.experts is not None:
            self.experts.begin_step()
        for r in rows:
            self.check_room(r)
        if len(rows) == 1:  # a step of one session: no lists, for it is made for every token
            tokens, kv, _ = rows[0]
            place = kv.length, len(tokens)
            self.engine.begin(((kv, len(tokens)),), *self.rope.at(*place), self.rope.temper(*place))
            return tokens
        tables = [self.rope.at(r.kv.length, len(r.tokens)) for r in rows]
        cos, sin = (np.concatenate(part) for part in zip(*tables, strict=True))
        tempers = [part for r in rows if (part := self.rope.temper(r.kv.length, len(r.tokens))) is not None]
        self.engine.begin([(r.kv, len(r.tokens)) for r in rows], cos, sin, np.concatenate(tempers) if tempers else None)
        return np.concatenate([r.tokens for r in rows])

    def _halves(self, tokens: I32 | F32, layers: Sequence[tuple[_native.Attention, _native.Ffn]]) -> None:
        """Half by half: back to Python between them, so that Ctrl-C is heard; a prefill step can take long."""
        self._input(tokens)
        self._run(layers)

    def _run(self, layers: Sequence[tuple[_native.Attention, _native.Ffn]]) -> None:
        for attention, ffn in layers:
            self.engine.attention(attention)
            self.engine.ffn(ffn)

    def _input(self, tokens: I32 | F32) -> None:
        if tokens.dtype == np.int32:
            ids, table = self._embedded(tokens)
            self.engine.embed(table, ids)
        else:
            self.engine.set_hidden(tokens)

    def _embedded(self, ids: I32 | F32) -> tuple[I32 | F32, _native.Mat | None]:
        """Rows of a matrix, and the matrix: the embedding, or what of it was read from disk for these ids."""
        return (ids, self._embedding) if self.weights.table is None else self.weights.table.take(ids.tolist())

    def _one_call(self, tokens: I32 | F32, lm_head: _native.Mat | None) -> F32 | None:
        """A decode step, from a few tokens of each session to logits where there is a head, in one native call."""
        ids, table = self._embedded(tokens) if tokens.dtype == np.int32 else (None, None)
        if ids is None:
            self.engine.set_hidden(tokens)
        return self.engine.step(self._stack, ids=ids, table=table, norm=self._output_norm, lm_head=lm_head)

    def _layer(self, i: int) -> tuple[_native.Attention, _native.Ffn]:
        attention = self._latent_attention(i) if self.spec.latent else self._attention(i)
        return attention, self._ffn(i, self.spec.layers[i])

    def _latent_attention(self, i: int) -> _native.LatentAttention:
        m, v, lists = self.weights.matrices, self.weights.vectors, self.weights.experts
        return _native.LatentAttention(
            self.dims,
            norm=v[i, Role.ATTN_NORM],
            q=m[i, Role.Q],
            kv_a=m[i, Role.KV_A],
            kv_a_norm=v[i, Role.KV_A_NORM],
            k_b=lists[i, Role.K_B],
            v_b=lists[i, Role.V_B],
            o=m[i, Role.O],
            q_a=m.get((i, Role.Q_A)),
            q_a_norm=v.get((i, Role.Q_A_NORM)),
        )

    def _attention(self, i: int) -> _native.Attention:
        m, v = self.weights.matrices, self.weights.vectors

        def vector(role: Role) -> F32 | None:
            return v.get((i, role))

        return _native.Attention(
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
            out_bias=vector(Role.O_BIAS),
            sinks=vector(Role.SINKS),
            rotated=self.spec.layers[i].rotated,
            window=self.spec.layers[i].window,
        )

    def _ffn(self, i: int, layer: LayerSpec) -> _native.Ffn:
        m, v, experts, moe = self.weights.matrices, self.weights.vectors, self.weights.experts, layer.moe
        norm, post_norm = v[i, Role.FFN_NORM], v.get((i, Role.FFN_POST_NORM))
        if moe is None:
            gate, up, down = (m[i, role] for role in (Role.GATE, Role.UP, Role.DOWN))
            return _native.Ffn(self.dims, norm=norm, layer=i, post_norm=post_norm, gate=gate, up=up, down=down)
        cache = self.experts if i in self.weights.expert_files else None
        if cache is not None:
            listed = [cache.template(i)]
        else:
            listed = list(zip(*(experts[i, role] for role in EXPERTS_IN_ORDER), strict=True))
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
            experts=listed,
            cache=cache.native if cache is not None else None,
            cache_layer=cache.place(i) if cache is not None else 0,
            top_k=moe.top_k,
            sigmoid=moe.gating == "sigmoid",
            normalise=moe.normalise,
            scale=moe.scale,
            n_group=moe.n_group,
            top_group=moe.top_group,
            logit_bias=v.get((i, Role.ROUTER_LOGIT_BIAS)),
            gate_bias=v.get((i, Role.EXPERT_GATE_BIAS)),
            up_bias=v.get((i, Role.EXPERT_UP_BIAS)),
            down_bias=v.get((i, Role.EXPERT_DOWN_BIAS)),
            alpha=moe.swiglu.alpha if moe.swiglu else 1.0,
            limit=moe.swiglu.limit if moe.swiglu else 0.0,
        )


def _scaled(norm: F32 | None, scale: float) -> F32 | None:
    """The norm before the head with the factor of the logits: what the head sees is as much larger or smaller."""
    return norm if norm is None or scale == 1 else norm * np.float32(scale)


def _wanted(rows: Sequence[Rows]) -> list[int]:
    """The places, among the tokens of all rows, of those after which logits are wanted."""
    wanted: list[int] = []
    end = 0
    for r in rows:
        first, end = end, end + len(r.tokens)
        if r.keep is Keep.LAST:
            wanted.append(end - 1)
        elif r.keep is Keep.ALL:
            wanted.extend(range(first, end))
    return wanted


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
        embed_scale=spec.scales.embedding,
        residual_scale=spec.scales.residual,
        value_dim=spec.latent.rank if spec.latent else 0,
        nope=spec.latent.nope if spec.latent else 0,
        q_rank=spec.latent.q_rank if spec.latent else 0,
        head_out=spec.latent.value if spec.latent else 0,
        ffn=max((layer.ffn for layer in layers), default=0),
        n_experts=max((m.n_experts for m in mixtures), default=0),
        top_k=max((m.top_k for m in mixtures), default=0),
        expert_ffn=max((max(m.expert_ffn, m.shared_ffn) for m in mixtures), default=0),
    )
