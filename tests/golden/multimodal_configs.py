"""The tiny models of images and text that `make_multimodal.py` makes: their configurations."""

VOCABULARY, IMAGE = 61, 60
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 2,
    "image_size": 15,
    "patch_size": 5,
    "layer_norm_eps": 1e-3,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 80,
    "rms_norm_eps": 1e-3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {
    "model_type": "opt",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 80,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
T5 = {
    "model_type": "t5",
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 28,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
GEMMA = LLAMA | {"model_type": "gemma", "head_dim": 10, "hidden_act": "gelu_pytorch_tanh"}
QFORMER = {
    "vocab_size": 50,
    "hidden_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 26,
    "max_position_embeddings": 16,
    "layer_norm_eps": 1e-3,
    "cross_attention_frequency": 2,
}
PERCEIVER = {
    "use_resampler": True,
    "resampler_n_latents": 6,
    "resampler_depth": 3,
    "resampler_n_heads": 2,
    "resampler_head_dim": 10,
    "qk_layer_norms_perceiver": True,
}
BLIP = {"num_query_tokens": 5, "image_token_index": IMAGE, "qformer_config": QFORMER}
UNTIED = {"tie_word_embeddings": False}  # as published, against version 5's default
EVA = VISION | {"num_hidden_layers": 2}

# Name of the folder -> (transformers' names, the configuration, tokens of an image).
MODELS = {
    "llava": (
        "Llava",
        {
            "vision_config": VISION | {"model_type": "clip_vision_model", "num_hidden_layers": 4},
            "text_config": LLAMA,
            "image_token_index": IMAGE,
            "image_seq_length": 9,
        },
        9,
    ),
    "blip2_opt": ("Blip2", BLIP | {"vision_config": EVA, "text_config": OPT}, 5),
    "blip2_t5": ("Blip2", BLIP | UNTIED | {"vision_config": EVA, "text_config": T5}, 5),
    "instructblip_vicuna": ("InstructBlip", BLIP | {"vision_config": EVA, "text_config": LLAMA}, 5),
    "instructblip_t5": (
        "InstructBlip",
        BLIP | UNTIED | {"vision_config": EVA, "text_config": T5},
        5,
    ),
    "paligemma": (
        "PaliGemma",
        {
            "vision_config": VISION
            | {"model_type": "siglip_vision_model", "num_hidden_layers": 2}
            | {"vision_use_head": False, "projection_dim": 32},
            "text_config": GEMMA,
            "image_token_index": IMAGE,
            "projection_dim": 32,
        },
        9,
    ),
    "idefics": (
        "Idefics",
        {x: y for x, y in LLAMA.items() if x not in ("model_type", "num_key_value_heads")}
        | {"vocab_size": IMAGE - 1, "additional_vocab_size": 2, "num_hidden_layers": 4}
        | {"cross_layer_interval": 2, "alpha_type": "vector", "qk_layer_norms": True}
        | {"use_resampler": True, "perceiver_config": PERCEIVER}
        | {
            "vision_config": {x: y for x, y in VISION.items() if x != "hidden_size"}
            | {"embed_dim": 24, "num_hidden_layers": 2}
        },
        1,
    ),
}
MODELS["smolvlm"] = (
    "SmolVLM",
    {
        "vision_config": VISION | {"num_hidden_layers": 2, "image_size": 20},
        "text_config": LLAMA,
        "image_token_id": IMAGE,
        "scale_factor": 2,
    },
    4,
)
for design, tower in (
    (
        "qwen2_vl",
        {"embed_dim": 24, "hidden_size": 32, "mlp_ratio": 2, "hidden_act": "quick_gelu"},
    ),
    (
        "qwen2_5_vl",
        {"hidden_size": 24, "intermediate_size": 40, "out_hidden_size": 32}
        | {"window_size": 16, "fullatt_block_indexes": [1]},
    ),
):
    MODELS[design] = (
        {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}[design],
        {
            "vision_config": tower | {"depth": 3, "num_heads": 2, "patch_size": 4},
            "text_config": LLAMA
            | {"model_type": f"{design}_text"}
            | {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
            | {"max_window_layers": 3},
            "image_token_id": IMAGE,
            "video_token_id": VOCABULARY + 1,
            "vision_start_token_id": 4,
            "vision_end_token_id": 5,
        },
        12,
    )
    text = MODELS[design][1]["text_config"]
    text["rope_parameters"] |= {"mrope_section": [2, 1, 1]}
MODELS["gemma3"] = (
    "Gemma3",
    {
        "vision_config": VISION
        | {"model_type": "siglip_vision_model", "num_hidden_layers": 2, "image_size": 30}
        | {"vision_use_head": False},
        # A window that is shorter than an image.
        "text_config": LLAMA
        | {"model_type": "gemma3_text", "head_dim": 10, "num_attention_heads": 4}
        | {"sliding_window": 5, "query_pre_attn_scalar": 14, "tie_word_embeddings": True}
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        "image_token_index": IMAGE,
        "mm_tokens_per_image": 9,
    },
    9,
)
MODELS["qwen3_vl"] = (
    "Qwen3VL",
    {
        "vision_config": {"hidden_size": 24, "intermediate_size": 40, "out_hidden_size": 32}
        | {"depth": 3, "num_heads": 2, "patch_size": 4, "num_position_embeddings": 25}
        | {"deepstack_visual_indexes": [0, 1]},
        "text_config": LLAMA
        | {"model_type": "qwen3_vl_text", "head_dim": 12, "tie_word_embeddings": False}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        "image_token_id": IMAGE,
        "video_token_id": VOCABULARY + 1,
        "vision_start_token_id": 4,
        "vision_end_token_id": 5,
    },
    12,
)
MODELS["qwen3_vl"][1]["text_config"]["rope_parameters"]["mrope_section"] = [3, 2, 1]
QWEN_SIZE = (24, 32)  # pixels; 6 x 8 patches, 3 x 4 tokens
CLASSES = {"Idefics": "IdeficsForVisionText2Text"}
