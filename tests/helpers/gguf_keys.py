"""The keys that may follow the architecture's name in a GGUF file, each with a value that matters.

They are those of the `gguf` package, those that llama.cpp reads besides, and names of the first specification.
"""

from __future__ import annotations

from typing import Any

_NUMBERS = """
activation_sparsity_scale adapters.count altup.active_idx altup.num_inputs
attention.clamp_kqv attention.decay_lora_rank attention.gate_lora_rank attention.group_norm_epsilon
attention.group_norm_groups attention.head_count attention.head_count_kv attention.iclr_lora_rank
attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k attention.key_length
attention.key_length_mla attention.key_length_swa attention.kv_lora_rank attention.layer_norm_epsilon
attention.layer_norm_rms_epsilon attention.max_alibi_bias attention.output_scale attention.q_lora_rank
attention.relative_buckets_count attention.scale attention.shared_kv_layers attention.sliding_window
attention.temperature_length attention.temperature_scale attention.value_length attention.value_length_mla
attention.value_length_swa attention.value_residual_mix_lora_rank attention.value_scale attn_logit_softcapping
block_count context_length convnext.block_count convnext.embedding_length decoder_block_count decoder_start_token_id
embedding_length embedding_length_out embedding_length_per_layer_input embedding_scale
expert_chunk_feed_forward_length expert_count expert_feed_forward_length expert_gating_func expert_group_count
expert_group_scale expert_group_used_count expert_shared_count expert_shared_feed_forward_length expert_used_count
expert_weights_scale experts_per_group features_length feed_forward_length final_logit_softcapping
full_attention_interval interleave_moe_layer_step kda.head_dim leading_dense_block_count logit_scale
moe_every_n_layers moe_latent_size n_deepstack_layers nextn_predict_layers num_loops pooling_type posnet.block_count
posnet.embedding_length rescale_every_n_layers residual_scale rope.dimension_count rope.dimension_count_swa
rope.freq_base rope.freq_base_swa rope.scale_linear rope.scaling.alpha rope.scaling.attn_factor rope.scaling.factor
rope.scaling.original_context_length rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast
rope.scaling.yarn_beta_slow rope.scaling.yarn_ext_factor rope.scaling.yarn_log_multiplier router_logit_softcapping
shortconv.l_cache ssm.conv_kernel ssm.group_count ssm.inner_size ssm.state_size ssm.time_step_rank
swiglu_clamp_exp swiglu_clamp_shexp time_decay_extra_dim time_mix_extra_dim token_shift_count vocab_size
wkv.head_size dense_2_feat_in dense_2_feat_out dense_3_feat_in dense_3_feat_out
"""

# 7 is the value of none of the small checkpoints.
KEYS: dict[str, Any] = dict.fromkeys(_NUMBERS.split(), 7) | {
    "attention.causal": False,
    "attention.sliding_window_pattern": [True, True, False],
    "classifier.output_labels": ["yes", "no"],
    "expert_weights_norm": False,
    "hidden_activation": "gelu",
    "rope.dimension_sections": [8, 4, 4, 0],
    "rope.scaling.finetuned": True,
    "rope.scaling.type": "longrope",
    "ssm.dt_b_c_rms": True,
    "swin_norm": True,
    "tensor_data_layout": "Meta AI original pth",
    "use_parallel_residual": True,
}
