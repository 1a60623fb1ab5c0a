"""What of a model lies in memory on this device: everything, or a mixture's experts only as far as there is room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm.answers import HELD_TOKENS, PREFILL_BATCH
from swarm.engine.expert_folder import experts_by_layer, shape_of
from swarm.errors import OutOfMemory
from swarm.models.header import TensorEntry
from swarm.models.sizes import (
    MIN_DEFAULT_CONTEXT,
    context_of,
    fitting_context,
    kv_bytes_per_token,
    model_sizes,
    needed_bytes,
)
from swarm.models.spec import LayerSpec, ModelSpec, tensors_needed
from swarm.parts import all_parts
from swarm.units import size_text

# Of what an expert cache leaves, a conversation may take this share where nobody says how long it is to be: a longer
# context costs experts in memory.
DEFAULT_KV_SHARE = 0.125
HELD_SHARE = 0.125  # and so much of what is left, at most, the hidden states of a long prompt
F32_BYTES = 4
SPARE_BYTES = 64 * 1024 * 1024  # Python's own growth; page cache of the embedding and of what is read in passing


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of a model as it will lie in memory. With `n_slots` 0 all of it does; else so many of `n_experts`."""

    context: int
    total_bytes: int  # of all weights
    fixed_bytes: int  # of those that are not routed experts
    kv_bytes: int
    buffer_bytes: int
    slot_bytes: int = 0
    n_slots: int = 0
    n_experts: int = 0
    min_slots: int = 0
    held_tokens: int = 0  # of a prompt, whose hidden states may be in memory at once

    @property
    def min_bytes(self) -> int:
        """The least memory with which it runs."""
        return self.fixed_bytes + self.kv_bytes + self.buffer_bytes + self.min_slots * self.slot_bytes + SPARE_BYTES

    @property
    def resident_share(self) -> float:
        """The share of the experts that have a place in memory."""
        return self.n_slots / self.n_experts if self.n_slots else 1.0


def memory_plan(
    spec: ModelSpec, tensors: Mapping[str, TensorEntry], *, wanted_context: int, kv: str, free_bytes: int
) -> MemoryPlan:
    """How a model uses `free_bytes`; raise OutOfMemory when it cannot run in them, also not from disk.

    wanted_context: tokens, or 0 for what fits.
    """
    total, kv_token = model_sizes(spec, tensors).total, kv_bytes_per_token(spec, kv.upper())
    buffers = buffer_bytes(spec)
    everything = total + min(context_of(spec, wanted_context), MIN_DEFAULT_CONTEXT) * kv_token
    is_mixture = any(layer.moe for layer in spec.layers)
    if not is_mixture or everything + buffers + SPARE_BYTES <= free_bytes:
        context = fitting_context(spec, wanted_context, kv_token, free_bytes - total)
        return MemoryPlan(context, total, total, context * kv_token, buffers)
    return _from_disk(spec, tensors, wanted_context, kv_token, free_bytes)


def least_bytes(spec: ModelSpec, tensors: Mapping[str, TensorEntry], *, kv: str) -> int:
    """The least memory in which a mixture runs, with a short context and its experts on disk."""
    sizes = _Sizes.of(spec, tensors)
    context = min(context_of(spec, 0), MIN_DEFAULT_CONTEXT)
    return sizes.least(buffer_bytes(spec)) + context * kv_bytes_per_token(spec, kv.upper())


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Of a mixture."""

    total_bytes: int
    fixed_bytes: int
    slot_bytes: int
    n_experts: int
    min_slots: int

    @classmethod
    def of(cls, spec: ModelSpec, tensors: Mapping[str, TensorEntry]) -> _Sizes:
        layers = experts_by_layer(tensors_needed(spec, all_parts(spec.n_layers)))
        shapes = [shape_of(needed, tensors) for needed in layers.values()]
        stored = sum(needed_bytes(need, tensors) for needed in layers.values() for need in needed)
        sizes = model_sizes(spec, tensors)
        mapped = 0 if spec.tied_lm_head else sizes.embed  # of which a token needs a row
        return cls(
            sizes.total,
            sizes.total - stored - mapped,
            max(shape.expert_bytes for shape in shapes),
            sum(shape.n_experts for shape in shapes),
            2 * max(layer.moe.top_k for layer in spec.layers if layer.moe),
        )

    def least(self, buffers: int) -> int:
        """Without any conversation."""
        return self.fixed_bytes + buffers + SPARE_BYTES + self.min_slots * self.slot_bytes


def _from_disk(
    spec: ModelSpec, tensors: Mapping[str, TensorEntry], wanted_context: int, kv_token: int, free_bytes: int
) -> MemoryPlan:
    sizes = _Sizes.of(spec, tensors)
    buffers = buffer_bytes(spec, min(wanted_context or PREFILL_BATCH, PREFILL_BATCH))  # a step has no more tokens
    room = free_bytes - sizes.least(buffers)
    smallest = (wanted_context or min(context_of(spec, 0), MIN_DEFAULT_CONTEXT)) * kv_token
    if room < smallest:
        raise OutOfMemory(
            f"the weights need {size_text(sizes.total_bytes)} and {size_text(max(free_bytes, 0))} are free; with its "
            f"experts on disk the model runs, slowly, from {size_text(free_bytes - room + smallest)} on: close other "
            "programs, or join more devices"
        )
    share = 1.0 if wanted_context else DEFAULT_KV_SHARE
    context = fitting_context(spec, wanted_context, kv_token, max(int(room * share), smallest))
    room -= context * kv_token
    held_tokens = min(context, HELD_TOKENS, int(HELD_SHARE * room) // (F32_BYTES * spec.hidden))
    held_tokens = held_tokens if held_tokens > PREFILL_BATCH else 0
    room -= held_tokens * F32_BYTES * spec.hidden
    n_slots = min(sizes.min_slots + room // sizes.slot_bytes, sizes.n_experts)
    return MemoryPlan(
        context,
        sizes.total_bytes,
        sizes.fixed_bytes,
        context * kv_token,
        buffers,
        sizes.slot_bytes,
        n_slots,
        sizes.n_experts,
        sizes.min_slots,
        held_tokens,
    )


def buffer_bytes(spec: ModelSpec, n_tokens: int = PREFILL_BATCH) -> int:
    """What the engine's buffers take: activations of a batch, as floats and quantised, and its logits."""
    n_mid = max(layer.ffn or _mixture_width(layer) for layer in spec.layers)
    n_router = max((layer.moe.n_experts for layer in spec.layers if layer.moe), default=0)
    floats = 3 * spec.hidden + 2 * spec.q_width + 2 * spec.kv_width + n_router
    quantised = spec.hidden + spec.q_width + n_mid
    return n_tokens * (4 * floats + quantised * 5 // 4) + 4 * spec.vocab


def _mixture_width(layer: LayerSpec) -> int:
    return (layer.moe.top_k + 1) * layer.moe.expert_ffn if layer.moe is not None else 0
