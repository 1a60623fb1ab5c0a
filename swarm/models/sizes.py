"""How many bytes a model's parts take in memory, and how many of them a token reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarm.errors import ConfigError, OutOfMemory
from swarm.kernels.quants import Quant, quant_by_name
from swarm.models.header import TensorEntry
from swarm.models.spec import EXPERT_ROLES, ModelSpec, MoeSpec, NeededTensor, tensors_needed
from swarm.parts import EMBED, LM_HEAD, Part
from swarm.units import size_text

DEFAULT_CONTEXT = 8192  # where nobody says, and the model can do more: a KV cache that any home device holds
MIN_DEFAULT_CONTEXT = 1024  # with less memory than that takes, loading the weights fails and says so


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Bytes in memory: as stored in the file, or, of types that Quant tells of, more.

    `layers` include their experts; `experts` is one expert of each layer (0: dense). `lm_head` includes the norm before
    it, and its rows also where they are the embedding's; `total` counts those once.
    """

    embed: int
    embed_row: int
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    lm_head: int
    total: int
    active_per_token: int


def needed_bytes(need: NeededTensor, tensors: Mapping[str, TensorEntry]) -> int:
    """Bytes in memory of one needed tensor, all its experts together."""
    return need.n_experts * need.rows * tensors[need.ref.name].quant.packed_row_bytes(need.cols)


def model_sizes(spec: ModelSpec, tensors: Mapping[str, TensorEntry]) -> ModelSizes:
    """The sizes of a model whose tensors were checked against `spec`."""
    embed = _sum(tensors_needed(spec, [EMBED]), tensors)
    lm_head = _sum(tensors_needed(spec, [LM_HEAD]), tensors)
    layers = tuple(_layer_bytes(spec, layer, tensors) for layer in range(spec.n_layers))
    experts = tuple(_expert_bytes(spec, layer, tensors) for layer in range(spec.n_layers))
    embed_row = embed // spec.vocab
    return ModelSizes(
        embed=embed,
        embed_row=embed_row,
        layers=layers,
        experts=experts,
        lm_head=lm_head,
        total=sum(layers) + lm_head + (0 if spec.tied_lm_head else embed),
        active_per_token=embed_row + lm_head + sum(map(_active, (b.moe for b in spec.layers), layers, experts)),
    )


def _sum(needs: Iterable[NeededTensor], tensors: Mapping[str, TensorEntry]) -> int:
    return sum(needed_bytes(need, tensors) for need in needs)


def _layer_needs(spec: ModelSpec, layer: int) -> list[NeededTensor]:
    needs = tensors_needed(spec, [Part(layer)])
    return [need for need in needs if need.layer == layer]


def _layer_bytes(spec: ModelSpec, layer: int, tensors: Mapping[str, TensorEntry]) -> int:
    return _sum(_layer_needs(spec, layer), tensors)


def _expert_bytes(spec: ModelSpec, layer: int, tensors: Mapping[str, TensorEntry]) -> int:
    routed = [need._replace(n_experts=1) for need in _layer_needs(spec, layer) if need.role in EXPERT_ROLES]
    return _sum(routed, tensors)


def _active(moe: MoeSpec | None, layer_bytes: int, expert_bytes: int) -> int:
    """Bytes of a layer that one token reads."""
    return layer_bytes if moe is None else layer_bytes - (moe.n_experts - moe.top_k) * expert_bytes


def kv_bytes_per_token(spec: ModelSpec, quant_name: str = "F16", n_layers: int | None = None) -> int:
    """Bytes of keys and values of one position, over `n_layers` layers (all when None).

    Raise ConfigError when a head is not whole blocks of that quant.
    """
    quant = quant_by_name(quant_name)
    blocks = _head_blocks(spec, quant)
    if not blocks:
        raise ConfigError(
            f"past tokens cannot be kept as {quant_name.lower()}: it needs heads of a multiple of {quant.block_cols}, "
            f"and this model has heads of {spec.head_dim}; keep them as f16"
        )
    layers = spec.n_layers if n_layers is None else n_layers
    kept = 1 if spec.latent else 2 * spec.n_kv_heads  # of latent attention a value is a part of its key
    return layers * kept * blocks * quant.block_bytes


def kv_kinds(spec: ModelSpec, kinds: Sequence[str]) -> list[str]:
    """Those of `kinds` in which past tokens of this model can be kept."""
    return [kind for kind in kinds if _head_blocks(spec, quant_by_name(kind.upper()))]


def _head_blocks(spec: ModelSpec, quant: Quant) -> int:
    """Blocks of a head; 0 when it is not whole ones."""
    blocks, rest = divmod(spec.head_dim, quant.block_cols)
    return 0 if rest else blocks


def context_of(spec: ModelSpec, wanted: int) -> int:
    """Tokens that a conversation may hold: the `wanted` ones, or (0) the default; ConfigError for more than it can."""
    if wanted > spec.context_length:
        raise ConfigError(f"context is {wanted}; this model was made for at most {spec.context_length} tokens")
    return wanted or min(spec.context_length, DEFAULT_CONTEXT)


def fitting_context(spec: ModelSpec, wanted: int, kv_token_bytes: int, room_bytes: int) -> int:
    """The context to use: the `wanted` one, or (0) one that the memory beside the weights can hold.

    Raise ConfigError for more than the model was made for, OutOfMemory for more than fits.
    """
    context = context_of(spec, wanted)
    fits = max(room_bytes, 0) // kv_token_bytes
    if wanted and fits < wanted:
        raise OutOfMemory(
            f"a context of {wanted} tokens needs {size_text(wanted * kv_token_bytes)} beside the weights; "
            f"{fits} tokens would fit: lower the context, or keep it as q8_0"
        )
    while not wanted and context > max(fits, MIN_DEFAULT_CONTEXT):
        context //= 2
    return context
