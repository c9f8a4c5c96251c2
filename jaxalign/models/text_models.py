"""Rows of the table of models for text families that came later: what `table.Row` is made of.

Hyperparameters are those of the published `config.json`. Parameters of encoders include their
pooler, which is not built (`num_unused`).
"""

from typing import Any

Fields = dict[str, Any]
Shape = tuple[int, int, int]  # width, layers, heads


def _sizes(width: int, layers: int, heads: int) -> Fields:
    return {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}


def _gpt_neo(size: str, num_parameters: int, shape: Shape) -> Fields:
    width, layers, heads = shape
    config = {
        "model_type": "gpt_neo",
        "vocab_size": 50_257,
        "hidden_size": width,
        "num_layers": layers,
        "num_heads": heads,
        "max_position_embeddings": 2048,
        "attention_types": [[["global", "local"], layers // 2]],
        "window_size": 256,
        "activation_function": "gelu_new",
    }
    return {
        "repository": f"EleutherAI/gpt-neo-{size}",
        "config": config,
        "num_parameters": num_parameters,
    }


def _falcon(name: str, num_parameters: int, shape: Shape, **other: Any) -> Fields:
    config = {"model_type": "falcon", "vocab_size": 65_024, **_sizes(*shape)} | other
    return {
        "repository": f"tiiuae/{name}",
        "config": config,
        "num_parameters": num_parameters,
    }


_FALCON_7B = (4544, 32, 71)
_FALCON_40B = {"new_decoder_architecture": True, "num_kv_heads": 8}
_FALCON_RW = {
    "vocab_size": 50_304,
    "alibi": True,
    "bias": True,
    "multi_query": False,
    "parallel_attn": False,
}


def _mpt(name: str, num_parameters: int, shape: Shape, length: int) -> Fields:
    width, layers, heads = shape
    config = {
        "model_type": "mpt",
        "vocab_size": 50_432,
        "d_model": width,
        "n_layers": layers,
        "n_heads": heads,
        "max_seq_len": length,
        "attn_config": {"alibi": True},
    }
    return {
        "repository": f"mosaicml/{name}",
        "config": config,
        "num_parameters": num_parameters,
    }


def _phi(name: str, num_parameters: int, shape: Shape, rotated: float) -> Fields:
    config = {
        "model_type": "phi",
        "vocab_size": 51_200,
        **_sizes(*shape),
        "intermediate_size": 4 * shape[0],
        "max_position_embeddings": 2048,
        "partial_rotary_factor": rotated,
    }
    return {
        "repository": f"microsoft/{name}",
        "config": config,
        "num_parameters": num_parameters,
    }


def _llama_like(
    repository: str, num_parameters: int, shape: Shape, mlp: int, **other: Any
) -> Fields:
    config = {**_sizes(*shape), "intermediate_size": mlp, "num_key_value_heads": shape[2]} | other
    return {"repository": repository, "config": config, "num_parameters": num_parameters}


_STABLELM = {
    "model_type": "stablelm",
    "max_position_embeddings": 4096,
    "partial_rotary_factor": 0.25,
    "tie_word_embeddings": False,
}
_OLMO = {"model_type": "olmo", "vocab_size": 50_304, "max_position_embeddings": 2048}
_OLMO2 = {
    "model_type": "olmo2",
    "vocab_size": 100_352,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500_000.0,
}
_GRANITE_3 = {
    "model_type": "granite",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "tie_word_embeddings": True,
}
_GRANITE_2B = {"attention_multiplier": 0.015625, "logits_scaling": 8.0}
_GRANITE_8B = {"attention_multiplier": 0.0078125, "logits_scaling": 16.0}
_GRANITE_3_1 = {
    "vocab_size": 49_155,
    "max_position_embeddings": 131_072,
    "rope_theta": 5_000_000.0,
}
_STARCODER2 = {
    "model_type": "starcoder2",
    "vocab_size": 49_152,
    "max_position_embeddings": 16_384,
    "sliding_window": 4096,
}
_COHERE = {"model_type": "cohere", "vocab_size": 256_000, "max_position_embeddings": 8192}


def _bigcode(name: str, num_parameters: int, shape: Shape) -> Fields:
    width, layers, heads = shape
    config = {
        "model_type": "gpt_bigcode",
        "vocab_size": 49_152,
        "n_positions": 8192,
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "n_inner": 4 * width,
        "activation_function": "gelu_pytorch_tanh",
        "multi_query": True,
    }
    return {
        "repository": f"bigcode/{name}",
        "config": config,
        "num_parameters": num_parameters,
    }


def _encoder(
    repository: str, num_parameters: int, shape: Shape, *, pooled: bool = True, **other: Any
) -> Fields:
    """An encoder of the shape of BERT."""
    width = shape[0]
    config = {**_sizes(*shape), "intermediate_size": 4 * width} | other
    return {
        "repository": repository,
        "config": config,
        "num_parameters": num_parameters,
        "num_unused": (width * width + width) * pooled,
    }


def _albert(version: str, size: str, num_parameters: int, shape: Shape) -> Fields:
    # What is left out is transformers' default; v1 has the exact GELU.
    other = {"model_type": "albert", "vocab_size": 30_000, "embedding_size": 128}
    other["hidden_act"] = "gelu" if version == "v1" else "gelu_new"
    return _encoder(f"albert/albert-{size}-{version}", num_parameters, shape, **other)


def _distilbert(name: str, num_parameters: int, vocabulary: int) -> Fields:
    config = {
        "model_type": "distilbert",
        "vocab_size": vocabulary,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
    }
    return {
        "repository": f"distilbert/{name}",
        "config": config,
        "num_parameters": num_parameters,
    }


def _electra(size: str, num_parameters: int, shape: Shape, embedded: int) -> Fields:
    other = {"model_type": "electra", "vocab_size": 30_522, "embedding_size": embedded}
    name = f"google/electra-{size}-discriminator"
    return _encoder(name, num_parameters, shape, pooled=False, **other)


def _xlm(name: str, num_parameters: int, shape: Shape, vocabulary: int, langs: int) -> Fields:
    """Parameters include a vector for each of several languages, which is not built."""
    width, layers, heads = shape
    config = {
        "model_type": "xlm",
        "vocab_size": vocabulary,
        "emb_dim": width,
        "n_layers": layers,
        "n_heads": heads,
        "n_langs": langs,
    }
    return {
        "repository": f"FacebookAI/xlm-{name}",
        "config": config,
        "num_parameters": num_parameters,
        "num_unused": langs * width if langs > 1 else 0,
    }


_ROBERTA = {
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}
_XLM_ROBERTA = {"model_type": "xlm-roberta", "vocab_size": 250_002} | _ROBERTA
_CAMEMBERT = {"model_type": "camembert", "vocab_size": 32_005} | _ROBERTA
_DISTILROBERTA = {"model_type": "roberta", "vocab_size": 50_265} | _ROBERTA
_BASE, _LARGE = (768, 12, 12), (1024, 24, 16)
_ALBERT_SHAPES = {  # width, layers, heads; parameters
    "base": (_BASE, 11_683_584),
    "large": (_LARGE, 17_683_968),
    "xlarge": ((2048, 24, 16), 58_724_864),
    "xxlarge": ((4096, 12, 64), 222_595_584),
}

ROWS: dict[str, Fields] = {
    "gpt-neo-125m": _gpt_neo("125m", 125_198_592, (768, 12, 12)),
    "gpt-neo-1.3b": _gpt_neo("1.3B", 1_315_575_808, (2048, 24, 16)),
    "gpt-neo-2.7b": _gpt_neo("2.7B", 2_651_307_520, (2560, 32, 20)),
    "falcon-7b": _falcon("falcon-7b", 6_921_720_704, _FALCON_7B),
    "falcon-7b-instruct": _falcon("falcon-7b-instruct", 6_921_720_704, _FALCON_7B),
    "falcon-40b": _falcon("falcon-40b", 41_303_293_952, (8192, 60, 128), **_FALCON_40B),
    "falcon-40b-instruct": _falcon(
        "falcon-40b-instruct", 41_303_293_952, (8192, 60, 128), **_FALCON_40B
    ),
    "falcon-rw-1b": _falcon("falcon-rw-1b", 1_311_625_216, (2048, 24, 32), **_FALCON_RW),
    "mpt-7b": _mpt("mpt-7b", 6_649_286_656, (4096, 32, 32), 2048),
    "mpt-7b-instruct": _mpt("mpt-7b-instruct", 6_649_286_656, (4096, 32, 32), 2048),
    "mpt-7b-chat": _mpt("mpt-7b-chat", 6_649_286_656, (4096, 32, 32), 2048),
    "mpt-30b": _mpt("mpt-30b", 29_957_200_896, (7168, 48, 64), 8192),
    "phi-1": _phi("phi-1", 1_418_270_720, (2048, 24, 32), 0.5),
    "phi-1.5": _phi("phi-1_5", 1_418_270_720, (2048, 24, 32), 0.5),
    "phi-2": _phi("phi-2", 2_779_683_840, (2560, 32, 32), 0.4),
    # The first GPT.
    "openai-gpt": {
        "repository": "openai-community/openai-gpt",
        "config": {
            "model_type": "openai-gpt",
            "vocab_size": 40_478,
            "n_positions": 512,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "afn": "gelu",
        },
        "num_parameters": 116_534_784,
    },
    "distilgpt2": {
        "repository": "distilbert/distilgpt2",
        "config": {
            "model_type": "gpt2",
            "vocab_size": 50_257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 6,
            "n_head": 12,
        },
        "num_parameters": 81_912_576,
    },
    "ctrl": {
        "repository": "Salesforce/ctrl",
        "config": {
            "model_type": "ctrl",
            "vocab_size": 246_534,
            "n_positions": 50_000,
            "n_embd": 1280,
            "n_layer": 48,
            "n_head": 16,
            "dff": 8192,
            "layer_norm_epsilon": 1e-6,
        },
        "num_parameters": 1_637_964_550,
    },
    "starcoderbase-1b": _bigcode("starcoderbase-1b", 1_137_207_296, (2048, 24, 16)),
    "starcoderbase": _bigcode("starcoderbase", 15_517_456_384, (6144, 40, 48)),
    "stablelm-3b": _llama_like(
        "stabilityai/stablelm-3b-4e1t",
        2_795_443_200,
        (2560, 32, 32),
        6912,
        vocab_size=50_304,
        **_STABLELM,
    ),
    "stablelm-2-1.6b": _llama_like(
        "stabilityai/stablelm-2-1_6b",
        1_644_515_328,
        (2048, 24, 32),
        5632,
        vocab_size=100_352,
        use_qkv_bias=True,
        **_STABLELM,
    ),
    "olmo-1b": _llama_like(
        "allenai/OLMo-1B-hf", 1_176_764_416, (2048, 16, 16), 8192, tie_word_embeddings=True, **_OLMO
    ),
    "olmo-7b": _llama_like("allenai/OLMo-7B-hf", 6_888_095_744, (4096, 32, 32), 11_008, **_OLMO),
    "olmo-2-1b": _llama_like(
        "allenai/OLMo-2-0425-1B", 1_484_916_736, (2048, 16, 16), 8192, **_OLMO2
    ),
    "olmo-2-7b": _llama_like(
        "allenai/OLMo-2-1124-7B", 7_298_617_344, (4096, 32, 32), 11_008, **_OLMO2
    ),
    "olmo-2-13b": _llama_like(
        "allenai/OLMo-2-1124-13B", 13_716_198_400, (5120, 40, 40), 13_824, **_OLMO2
    ),
    "granite-3.1-2b": _llama_like(
        "ibm-granite/granite-3.1-2b-base",
        2_533_531_648,
        (2048, 40, 32),
        8192,
        **_GRANITE_3,
        **_GRANITE_2B,
        **_GRANITE_3_1,
    ),
    "granite-3.1-8b": _llama_like(
        "ibm-granite/granite-3.1-8b-base",
        8_170_848_256,
        (4096, 40, 32),
        12_800,
        **_GRANITE_3,
        **_GRANITE_8B,
        **_GRANITE_3_1,
    ),
    "starcoder2-3b": _llama_like(
        "bigcode/starcoder2-3b",
        3_030_371_328,
        (3072, 30, 24),
        12_288,
        **(_STARCODER2 | {"num_key_value_heads": 2, "rope_theta": 999_999.4420358813}),
    ),
    "starcoder2-7b": _llama_like(
        "bigcode/starcoder2-7b",
        7_173_923_840,
        (4608, 32, 36),
        18_432,
        **(_STARCODER2 | {"num_key_value_heads": 4, "rope_theta": 1_000_000.0}),
    ),
    "smollm3-3b": _llama_like(
        "HuggingFaceTB/SmolLM3-3B",
        3_075_098_624,
        (2048, 36, 16),
        11_008,
        model_type="smollm3",
        vocab_size=128_256,
        num_key_value_heads=4,
        max_position_embeddings=65_536,
        rope_theta=5_000_000.0,
        no_rope_layer_interval=4,
    ),
    "command-r": _llama_like(
        "CohereLabs/c4ai-command-r-v01",
        34_980_831_232,
        (8192, 40, 64),
        22_528,
        rope_theta=8_000_000.0,
        logit_scale=0.0625,
        **_COHERE,
    ),
    "aya-23-8b": _llama_like(
        "CohereLabs/aya-23-8B",
        8_028_033_024,
        (4096, 32, 32),
        14_336,
        rope_theta=10_000.0,
        logit_scale=0.0625,
        **(_COHERE | {"num_key_value_heads": 8}),
    ),
    "distilbert-base-uncased": _distilbert("distilbert-base-uncased", 66_362_880, 30_522),
    "distilbert-base-cased": _distilbert("distilbert-base-cased", 65_190_912, 28_996),
    "distilbert-base-multilingual-cased": _distilbert(
        "distilbert-base-multilingual-cased", 134_734_080, 119_547
    ),
    "distilroberta-base": _encoder(
        "distilbert/distilroberta-base", 82_118_400, (768, 6, 12), **_DISTILROBERTA
    ),
    **{
        f"albert-{size}-{version}": _albert(version, size, count, shape)
        for version in ("v1", "v2")
        for size, (shape, count) in _ALBERT_SHAPES.items()
    },
    "electra-small": _electra("small", 13_483_008, (256, 12, 4), 128),
    "electra-base": _electra("base", 108_891_648, _BASE, 768),
    "electra-large": _electra("large", 334_092_288, _LARGE, 1024),
    "xlm-roberta-base": _encoder("FacebookAI/xlm-roberta-base", 278_043_648, _BASE, **_XLM_ROBERTA),
    "xlm-roberta-large": _encoder(
        "FacebookAI/xlm-roberta-large", 559_890_432, _LARGE, **_XLM_ROBERTA
    ),
    "xlm-mlm-en-2048": _xlm("mlm-en-2048", 667_088_896, (2048, 12, 16), 30_145, 1),
    "xlm-mlm-enfr-1024": _xlm("mlm-enfr-1024", 141_784_064, (1024, 6, 8), 64_139, 2),
    "camembert-base": _encoder("almanach/camembert-base", 110_621_952, _BASE, **_CAMEMBERT),
}
