"""gpt-oss: mixtures with a bias everywhere, attention with sinks, and a window of attention in every other layer.

Traps: the norm before the experts is post_attention_norm. The router's bias is part of its scores, and weights are a
softmax over the chosen experts alone, which is the softmax over all divided by the sum of the chosen. The blend of yarn
begins and ends between pairs, as the checkpoint's configuration says and no key of the file does.
"""

from __future__ import annotations

from dataclasses import replace

from swarm.errors import UnsupportedModel
from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import LayerSpec, ModelSpec, MoeSpec, Role, RopeScaling, RopeSpec, Swiglu

SWIGLU = Swiglu(alpha=1.702, limit=7.0)  # which no key of the file says
SOFTMAX_OF_CHOSEN = 3  # a value of expert_gating_func


def declare(h: Header) -> ModelSpec:
    """The spec of a gpt-oss file."""
    sizes = header.sizes(h, windowed=True)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    window = h.whole("attention.sliding_window", 1, header.MAX_CONTEXT)
    h.refuse("attention.sliding_window_pattern", "Swarm runs gpt-oss with a window in every other layer")
    rope = RopeSpec(
        style="half",
        dims=header.rope_dims(h, head_dim, default=head_dim),
        theta=header.rope_theta(h),
        scaling=between_pairs(header.rope_scaling(h)),
    )
    header.refuse_other_windows(h, head_dim, rope.dims, rope.theta)
    moe = mixture(h)
    spec = ModelSpec(
        family="gpt-oss",
        **sizes,
        rope=rope,
        qkv_bias=True,
        tied_lm_head=naming.is_tied(h),
        layers=tuple(LayerSpec(0, moe, window=0 if layer % 2 else window) for layer in range(n_layers)),
    )
    return naming.bind(h, spec, [names(h, layer) for layer in range(n_layers)])


def between_pairs(scaling: RopeScaling | None) -> RopeScaling | None:
    """The same scaling with a blend that does not begin and end at whole pairs."""
    return scaling and replace(scaling, whole_pairs=False)


def mixture(h: Header) -> MoeSpec:
    """The mixture of every layer."""
    n_experts, top_k = header.experts(h)
    h.refuse("expert_shared_count", "Swarm's gpt-oss has no shared experts")
    h.ignore("feed_forward_length")  # of dense layers: there are none
    number = h.whole("expert_gating_func", 0, 1 << 16, default=0)
    if number not in (0, SOFTMAX_OF_CHOSEN):
        raise UnsupportedModel(f"gpt-oss.expert_gating_func is {number}: Swarm's gpt-oss runs {SOFTMAX_OF_CHOSEN}")
    n_group, top_group = header.expert_groups(h, n_experts, top_k)
    return MoeSpec(
        n_experts=n_experts,
        top_k=top_k,
        expert_ffn=h.whole("expert_feed_forward_length", 1, header.MAX_WIDTH),
        gating="softmax",
        normalise=True,
        scale=header.expert_scale(h),
        n_group=n_group,
        top_group=top_group,
        swiglu=SWIGLU,
    )


def names(h: Header, layer: int) -> list[Name]:
    """Tensors of one layer."""
    return [
        *naming.layer_names(layer, ("attn_norm", Role.ATTN_NORM)),
        *naming.qkv_names(h, layer, bias=True),
        *naming.layer_names(layer, ("attn_sinks", Role.SINKS), ("attn_output", Role.O)),
        *naming.bias_names(layer, ("attn_output", Role.O_BIAS)),
        *naming.layer_names(layer, ("post_attention_norm", Role.FFN_NORM), ("ffn_gate_inp", Role.ROUTER)),
        *naming.bias_names(layer, ("ffn_gate_inp", Role.ROUTER_LOGIT_BIAS)),
        *naming.expert_names(h, layer),
        *expert_biases(h, layer),
    ]


def expert_biases(h: Header, layer: int) -> list[Name]:
    """Biases of the routed experts, a row for each."""
    if h.has(f"blk.{layer}.ffn_gate_up_exps.weight"):
        raise UnsupportedModel("gpt-oss with gate and up of its experts in one tensor: Swarm runs files that part them")
    return naming.bias_names(
        layer,
        ("ffn_gate_exps", Role.EXPERT_GATE_BIAS),
        ("ffn_up_exps", Role.EXPERT_UP_BIAS),
        ("ffn_down_exps", Role.EXPERT_DOWN_BIAS),
    )
