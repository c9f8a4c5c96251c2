"""Rows of the table of models for those that read images and text: what `table.Row` is made of.

Hyperparameters are those of the published `config.json`, whose parts leave out what transformers'
defaults say. Parameters that no activation passes (`num_unused`) are those of a vision tower after
the layer that its connector reads.
"""

from typing import Any

Fields = dict[str, Any]

_VICUNA = {  # width, layers, heads, MLP
    "7b": (4096, 32, 32, 11_008),
    "13b": (5120, 40, 40, 13_824),
}


def _llama(size: str, vocab_size: int, max_length: int, eps: float) -> Fields:
    width, layers, heads, mlp = _VICUNA[size]
    return {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
        "max_position_embeddings": max_length,
        "rms_norm_eps": eps,
    }


def _opt(width: int, layers: int, heads: int) -> Fields:
    return {
        "model_type": "opt",
        "vocab_size": 50_304,
        "hidden_size": width,
        "word_embed_proj_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "ffn_dim": 4 * width,
    }


def _flan_t5(width: int, heads: int, mlp: int) -> Fields:
    return {
        "model_type": "t5",
        "vocab_size": 32_128,
        "d_model": width,
        "d_kv": 64,
        "d_ff": mlp,
        "num_layers": 24,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }


def _llava(size: str, num_parameters: int) -> Fields:
    config = {
        "model_type": "llava",
        "image_token_index": 32_000,
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
        },
        "text_config": _llama(size, 32_064, 4096, 1e-5),
    }
    block = 12 * 1024**2 + 13 * 1024
    return {
        "repository": f"llava-hf/llava-1.5-{size}-hf",
        "config": config,
        "num_parameters": num_parameters,
        "num_unused": block + 2 * 1024,  # the last block and the norm after it
    }


def _blip(repository: str, num_parameters: int, text: Fields, token: int, **qformer) -> Fields:
    """BLIP-2, or InstructBLIP where the Q-Former's vocabulary is given."""
    config = {
        "model_type": "instructblip" if qformer else "blip-2",
        "image_token_index": token,
        "num_query_tokens": 32,
        "vision_config": {},
        "qformer_config": qformer,
        "text_config": text,
    }
    return {
        "repository": f"Salesforce/{repository}",
        "config": config,
        "num_parameters": num_parameters,
    }


def _qwen(name: str, num_parameters: int, shape: tuple[int, ...], **vision) -> Fields:
    """Qwen2-VL and Qwen2.5-VL; `shape`: width, layers, heads, key-value heads, MLP, vocabulary."""
    width, layers, heads, kv_heads, mlp, vocabulary = shape
    tower = {"hidden_size": width} if name.startswith("Qwen2-") else {"out_hidden_size": width}
    config = {
        "model_type": "qwen2_vl" if name.startswith("Qwen2-") else "qwen2_5_vl",
        "vision_config": tower | vision,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": width < 3584,
    }
    return {
        "repository": f"Qwen/{name}-Instruct",
        "config": config,
        "num_parameters": num_parameters,
    }


