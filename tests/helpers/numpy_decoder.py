"""A decoder in NumPy that runs any `ModelSpec` over a whole sequence: slow, short, the oracle of the compiled one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from swarm.kernels import reference as ops
from swarm.kernels.quants import dequantize
from swarm.kernels.reference_matmul import OWN_UNIT, group_cols, quantize, rounded_partial, step_of
from swarm.models import LayerSpec, ModelSpec, MoeSpec, Role, TensorRef, spec_from_gguf
from swarm.models.slices import ffn_step
from swarm.models.spec import LatentSpec
from swarm.store.gguf import GGUF, open_gguf

_EXPERT = (Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN)
_SHARED = (Role.SHARED_GATE, Role.SHARED_UP, Role.SHARED_DOWN)


def through_int8(x: np.ndarray) -> np.ndarray:
    """Activations as they are after rounding to int8 with one scale for each 32 columns."""
    quantised = quantize(x)
    values = quantised.q * quantised.scale[..., None]
    return values.reshape(len(x), -1)[:, : x.shape[1]].astype(np.float32)


class NumpyDecoder:
    """Logits of a GGUF model, all in float32 from dequantised weights.

    `rounded` rounds what the engine rounds: keys and values to half floats, what meets quantised weights to int8.
    `exact` sums attention output and down projections as the engine does, by groups of columns on a grid; the partial
    sums are only nearly the engine's, so now and then one of them is rounded to the other side.
    """

    def __init__(self, model: GGUF, rounded: bool = False, exact: bool = False) -> None:
        self.model, self.rounded, self.exact = model, rounded, exact
        self.spec: ModelSpec = spec_from_gguf(model.metadata, model.tensors)
        self.chosen: list[np.ndarray] = []  # (tokens, top_k) experts of each mixture, in the order they ran
        self._values: dict[str, np.ndarray] = {}

    @classmethod
    def open(cls, path: Path | str, rounded: bool = False, exact: bool = False) -> NumpyDecoder:
        return cls(open_gguf(path), rounded, exact)

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits (tokens, vocab) of every position of one fresh sequence."""
        output = self.spec.tensors[Role.LM_HEAD]
        x = self.hidden(ids) * np.float32(self.spec.scales.logits)
        return ops.matmul(self._seen_by(output)(x), self._rows(output))

    def hidden(self, ids: list[int]) -> np.ndarray:
        """Hidden states (tokens, hidden) behind the last norm."""
        spec = self.spec
        residual = np.float32(spec.scales.residual)
        x = self._outside(Role.EMBED)[np.asarray(ids)] * np.float32(spec.scales.embedding)
        cos, sin = self._rope_table(len(ids))
        for layer in spec.layers:
            x = x + self._attention(layer, x, cos, sin) * residual
            x = x + self._ffn(layer, x) * residual
        return ops.rmsnorm(x, self._outside(Role.OUTPUT_NORM), spec.norm_eps)

    def _attention(self, layer: LayerSpec, x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
        spec = self.spec
        a = ops.rmsnorm(x, self._get(layer, Role.ATTN_NORM), spec.norm_eps)
        if spec.latent:
            o = self._latent_heads(layer, spec.latent, a, cos, sin)
            return self._product(layer, Role.O, o, w=self._get(layer, Role.O), unit=o.shape[1] // spec.n_heads, x=x)
        q = self._project(layer, a, Role.Q, Role.Q_BIAS).reshape(len(x), spec.n_heads, spec.head_dim)
        k = self._project(layer, a, Role.K, Role.K_BIAS).reshape(len(x), spec.n_kv_heads, spec.head_dim)
        v = self._project(layer, a, Role.V, Role.V_BIAS).reshape(len(x), spec.n_kv_heads, spec.head_dim)
        if spec.qk_norm:
            q = ops.rmsnorm(q, self._get(layer, Role.Q_NORM), spec.norm_eps)
            k = ops.rmsnorm(k, self._get(layer, Role.K_NORM), spec.norm_eps)
        if layer.rotated:
            rope = ops.rope_half if spec.rope.style == "half" else ops.rope_pair
            q, k = rope(q, cos, sin), rope(k, cos, sin)
        if spec.temper:
            q = q * ops.temper(np.arange(len(x)), spec.temper.scale, spec.temper.step)[:, None, None]
        sinks = self._get(layer, Role.SINKS) if Role.SINKS in layer.tensors else None
        o = ops.attention(q, self._kept(k), self._kept(v), spec.attention_scale, window=layer.window, sinks=sinks)
        o = self._seen_by(layer.tensors[Role.O])(o)
        y = self._product(layer, Role.O, o, w=self._get(layer, Role.O), unit=spec.head_dim, x=x)
        if Role.O_BIAS in layer.tensors:
            y = y + self._get(layer, Role.O_BIAS)
        return self._after(layer, y, Role.ATTN_POST_NORM)

    def _latent_heads(
        self, layer: LayerSpec, latent: LatentSpec, a: np.ndarray, cos: np.ndarray, sin: np.ndarray
    ) -> np.ndarray:
        """What heads give, as the output projection sees it."""
        spec, heads = self.spec, self.spec.n_heads
        low = a
        if latent.q_rank:
            low = ops.rmsnorm(self._through(layer, Role.Q_A, a), self._get(layer, Role.Q_A_NORM), spec.norm_eps)
        q = self._through(layer, Role.Q, low).reshape(len(a), heads, -1) * np.float32(spec.attention_scale)
        kept = self._through(layer, Role.KV_A, a)
        values = ops.rmsnorm(kept[:, : latent.rank], self._get(layer, Role.KV_A_NORM), spec.norm_eps)
        k = np.concatenate([values, ops.rope_pair(kept[:, None, latent.rank :], cos, sin)[:, 0]], axis=1)
        k = self._kept(k)[:, None]
        nope = q[..., : latent.nope]
        absorbed = [self._through(layer, Role.K_B, nope[:, h], h) for h in range(heads)]
        q = np.concatenate([np.stack(absorbed, 1), ops.rope_pair(q[..., latent.nope :], cos, sin)], axis=2)
        o = ops.attention(q, k, k[..., : latent.rank], 1.0).reshape(len(a), heads, -1)
        o = np.concatenate([self._through(layer, Role.V_B, o[:, h], h) for h in range(heads)], axis=1)
        return self._seen_by(layer.tensors[Role.O])(o)

    def _through(self, layer: LayerSpec, role: Role, x: np.ndarray, head: int | None = None) -> np.ndarray:
        """A product without a bias: with a matrix, or with that of a head."""
        weights = self._get(layer, role)
        return ops.matmul(self._seen_by(layer.tensors[role])(x), weights if head is None else weights[head])

    def _ffn(self, layer: LayerSpec, x: np.ndarray) -> np.ndarray:
        b = ops.rmsnorm(x, self._get(layer, Role.FFN_NORM), self.spec.norm_eps)
        if layer.moe is None:
            y = self._dense(layer, b, (Role.GATE, Role.UP, Role.DOWN), x)
        else:
            y = self._mixture(layer, layer.moe, b, x)
        return self._after(layer, y, Role.FFN_POST_NORM)

    def _mixture(self, layer: LayerSpec, moe: MoeSpec, b: np.ndarray, x: np.ndarray) -> np.ndarray:
        logit_bias = self._get(layer, Role.ROUTER_LOGIT_BIAS) if Role.ROUTER_LOGIT_BIAS in layer.tensors else None
        chosen, weights = ops.router(
            ops.matmul(b, self._get(layer, Role.ROUTER), logit_bias),
            moe.top_k,
            gating=moe.gating,
            normalise=moe.normalise,
            scale=moe.scale,
            bias=self._get(layer, Role.ROUTER_BIAS) if moe.correction_bias else None,
            n_group=moe.n_group,
            top_group=moe.top_group,
        )
        self.chosen.append(chosen)
        y = np.zeros_like(b)
        for expert in np.unique(chosen):
            t, place = np.nonzero(chosen == expert)
            w = weights[t, place][:, None]
            y[t] += self._expert(layer, expert, b[t], x[t], share=w)
        return y + self._dense(layer, b, _SHARED, x) if moe.shared_ffn else y

    def _expert(self, layer: LayerSpec, expert: int, b: np.ndarray, x: np.ndarray, *, share: np.ndarray) -> np.ndarray:
        """`share` (tokens, 1) of an expert, with its biases where it has some."""
        seen = self._seen_by(layer.tensors[Role.EXPERT_DOWN])
        gate, up, down = (self._get(layer, role)[expert] for role in _EXPERT)
        swiglu = layer.moe.swiglu if layer.moe else None
        if swiglu is None:
            middle = ops.silu_mul(ops.matmul(seen(b), gate), ops.matmul(seen(b), up))
        else:
            gate_bias, up_bias = (self._get(layer, r)[expert] for r in (Role.EXPERT_GATE_BIAS, Role.EXPERT_UP_BIAS))
            g, u = ops.matmul(seen(b), gate, gate_bias), ops.matmul(seen(b), up, up_bias)
            middle = ops.swiglu(g, u, swiglu.alpha, swiglu.limit)
        step = ffn_step(self.spec)
        y = self._product(layer, Role.EXPERT_DOWN, seen(middle), w=down, unit=step, x=x, share=share)
        return y if swiglu is None else y + self._get(layer, Role.EXPERT_DOWN_BIAS)[expert] * share

    def _dense(self, layer: LayerSpec, b: np.ndarray, roles: tuple[Role, Role, Role], x: np.ndarray) -> np.ndarray:
        gate, up, down = (self._get(layer, role) for role in roles)
        seen = self._seen_by(layer.tensors[roles[2]])
        middle = seen(ops.silu_mul(ops.matmul(seen(b), gate), ops.matmul(seen(b), up)))
        return self._product(layer, roles[2], middle, w=down, unit=ffn_step(self.spec), x=x)

    def _product(
        self,
        layer: LayerSpec,
        role: Role,
        a: np.ndarray,
        *,
        w: np.ndarray,
        unit: int,
        x: np.ndarray,
        share: np.ndarray | None = None,
    ) -> np.ndarray:
        """`share` of a @ w.T, which a half that sees x (tokens, hidden) leaves; columns may be cut at each `unit`."""
        weight = np.ones((len(a), 1), np.float32) if share is None else share
        if not self.exact:
            return np.asarray(ops.matmul(a, w) * weight, np.float32)
        columns = group_cols(self.model.tensors[layer.tensors[role].name].quant.name, unit)
        own = self.spec.sandwich_norms
        step = np.float32(1) if own else step_of(x, self.spec.norm_eps)
        groups = [slice(k, k + columns) for k in range(0, a.shape[1], columns)]
        sums = sum(rounded_partial(ops.matmul(a[:, g], w[:, g]), weight / step, own=own) for g in groups)
        return np.asarray(sums * (OWN_UNIT if own else step), np.float32)

    def _after(self, layer: LayerSpec, y: np.ndarray, norm: Role) -> np.ndarray:
        return ops.rmsnorm(y, self._get(layer, norm), self.spec.norm_eps) if self.spec.sandwich_norms else y

    def _project(self, layer: LayerSpec, a: np.ndarray, weight: Role, bias: Role) -> np.ndarray:
        a = self._seen_by(layer.tensors[weight])(a)
        return ops.matmul(a, self._get(layer, weight), self._get(layer, bias) if self.spec.qkv_bias else None)

    def _seen_by(self, ref: TensorRef) -> Callable[[np.ndarray], np.ndarray]:
        """What a product with these weights sees of its input."""
        in_blocks = self.model.tensors[ref.name].quant.block_cols > 1
        return through_int8 if self.rounded and in_blocks else lambda x: x

    def _kept(self, x: np.ndarray) -> np.ndarray:
        """What a KV cache keeps of keys or values."""
        return x.astype(np.float16).astype(np.float32) if self.rounded else x

    def _rope_table(self, tokens: int) -> tuple[np.ndarray, np.ndarray]:
        rope, scaling = self.spec.rope, self.spec.rope.scaling
        frequencies = ops.rope_frequencies(rope.dims, rope.theta)
        factor = scaling.attention_factor if scaling else 1.0
        if Role.ROPE_FREQS in self.spec.tensors:
            frequencies = frequencies / self._outside(Role.ROPE_FREQS)
        if scaling and scaling.kind == "linear":
            frequencies = frequencies / np.float32(scaling.factor)
        if scaling and scaling.kind == "yarn":
            frequencies = frequencies / ops.yarn_divisors(
                rope.dims,
                rope.theta,
                factor=scaling.factor,
                original_context=scaling.original_context,
                beta_fast=scaling.beta_fast,
                beta_slow=scaling.beta_slow,
                whole_pairs=scaling.whole_pairs,
            )
        return ops.rope_table(frequencies, np.arange(tokens), factor)

    def _outside(self, role: Role) -> np.ndarray:
        return self._rows(self.spec.tensors[role])

    def _get(self, layer: LayerSpec, role: Role) -> np.ndarray:
        return self._rows(layer.tensors[role])

    def _rows(self, ref: TensorRef) -> np.ndarray:
        if ref.name not in self._values:
            info = self.model.tensors[ref.name]
            self._values[ref.name] = dequantize(info.quant, self.model.raw(ref.name)).reshape(info.shape)
        values = self._values[ref.name]
        rows = np.concatenate([np.arange(piece.start, piece.stop) for piece in ref.rows])
        return values[rows] if values.ndim == 1 else values[..., rows, ref.columns.start : ref.columns.stop]
