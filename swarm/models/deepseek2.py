"""deepseek2: latent attention, as in GLM-4.7-Flash, DeepSeek-V2-Lite and Coder-V2-Lite, Kanana 2, Moonlight.

Traps: of keys only their latents are kept, so attention.key_length is that of a row in the cache, and the width of
heads is key_length_mla. Rotation is of adjacent pairs of the last columns of a head. Old files hold attn_kv_b whole and
lack key_length_mla. The gate is softmax unless a file says otherwise, but for files of January 2026 of GLM-4.7-Flash,
which say nothing and mean sigmoid. What yarn leaves out of cos and sin counts on the scale of attention; its multiplier
is stored times 0.1. Blocks that predict further tokens come after the layers.
"""

from __future__ import annotations

from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models import glm4moe, header, naming
from swarm.models.header import Gating, Header
from swarm.models.naming import Name
from swarm.models.spec import LatentSpec, LayerSpec, ModelSpec, MoeSpec, Role, RopeSpec

FLASH_BLOCKS, FLASH_VOCAB = (47, 48), 154880  # of GLM-4.7-Flash: its layers, without and with the block after them
LATENT_STEP = 64  # columns of a latent that the engine takes at a time
HEAD_STEP = 32
# What files say of experts also where no layer has any.
_OF_EXPERTS = (
    *("expert_count", "expert_used_count", "expert_feed_forward_length", "expert_shared_count", "expert_gating_func"),
    *("expert_weights_scale", "expert_weights_norm", "expert_group_count", "expert_group_used_count"),
)


def declare(h: Header) -> ModelSpec:
    """The spec of a deepseek2 file."""
    h.ignore("feed_forward_length")  # where no layer is dense
    n_layers = glm4moe.trunk_layers(h)
    require_parted(h)
    n_heads = heads(h)
    rope_dims = header.rope_dims(h, header.MAX_HEAD_DIM, default=64)
    latent, width = latent_spec(h, rope_dims)
    multiplier = header.yarn_log_multiplier(h) * 10
    scaling = header.rope_scaling(h, (multiplier or 1.0, multiplier))
    sharper = header.yarn_attention_factor(scaling.factor, multiplier) if scaling else 1.0
    dense = min(h.whole("leading_dense_block_count", 0, header.MAX_LAYERS, default=0), n_layers)
    spec = ModelSpec(
        family="deepseek2",
        n_layers=n_layers,
        hidden=header.hidden_size(h),
        vocab=header.vocab_size(h),
        context_length=header.context_length(h),
        n_heads=n_heads,
        n_kv_heads=1,
        head_dim=latent.rank + rope_dims,
        norm_eps=header.norm_eps(h),
        rope=RopeSpec(style="pair", dims=rope_dims, theta=header.rope_theta(h), scaling=scaling),
        attention_scale=header.attention_scale(h, width) * sharper**2,
        tied_lm_head=naming.is_tied(h),
        latent=latent,
        layers=header.dense_layers(h, dense) + moe_layers(h, dense, n_layers),
    )
    beside = glm4moe.mtp_blocks(h) | {str(block) for block in range(n_layers, header.block_count(h))}
    return naming.bind(h, spec, [names(h, spec, layer) for layer in range(n_layers)], beside)


def require_parted(h: Header) -> None:
    """UnsupportedModel for files of the time before keys and values were parted for latent attention."""
    if not h.given("attention.key_length_mla"):
        raise UnsupportedModel(
            "deepseek2.attention.key_length_mla is missing: the file was converted before May 2025; fetch a newer one"
        )


def heads(h: Header) -> int:
    """Query heads; what else a file says of heads must fit latent attention."""
    h.refuse("attention.sliding_window", "Swarm's deepseek2 has no sliding window attention")
    if not h.flag("attention.causal", default=True):
        raise UnsupportedModel("deepseek2.attention.causal is False: Swarm runs models that write, not that embed")
    h.whole("attention.head_count_kv", 1, 1, default=1)
    return h.whole("attention.head_count", 2, header.MAX_HEADS)