def _gemma3(size: str, counts: tuple[int, int], shape: tuple[int, ...], **other) -> Fields:
    """Gemma 3; `counts`: all parameters, and those that texts do not pass.

    `shape`: width, layers, heads, key-value heads, MLP.
    """
    width, layers, heads, kv_heads, mlp = shape
    config = {
        "model_type": "gemma3",
        "image_token_index": 262_144,
        "mm_tokens_per_image": 256,
        "vision_config": _SO400M | {"image_size": 896},
        "text_config": {
            "model_type": "gemma3_text",
            "vocab_size": 262_208,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": mlp,
            "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        }
        | other,
    }
    return {
        "repository": f"google/gemma-3-{size}-it",
        "config": config,
        "num_parameters": counts[0],
        "num_unused": counts[1],
    }


def _qwen3(size: str, num_parameters: int, shape: tuple[int, ...], **vision) -> Fields:
    """Qwen3-VL; `shape`: width, layers, heads, MLP."""
    width, layers, heads, mlp = shape
    config = {
        "model_type": "qwen3_vl",
        "vision_config": vision | {"out_hidden_size": width},
        "text_config": {
            "model_type": "qwen3_vl_text",
            "vocab_size": 151_936,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": mlp,
            "max_position_embeddings": 262_144,
            "rms_norm_eps": 1e-6,
            "rope_theta": 5_000_000.0,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
        },
        "tie_word_embeddings": width < 4096,
    }
    return {
        "repository": f"Qwen/Qwen3-VL-{size}-Instruct",
        "config": config,
        "num_parameters": num_parameters,
    }


_SMALLER = {  # the tower of the two smaller ones
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
_QWEN25 = {"hidden_size": 1280, "intermediate_size": 3420}
_SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "vision_use_head": False,
}
_XL, _XXL = (2048, 32, 5120), (4096, 64, 10_240)
_INSTRUCT = {"vocab_size": 30_523}
ROWS: dict[str, Fields] = {
    # Of Oota et al. (2025).
    "instructblip-vicuna-7b": _blip(
        "instructblip-vicuna-7b",
        7_913_210_624,
        _llama("7b", 32_001, 2048, 1e-6),
        32_000,
        **_INSTRUCT,
    ),
    "instructblip-vicuna-13b": _blip(
        "instructblip-vicuna-13b",
        14_191_448_832,
        _llama("13b", 32_001, 2048, 1e-6),
        32_000,
        **_INSTRUCT,
    ),
    "instructblip-flan-t5-xl": _blip(
        "instructblip-flan-t5-xl", 4_022_969_088, _flan_t5(*_XL), 32_100, **_INSTRUCT
    ),
    "instructblip-flan-t5-xxl": _blip(
        "instructblip-flan-t5-xxl", 12_310_119_168, _flan_t5(*_XXL), 32_100, **_INSTRUCT
    ),
    "blip2-opt-2.7b": _blip("blip2-opt-2.7b", 3_744_761_856, _opt(2560, 32, 32), 50_265),
    "blip2-opt-6.7b": _blip("blip2-opt-6.7b", 7_752_869_376, _opt(4096, 32, 32), 50_265),
    "blip2-flan-t5-xl": _blip("blip2-flan-t5-xl", 3_942_446_592, _flan_t5(*_XL), 32_100),
    "blip2-flan-t5-xxl": _blip("blip2-flan-t5-xxl", 12_229_596_672, _flan_t5(*_XXL), 32_100),
    "llava-1.5-7b": _llava("7b", 7_063_427_072),
    "llava-1.5-13b": _llava("13b", 13_351_494_656),
    "qwen2-vl-2b": _qwen("Qwen2-VL-2B", 2_208_985_600, (1536, 28, 12, 2, 8960, 151_936)),
    "qwen2-vl-7b": _qwen("Qwen2-VL-7B", 8_291_375_616, (3584, 28, 28, 4, 18_944, 152_064)),
    "qwen2.5-vl-3b": _qwen(
        "Qwen2.5-VL-3B", 3_754_622_976, (2048, 36, 16, 2, 11_008, 151_936), **_QWEN25
    ),
    "qwen2.5-vl-7b": _qwen(
        "Qwen2.5-VL-7B", 8_292_166_656, (3584, 28, 28, 4, 18_944, 152_064), **_QWEN25
    ),
    "qwen3-vl-2b": _qwen3("2B", 2_127_532_032, (2048, 28, 16, 6144), **_SMALLER),
    "qwen3-vl-4b": _qwen3("4B", 4_437_815_808, (2560, 36, 32, 9728), **_SMALLER),
    "qwen3-vl-8b": _qwen3("8B", 8_767_123_696, (4096, 36, 32, 12_288)),
    "gemma-3-4b-it": _gemma3("4b", (4_300_079_472, 419_816_304), (2560, 34, 8, 4, 10_240)),
    "gemma-3-12b-it": _gemma3("12b", (12_187_325_040, 421_290_864), (3840, 48, 16, 8, 15_360)),
    "gemma-3-27b-it": _gemma3(
        "27b",
        (27_432_406_640, 423_060_336),
        (5376, 62, 32, 16, 21_504),
        head_dim=128,
        query_pre_attn_scalar=168,
    ),
    "paligemma-3b": {
        "repository": "google/paligemma-3b-pt-224",
        "config": {
            "model_type": "paligemma",
            "image_token_index": 257_152,
            "projection_dim": 2048,
            "vision_config": _SO400M,
            "text_config": {
                "model_type": "gemma",
                "vocab_size": 257_216,
                "hidden_size": 2048,
                "intermediate_size": 16_384,
                "num_hidden_layers": 18,
                "num_attention_heads": 8,
                "num_key_value_heads": 1,
            },
        },
        "num_parameters": 2_923_466_480,
    },
    "idefics-9b-instruct": {
        "repository": "HuggingFaceM4/idefics-9b-instruct",
        "config": {
            "model_type": "idefics",
            "additional_vocab_size": 2,
            "cross_layer_interval": 4,
            "qk_layer_norms": True,
            "use_resampler": True,
            "vision_config": {"embed_dim": 1280},
            "perceiver_config": {"use_resampler": True, "qk_layer_norms_perceiver": True},
        },
        "num_parameters": 8_929_679_632,
        "num_unused": 2 * 1280,  # the norm after the vision tower
    },
    "mplug-owl-7b": {
        "repository": "MAGAer13/mplug-owl-llama-7b",
        "config": {
            "model_type": "mplug-owl",
            "vision_config": {},
            "text_config": _llama("7b", 32_000, 2048, 1e-6),
        },
        "num_parameters": 7_146_692_608,
    },
}
