"""Published config.json files of later families: see `test_decoder_configs`.

The keys that shape the network, as the files on the hub write them, and the number of parameters.
"""

LATER = {
    "gpt-neo-125m": (
        {"model_type": "gpt_neo", "hidden_size": 768, "num_layers": 12, "num_heads": 12}
        | {"attention_layers": ["global", "local"] * 6, "intermediate_size": None}
        | {"attention_types": [[["global", "local"], 6]], "window_size": 256}
        | {"activation_function": "gelu_new", "max_position_embeddings": 2048}
        | {"vocab_size": 50257, "layer_norm_epsilon": 1e-5, "resid_dropout": 0},
        125_198_592,
    ),
    "falcon-7b": (
        {"model_type": "falcon", "alibi": False, "bias": False, "hidden_size": 4544}
        | {"apply_residual_connection_post_layernorm": False, "layer_norm_epsilon": 1e-5}
        | {"multi_query": True, "new_decoder_architecture": False, "parallel_attn": True}
        | {"num_attention_heads": 71, "num_hidden_layers": 32, "vocab_size": 65024},
        6_921_720_704,
    ),
    "falcon-40b": (
        {"model_type": "falcon", "alibi": False, "bias": False, "hidden_size": 8192}
        | {"multi_query": True, "new_decoder_architecture": True, "parallel_attn": True}
        | {"num_attention_heads": 128, "num_kv_heads": 8, "num_hidden_layers": 60}
        | {"vocab_size": 65024},
        41_303_293_952,
    ),
    "falcon-rw-1b": (
        {"model_type": "falcon", "alibi": True, "bias": True, "hidden_size": 2048}
        | {"multi_query": False, "new_decoder_architecture": False, "parallel_attn": False}
        | {"num_attention_heads": 32, "num_hidden_layers": 24, "vocab_size": 50304},
        1_311_625_216,
    ),
    "mpt-7b": (
        {"model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32}
        | {"expansion_ratio": 4, "max_seq_len": 2048, "vocab_size": 50432, "no_bias": True}
        | {"norm_type": "low_precision_layernorm", "learned_pos_emb": True, "verbose": 0}
        | {"logit_scale": None, "init_device": "cpu", "init_config": {"name": "kaiming_normal_"}}
        | {
            "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch"}
            | {"attn_pdrop": 0, "attn_type": "multihead_attention", "clip_qkv": None}
            | {"attn_uses_sequence_id": False, "prefix_lm": False, "qk_ln": False}
            | {"softmax_scale": None}
        },
        6_649_286_656,
    ),
    "phi-2": (
        {"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240}
        | {"num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32}
        | {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.4}
        | {"max_position_embeddings": 2048, "qk_layernorm": False, "rope_theta": 10000.0}
        | {"rope_scaling": None, "tie_word_embeddings": False, "vocab_size": 51200},
        2_779_683_840,
    ),
    "openai-gpt": (
        {"model_type": "openai-gpt", "afn": "gelu", "n_ctx": 512, "n_embd": 768, "n_head": 12}
        | {"n_layer": 12, "n_positions": 512, "n_special": 0, "vocab_size": 40478}
        | {"predict_special_tokens": True, "summary_type": "cls_index"},
        116_534_784,
    ),
    "starcoderbase-1b": (
        {"model_type": "gpt_bigcode", "activation_function": "gelu_pytorch_tanh", "n_embd": 2048}
        | {"multi_query": True, "n_head": 16, "n_inner": 8192, "n_layer": 24, "n_positions": 8192}
        | {"attention_softmax_in_fp32": True, "scale_attention_softmax_in_fp32": True}
        | {"inference_runner": 0, "vocab_size": 49152, "validate_runner_input": True},
        1_137_207_296,
    ),
    "ctrl": (
        {"model_type": "ctrl", "dff": 8192, "n_embd": 1280, "n_head": 16, "n_layer": 48}
        | {
            "from_tf": False,
            "n_ctx": 512,
            "n_positions": 50000,
            "layer_norm_epsilon": 1e-6,
            "vocab_size": 246534,
        },
        1_637_964_550,
    ),
    "stablelm-2-1.6b": (
        {"model_type": "stablelm", "hidden_size": 2048, "intermediate_size": 5632}
        | {"num_attention_heads": 32, "num_hidden_layers": 24, "num_key_value_heads": 32}
        | {"hidden_act": "silu", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25}
        | {"use_qkv_bias": True, "rope_theta": 10000, "vocab_size": 100352},
        1_644_515_328,
    ),
    "olmo-1b": (
        {"model_type": "olmo", "hidden_size": 2048, "intermediate_size": 8192}
        | {"num_attention_heads": 16, "num_hidden_layers": 16, "num_key_value_heads": 16}
        | {"clip_qkv": None, "tie_word_embeddings": True, "vocab_size": 50304},
        1_176_764_416,
    ),
    "olmo-2-7b": (
        {"model_type": "olmo2", "hidden_size": 4096, "intermediate_size": 11008}
        | {"num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32}
        | {"rms_norm_eps": 1e-6, "rope_theta": 500000, "vocab_size": 100352},
        7_298_617_344,
    ),
    "granite-3.1-2b": (
        {"model_type": "granite", "hidden_size": 2048, "intermediate_size": 8192}
        | {"num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8}
        | {"attention_multiplier": 0.015625, "embedding_multiplier": 12.0}
        | {"logits_scaling": 8.0, "residual_multiplier": 0.22, "rms_norm_eps": 1e-5}
        | {"tie_word_embeddings": True, "vocab_size": 49155},
        2_533_531_648,
    ),
    "starcoder2-3b": (
        {"model_type": "starcoder2", "hidden_size": 3072, "intermediate_size": 12288}
        | {"num_attention_heads": 24, "num_hidden_layers": 30, "num_key_value_heads": 2}
        | {"hidden_act": "gelu_pytorch_tanh", "mlp_type": "default", "norm_type": "layer_norm"}
        | {"norm_epsilon": 1e-5, "sliding_window": 4096, "use_bias": True, "vocab_size": 49152},
        3_030_371_328,
    ),
    "smollm3-3b": (
        {"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008}
        | {"num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4}
        | {"layer_types": ["full_attention"] * 36, "max_window_layers": 28, "pretraining_tp": 2}
        | {"no_rope_layers": [1, 1, 1, 0] * 9, "rope_theta": 5000000.0, "vocab_size": 128256},
        3_075_098_624,
    ),
    "command-r": (
        {"model_type": "cohere", "hidden_size": 8192, "intermediate_size": 22528}
        | {"num_attention_heads": 64, "num_hidden_layers": 40, "num_key_value_heads": 64}
        | {"layer_norm_eps": 1e-5, "logit_scale": 0.0625, "rope_theta": 8000000.0}
        | {"use_qk_norm": False, "vocab_size": 256000},
        34_980_831_232,
    ),
}