def latent_spec(h: Header, rope_dims: int) -> tuple[LatentSpec, int]:
    """The widths of latent attention, and that of a head's query as it would be without."""
    width = h.whole("attention.key_length_mla", 1, header.MAX_HEAD_DIM)
    rank = h.whole("attention.kv_lora_rank", 1, header.MAX_WIDTH)
    row = h.whole("attention.key_length", 1, header.MAX_WIDTH, default=rank + rope_dims)
    latent = LatentSpec(
        rank=rank,
        q_rank=h.whole("attention.q_lora_rank", 0, header.MAX_WIDTH, default=0),
        nope=width - rope_dims,
        value=h.whole("attention.value_length_mla", 1, header.MAX_HEAD_DIM),
    )
    h.whole("attention.value_length", rank, rank, default=rank)
    if row != rank + rope_dims or latent.nope <= 0:
        raise BadModelFile(f"deepseek2.attention.key_length is {row}: must be {rank} and the {rope_dims} rotated ones")
    if rank % LATENT_STEP or (latent.nope | latent.value | rope_dims) % HEAD_STEP or row > header.MAX_HEAD_DIM:
        raise UnsupportedModel(
            f"latents of {rank} columns, heads of {latent.nope}, {rope_dims} and {latent.value}: "
            f"Swarm runs multiples of {LATENT_STEP}, and of {HEAD_STEP}, up to {header.MAX_HEAD_DIM}"
        )
    return latent, width


def moe_layers(h: Header, first: int, end: int) -> tuple[LayerSpec, ...]:
    """Layers [first, end), with experts."""
    if first < end:
        return (LayerSpec(ffn=0, moe=mixture(h, first)),) * (end - first)
    h.ignore(*_OF_EXPERTS)
    return ()


def mixture(h: Header, first: int) -> MoeSpec:
    """The mixture of every layer from `first` on."""
    n_experts, top_k = header.experts(h)
    expert_ffn = h.whole("expert_feed_forward_length", 1, header.MAX_WIDTH)
    n_group, top_group = header.expert_groups(h, n_experts, top_k)
    if n_group > 1 and not h.has(f"blk.{first}.exp_probs_b.bias"):
        raise UnsupportedModel("deepseek2 with groups of experts and no correction: Swarm does not run DeepSeek-V2")
    return MoeSpec(
        n_experts=n_experts,
        top_k=top_k,
        expert_ffn=expert_ffn,
        shared_ffn=header.shared_width(h, expert_ffn),
        gating=header.gating(h, default=default_gating(h)),
        normalise=h.flag("expert_weights_norm", default=False),
        scale=header.expert_scale(h),
        n_group=n_group,
        top_group=top_group,
        correction_bias=h.has(f"blk.{first}.exp_probs_b.bias"),
    )


def default_gating(h: Header) -> Gating:
    """What a file means that does not say."""
    flash = header.block_count(h) in FLASH_BLOCKS and header.vocab_size(h) == FLASH_VOCAB
    return "sigmoid" if flash else "softmax"


def names(h: Header, spec: ModelSpec, layer: int) -> list[Name]:
    """Tensors of one layer."""
    query: tuple[tuple[str, Role], ...] = (("attn_q", Role.Q),)
    if spec.latent and spec.latent.q_rank:
        query = (("attn_q_a", Role.Q_A), ("attn_q_a_norm", Role.Q_A_NORM), ("attn_q_b", Role.Q))
    return [
        *naming.layer_names(
            layer,
            ("attn_norm", Role.ATTN_NORM),
            *query,
            ("attn_kv_a_mqa", Role.KV_A),
            ("attn_kv_a_norm", Role.KV_A_NORM),
            ("attn_k_b", Role.K_B),
            ("attn_v_b", Role.V_B),
            ("attn_output", Role.O),
            ("ffn_norm", Role.FFN_NORM),
        ),
        *glm4moe.ffn_names(h, layer, spec.layers[layer].moe),
    ]
