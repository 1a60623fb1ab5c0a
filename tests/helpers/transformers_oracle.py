"""The same small checkpoints in transformers (float32, eager): what their logits should be."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tests.helpers.tiny import ORIGINAL_CONTEXT, OUTSIDE, Tiny, TinyMoe, Weights

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def transformers_logits(tiny: Tiny, weights: Weights, ids: list[int]) -> np.ndarray:
    """Logits (tokens, vocab) of every position of one fresh sequence."""
    import torch

    torch.set_num_threads(1)  # small matrices: more threads only wait for each other
    model = build_model(tiny, weights)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def build_model(tiny: Tiny, weights: Weights) -> Any:
    """The transformers model of the family with these weights; every parameter of it must be given."""
    import torch
    import transformers

    config_class, model_class = _CLASSES[tiny.arch]
    config = getattr(transformers, config_class)(**_config(tiny))
    model = getattr(transformers, model_class)._from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )
    state = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in _state(tiny, weights).items()}
    model = model.float().eval()
    model.load_state_dict(state, strict=True)
    return model


_CLASSES = {
    "chatglm": ("GlmConfig", "GlmForCausalLM"),
    "glm4": ("Glm4Config", "Glm4ForCausalLM"),
    "glm4moe": ("Glm4MoeConfig", "Glm4MoeForCausalLM"),
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
    "qwen3moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
    "smollm3": ("SmolLM3Config", "SmolLM3ForCausalLM"),
}


def _config(tiny: Tiny) -> dict[str, Any]:
    config: dict[str, Any] = {
        "vocab_size": tiny.vocab,
        "hidden_size": tiny.hidden,
        "num_hidden_layers": tiny.n_layers,
        "num_attention_heads": tiny.n_heads,
        "num_key_value_heads": tiny.n_kv_heads,
        "head_dim": tiny.head_dim,
        "intermediate_size": tiny.ffn,
        "rms_norm_eps": tiny.eps,
        "attention_bias": tiny.bias,
        "max_position_embeddings": tiny.context,
        "tie_word_embeddings": tiny.tied,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "rope_parameters": _rope_parameters(tiny),
    }
    if tiny.moe:
        config |= _moe_config(tiny, tiny.moe)
    return config


def _rope_parameters(tiny: Tiny) -> dict[str, Any]:
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": tiny.theta,
        "partial_rotary_factor": tiny.rope_dims / tiny.head_dim,
    }
    if tiny.llama3_factor:
        rope |= {"rope_type": "llama3", "factor": tiny.llama3_factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if tiny.yarn_factor:
        rope |= {"rope_type": "yarn", "factor": tiny.yarn_factor}
    if tiny.yarn_magnitude:
        rope["attention_factor"] = tiny.yarn_magnitude
    if tiny.linear_factor:
        rope |= {"rope_type": "linear", "factor": tiny.linear_factor}
    if tiny.llama3_factor or tiny.yarn_factor:
        rope["original_max_position_embeddings"] = ORIGINAL_CONTEXT
    return rope


def _moe_config(tiny: Tiny, moe: TinyMoe) -> dict[str, Any]:
    common = {
        "moe_intermediate_size": moe.ffn,
        "num_experts_per_tok": moe.top_k,
        "norm_topk_prob": True,
    }
    if tiny.arch == "qwen3moe":
        return {**common, "num_experts": moe.n_experts, "decoder_sparse_step": 1, "mlp_only_layers": []}
    return {
        **common,
        "n_routed_experts": moe.n_experts,
        "n_shared_experts": moe.shared,
        "first_k_dense_replace": moe.dense_layers,
        "n_group": moe.n_group,
        "topk_group": moe.top_group,
        "routed_scaling_factor": moe.scale,
        "use_qk_norm": tiny.qk_norm,
    }


def _state(tiny: Tiny, weights: Weights) -> dict[str, np.ndarray]:
    state: dict[str, np.ndarray] = {}
    for layer in range(OUTSIDE, tiny.n_layers):
        roles = {role: values for (at, role), values in weights.items() if at == layer}
        prefix = "" if layer == OUTSIDE else f"model.layers.{layer}."
        state |= {prefix + name: values for name, values in _fused(tiny, roles).items()}
    if tiny.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def _fused(tiny: Tiny, roles: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    if tiny.arch in {"chatglm", "glm4"}:
        _fuse(found, roles, "mlp.gate_up_proj.weight", ("gate", "up"))
    _fuse(found, roles, "mlp.experts.gate_up_proj", ("expert_gate", "expert_up"))
    return found | {_NAMES[role]: values for role, values in roles.items()}


def _fuse(found: dict[str, np.ndarray], roles: dict[str, np.ndarray], name: str, parts: tuple[str, str]) -> None:
    if parts[0] in roles:
        found[name] = np.concatenate([roles.pop(part) for part in parts], axis=-2)


_NAMES = {
    "embed": "model.embed_tokens.weight",
    "output_norm": "model.norm.weight",
    "output": "lm_head.weight",
    "attn_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "o": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "attn_post_norm": "post_self_attn_layernorm.weight",
    "ffn_post_norm": "post_mlp_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "router": "mlp.gate.weight",
    "router_bias": "mlp.gate.e_score_correction_bias",
    "expert_down": "mlp.experts.down_proj",
    "shared_gate": "mlp.shared_experts.gate_proj.weight",
    "shared_up": "mlp.shared_experts.up_proj.weight",
    "shared_down": "mlp.shared_experts.down_proj.weight",
}
