"""Hugging Face's causal decoders: how each model_type's config.json and tensors are read.

A key that is missing from config.json has the value that Hugging Face gives it. Only sizes must be
there, except Gemma's, whose published files leave some of them out.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxalign.errors import InputError
from jaxalign.io.checkpoint import Llama2cHeader
from jaxalign.models.base import Family
from jaxalign.models.decoder import Config, Network
from jaxalign.models.layers import Rope
from jaxalign.models.weights import Part, Tensor

_ACTIVATIONS = {
    "relu": "relu",
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# Buffers that older checkpoints hold.
_ROTARY_BUFFER = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
_COPIED_HEAD = (r"lm_head\.weight",)

_Modules = Mapping[str, str | tuple[str, Part]]


def _require(hf: dict, **values: Any) -> None:
    """Refuse variants that are not built: each key must be missing or have this value."""
    for key, supported in values.items():
        # Older files write null for false.
        if (found := hf.get(key, supported)) != supported and (found or supported):
            raise InputError(f"config.json: {key} must be {supported!r}, found {found!r}.")


def _activation(hf: dict, key: str, default: str) -> str:
    name = hf.get(key) or default
    if name not in _ACTIVATIONS:
        raise InputError(
            f"config.json: {key} must be one of {', '.join(_ACTIVATIONS)}, found {name!r}."
        )
    return _ACTIVATIONS[name]


def _padding_token(hf: dict, default: int = -1) -> int:
    token = hf.get("pad_token_id", default)
    return -1 if token is None else token


def _head_sizes(width: int, heads: int, kv_heads: int, head_size: int = 0) -> dict[str, int]:
    """Check the sizes of heads; 0: the width is divided among them."""
    if heads % kv_heads or (not head_size and width % heads):
        raise InputError(
            "config.json: num_key_value_heads must divide num_attention_heads, and that "
            f"hidden_size: found {kv_heads}, {heads} and {width}."
        )
    head_size = head_size or width // heads
    return {"num_heads": heads, "num_kv_heads": kv_heads, "head_size": head_size}


def _first(hf: dict, *keys: str) -> Any:
    """Return the value of the first of a setting's names that is there."""
    for key in keys:
        if hf.get(key) is not None:
            return hf[key]
    raise KeyError(keys[0])


def _rope(settings: dict, size: int, max_length: int, theta: int | float) -> Rope:
    """Read one set of rotary settings.

    Raises:
      InputError: if the scaling is not built.
    """
    kind = settings.get("rope_type", settings.get("type", "default"))
    rope = {"size": size, "theta": float(settings.get("rope_theta", theta))}
    original = settings.get("original_max_position_embeddings", max_length)
    if kind == "default":
        return Rope(**rope)
    if kind == "linear":
        return Rope(**rope, scaling="linear", factor=float(settings["factor"]))
    if kind == "llama3":
        return Rope(
            **rope,
            scaling="llama3",
            factor=float(settings["factor"]),
            low_factor=float(settings["low_freq_factor"]),
            high_factor=float(settings["high_freq_factor"]),
            original_length=original,
        )
    if kind in ("longrope", "su"):
        return _longrope(settings, rope, original, max_length)
    # "dynamic" and Hugging Face's longrope beyond the original length turn every token by an
    # angle that depends on how many tokens follow it: not a causal model any more.
    raise InputError(
        f"config.json: rope_type must be one of default, linear, llama3, longrope, found {kind!r}."
    )


def _longrope(settings: dict, rope: dict, original: int, max_length: int) -> Rope:
    factors = tuple(map(float, settings["short_factor"]))
    if len(factors) != rope["size"] // 2:
        raise InputError(
            f"config.json: short_factor must have {rope['size'] // 2} numbers, "
            f"found {len(factors)}."
        )
    factor = settings.get("factor") or max_length / original
    magnitude = settings.get("attention_factor")
    if magnitude is None:
        magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return Rope(**rope, scaling="factors", factors=factors, magnitude=float(magnitude))


def _rope_settings(hf: dict) -> dict:
    """Return rotary settings in the form of transformers 5: one dictionary."""
    settings = dict(hf.get("rope_parameters") or hf.get("rope_scaling") or {})
    for key in ("rope_theta", "partial_rotary_factor"):
        if hf.get(key) is not None:
            settings.setdefault(key, hf[key])
    return settings


def _windows(hf: dict, sliding: list[bool], window: int | None) -> tuple[int, ...]:
    """Return each layer's window: where `layer_types` names it, or else where `sliding` says."""
    types = hf.get("layer_types")
    if types is not None:
        if len(types) != len(sliding) or set(types) - {"sliding_attention", "full_attention"}:
            raise InputError(
                "config.json: layer_types must name each layer sliding_attention or "
                f"full_attention, found {len(types)} of {', '.join(sorted(set(types)))}."
            )
        sliding = [kind == "sliding_attention" for kind in types]
    return tuple(window if slides else 0 for slides in sliding) if window and any(sliding) else ()


def _tensors(modules: _Modules, *, conv1d: bool = False) -> dict[str, Tensor]:
    """Name the tensors of our modules after Hugging Face's modules.

    Args:
      modules: our module -> theirs, or theirs and which part of its outputs.
      conv1d: whether linear maps of blocks are stored as [inputs outputs].
    """
    tensors = {}
    for ours, where in modules.items():
        theirs, part = (where, None) if isinstance(where, str) else where
        if ours in ("words", "positions"):
            tensors[f"{ours}/table"] = Tensor(f"{theirs}.weight")
            continue
        is_norm = ours.endswith("norm")
        transpose = not is_norm and not (conv1d and ours.startswith("blocks/"))
        weight = "scale" if is_norm else "kernel"
        tensors[f"{ours}/{weight}"] = Tensor(f"{theirs}.weight", transpose, part)
        tensors[f"{ours}/bias"] = Tensor(f"{theirs}.bias", part=part)
    return tensors


def _blocks(prefix: str, modules: _Modules) -> dict[str, Any]:
    """Put the names of blocks in front of their modules'."""
    return {
        f"blocks/{ours}": f"{prefix}{where}"
        if isinstance(where, str)
        else (f"{prefix}{where[0]}", where[1])
        for ours, where in modules.items()
    }


def _by_head(config: Config, name: str) -> dict[str, tuple[str, Part]]:
    """Queries, keys and values fused in one map, head by head."""
    H = config.head_size
    total = 3 * config.num_heads * H
    return {
        ours: (name, Part(i * H, H, 3 * H, total))
        for i, ours in enumerate(("query", "key", "value"))
    }


def _in_a_row(name: str, **sizes: int) -> dict[str, tuple[str, Part]]:
    """Maps fused in one, one after the other."""
    parts, start = {}, 0
    for ours, size in sizes.items():
        parts[ours] = (name, Part(start, size, size, sum(sizes.values())))
        start += size
    return parts


# GPT-2.


def _gpt2_config(hf: dict) -> Config:
    _require(
        hf,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    width, num_layers = (
        _first(hf, "n_embd", "hidden_size"),
        _first(hf, "n_layer", "num_hidden_layers"),
    )
    init_sd = hf.get("initializer_range", 0.02)
    heads = _first(hf, "n_head", "num_attention_heads")
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=num_layers,
        width=width,
        **_head_sizes(width, heads, heads),
        mlp_size=hf.get("n_inner") or 4 * width,
        max_length=_first(hf, "n_positions", "max_position_embeddings"),
        norm_eps=hf.get("layer_norm_epsilon", 1e-5),
        tied_embeddings=hf.get("tie_word_embeddings", True),
        learned_positions=True,
        norm="layer",
        qkv_bias=True,
        attention_out_bias=True,
        activation=_activation(hf, "activation_function", "gelu_new"),
        gated=False,
        mlp_bias=True,
        init_sd=init_sd,
        residual_init_sd=init_sd / math.sqrt(2 * num_layers),
    )


def _gpt2_tensors(config: Config) -> dict[str, Tensor]:
    D = config.width
    blocks = {
        "attention_norm": "ln_1",
        **_in_a_row("attn.c_attn", query=D, key=D, value=D),
        "attention_out": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    }
    outside = {"words": "wte", "positions": "wpe", "final_norm": "ln_f", "head": "lm_head"}
    return _tensors(outside | _blocks("h.{layer}.", blocks), conv1d=True)


# OPT.


def _opt_config(hf: dict) -> Config:
    _require(hf, enable_bias=True, layer_norm_elementwise_affine=True)
    width, heads = hf["hidden_size"], hf["num_attention_heads"]
    embed_width = hf.get("word_embed_proj_dim") or width
    before = hf.get("do_layer_norm_before", True)
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        width=width,
        **_head_sizes(width, heads, heads),
        mlp_size=hf["ffn_dim"],
        max_length=hf.get("max_position_embeddings", 2048),
        norm_eps=1e-5,  # not in the configuration
        tied_embeddings=hf.get("tie_word_embeddings", True),
        embed_width=0 if embed_width == width else embed_width,
        learned_positions=True,
        position_offset=2,
        norm="layer",
        norm_place="before" if before else "after",
        # Checkpoints of before transformers 4.20 ran without it.
        final_norm=before and not hf.get("_remove_final_layer_norm", False),
        qkv_bias=True,
        attention_out_bias=True,
        activation=_activation(hf, "activation_function", "relu"),
        gated=False,
        mlp_bias=True,
        init_sd=hf.get("init_std", 0.02),
        padding_token=_padding_token(hf, 1),
    )


def _opt_tensors(config: Config) -> dict[str, Tensor]:
    del config
    blocks = {
        "attention_norm": "self_attn_layer_norm",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.out_proj",
        "mlp_norm": "final_layer_norm",
        "mlp_in": "fc1",
        "mlp_out": "fc2",
    }
    outside = {
        "words": "decoder.embed_tokens",
        "positions": "decoder.embed_positions",
        "project_in": "decoder.project_in",
        "project_out": "decoder.project_out",
        "final_norm": "decoder.final_layer_norm",
        "head": "lm_head",
    }
    return _tensors(outside | _blocks("decoder.layers.{layer}.", blocks))


# GPT-NeoX and Pythia.


def _neox_config(hf: dict) -> Config:
    _require(hf, attention_bias=True)
    width, heads = hf["hidden_size"], hf["num_attention_heads"]
    sizes = _head_sizes(width, heads, heads)
    max_length = hf.get("max_position_embeddings", 2048)
    settings = _rope_settings(hf)
    share = settings.get("partial_rotary_factor", hf.get("rotary_pct", 0.25))
    theta = hf.get("rotary_emb_base", 10_000.0)
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        width=width,
        **sizes,
        mlp_size=hf["intermediate_size"],
        max_length=max_length,
        norm_eps=hf.get("layer_norm_eps", 1e-5),
        tied_embeddings=hf.get("tie_word_embeddings", False),
        norm="layer",
        rope=_rope(settings, int(sizes["head_size"] * share), max_length, theta),
        qkv_bias=True,
        attention_out_bias=True,
        activation=_activation(hf, "hidden_act", "gelu"),
        gated=False,
        mlp_bias=True,
        parallel=hf.get("use_parallel_residual", True),
        init_sd=hf.get("initializer_range", 0.02),
    )


def _neox_tensors(config: Config) -> dict[str, Tensor]:
    blocks = {
        "attention_norm": "input_layernorm",
        **_by_head(config, "attention.query_key_value"),
        "attention_out": "attention.dense",
        "mlp_norm": "post_attention_layernorm",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    }
    outside = {"words": "embed_in", "final_norm": "final_layer_norm", "head": "embed_out"}
    return _tensors(outside | _blocks("layers.{layer}.", blocks))


# GPT-J.


def _gptj_config(hf: dict) -> Config:
    width, heads = _first(hf, "n_embd", "hidden_size"), _first(hf, "n_head", "num_attention_heads")
    size = hf.get("rotary_dim", 64)
    if not size:
        raise InputError(f"config.json: rotary_dim must be a number, found {size!r}.")
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=_first(hf, "n_layer", "num_hidden_layers"),
        width=width,
        **_head_sizes(width, heads, heads),
        mlp_size=hf.get("n_inner") or 4 * width,
        max_length=_first(hf, "n_positions", "max_position_embeddings"),
        norm_eps=hf.get("layer_norm_epsilon", 1e-5),
        tied_embeddings=hf.get("tie_word_embeddings", False),
        norm="layer",
        rope=Rope(size=size, interleaved=True),
        activation=_activation(hf, "activation_function", "gelu_new"),
        gated=False,
        mlp_bias=True,
        parallel=True,
        shared_norm=True,
        head_bias=True,
        init_sd=hf.get("initializer_range", 0.02),
    )


def _gptj_tensors(config: Config) -> dict[str, Tensor]:
    del config
    blocks = {
        "attention_norm": "ln_1",
        "query": "attn.q_proj",
        "key": "attn.k_proj",
        "value": "attn.v_proj",
        "attention_out": "attn.out_proj",
        "mlp_in": "mlp.fc_in",
        "mlp_out": "mlp.fc_out",
    }
    outside = {"words": "wte", "final_norm": "ln_f", "head": "lm_head"}
    return _tensors(outside | _blocks("h.{layer}.", blocks))


# BLOOM.


def _bloom_config(hf: dict) -> Config:
    _require(hf, apply_residual_connection_post_layernorm=False)
    width, heads = _first(hf, "n_embed", "hidden_size"), _first(hf, "n_head", "num_attention_heads")
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=_first(hf, "n_layer", "num_hidden_layers"),
        width=width,
        **_head_sizes(width, heads, heads),
        mlp_size=4 * width,
        max_length=hf.get("seq_length", 2048),  # of training: ALiBi has no table that ends
        norm_eps=hf.get("layer_norm_epsilon", 1e-5),
        tied_embeddings=hf.get("tie_word_embeddings", True),
        embed_norm=True,
        norm="layer",
        alibi=True,
        qkv_bias=True,
        attention_out_bias=True,
        activation="gelu_tanh",
        gated=False,
        mlp_bias=True,
        init_sd=hf.get("initializer_range", 0.02),
    )


def _bloom_tensors(config: Config) -> dict[str, Tensor]:
    blocks = {
        "attention_norm": "input_layernorm",
        **_by_head(config, "self_attention.query_key_value"),
        "attention_out": "self_attention.dense",
        "mlp_norm": "post_attention_layernorm",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    }
    outside = {
        "words": "word_embeddings",
        "embed_norm": "word_embeddings_layernorm",
        "final_norm": "ln_f",
        "head": "lm_head",
    }
    return _tensors(outside | _blocks("h.{layer}.", blocks))


# LLaMA, and what has its names of tensors.


def _llama_like(hf: dict, *, kv_heads: int | None = None, head_size: int = 0, **own: Any) -> Config:
    """Read what LLaMA and its successors have in common.

    Args:
      hf: content of config.json.
      kv_heads: what a missing num_key_value_heads means; None: num_attention_heads.
      head_size: what a missing head_dim means; 0: the width is divided.
      own: what the family does in its own way.
    """
    width, heads = hf["hidden_size"], hf["num_attention_heads"]
    sizes = _head_sizes(
        width,
        heads,
        hf.get("num_key_value_heads", kv_heads) or heads,
        hf.get("head_dim", head_size) or 0,
    )
    max_length = own.pop("max_length", None) or hf.get("max_position_embeddings", 2048)
    settings = _rope_settings(hf)
    shared = {
        "norm_eps": hf.get("rms_norm_eps", 1e-6),
        "tied_embeddings": hf.get("tie_word_embeddings", False),
        "init_sd": hf.get("initializer_range", 0.02),
        "padding_token": _padding_token(hf),
    }
    if "rope" not in own:
        shared["rope"] = _rope(settings, sizes["head_size"], max_length, 10_000.0)
    if "activation" not in own:
        _require(hf, hidden_act="silu")
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        width=width,
        **sizes,
        mlp_size=hf["intermediate_size"],
        max_length=max_length,
        **(shared | own),
    )


def _llama_config(hf: dict) -> Config:
    _require(hf, attention_bias=False, mlp_bias=False)
    return _llama_like(hf)


def config_from_llama2c(header: Llama2cHeader) -> Config:
    """Read the header of a llama2.c file; what it does not hold is fixed in llama2.c."""
    head_size = header.dim // header.n_heads
    return Config(
        vocab_size=abs(header.vocab_size),
        num_layers=header.n_layers,
        width=header.dim,
        num_heads=header.n_heads,
        num_kv_heads=header.n_kv_heads,
        head_size=head_size,
        mlp_size=header.hidden_dim,
        max_length=header.seq_len,
        rope=Rope(size=head_size),
        norm_eps=1e-5,
        tied_embeddings=header.vocab_size > 0,
    )


def _mistral_config(hf: dict) -> Config:
    sliding = [True] * hf["num_hidden_layers"]
    return _llama_like(
        hf,
        kv_heads=8,
        max_length=hf.get("max_position_embeddings", 131_072),
        windows=_windows({}, sliding, hf.get("sliding_window", 4096)),
    )


def _qwen_windows(hf: dict) -> tuple[int, ...]:
    first = hf.get("max_window_layers", 28)
    window = hf.get("sliding_window", 4096) if hf.get("use_sliding_window") else None
    return _windows(hf, [i >= first for i in range(hf["num_hidden_layers"])], window)


def _qwen2_config(hf: dict) -> Config:
    max_length = hf.get("max_position_embeddings", 32_768)
    return _llama_like(
        hf, kv_heads=32, max_length=max_length, windows=_qwen_windows(hf), qkv_bias=True
    )


def _qwen3_config(hf: dict) -> Config:
    _require(hf, attention_bias=False)
    return _llama_like(
        hf,
        kv_heads=32,
        head_size=128,
        max_length=hf.get("max_position_embeddings", 32_768),
        windows=_qwen_windows(hf),
        qk_norm=True,
    )


def _gemma_like(hf: dict, sizes: dict[str, int], **own: Any) -> Config:
    """Read what the Gemmas have in common; `sizes` are Hugging Face's defaults."""
    _require(hf, attention_bias=False, use_bidirectional_attention=False)
    hf = sizes | hf
    return _llama_like(
        hf,
        **{
            "tied_embeddings": hf.get("tie_word_embeddings", True),
            "embed_scale": math.sqrt(hf["hidden_size"]),
            "norm": "centred_rms",
            "padding_token": _padding_token(hf, 0),
        }
        | own,
    )


_GEMMA_SIZES = {
    "vocab_size": 256_000,
    "hidden_size": 3072,
    "intermediate_size": 24_576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "max_position_embeddings": 8192,
}
_GEMMA2_SIZES = _GEMMA_SIZES | {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
_GEMMA3_SIZES = _GEMMA2_SIZES | {"vocab_size": 262_208, "max_position_embeddings": 131_072}


def _gemma_config(hf: dict) -> Config:
    # Gemma's first files say "gelu" and mean the one with tanh, as Hugging Face knows.
    if hf.get("hidden_act", "gelu") not in ("gelu", "gelu_pytorch_tanh"):
        raise InputError(
            f"config.json: hidden_act must be 'gelu_pytorch_tanh', found {hf['hidden_act']!r}."
        )
    return _gemma_like(hf, _GEMMA_SIZES, activation="gelu_tanh")


def _gemma23(hf: dict, sizes: dict[str, int], sliding, **own: Any) -> Config:
    """Read what Gemma 2 and 3 have in common; `sliding` tells it of each layer's index."""
    hf = sizes | hf
    return _gemma_like(
        hf,
        {},
        activation=_activation(hf, "hidden_activation", "gelu_pytorch_tanh"),
        norm_place="both",
        attention_scale=hf.get("query_pre_attn_scalar", 256) ** -0.5,
        windows=_windows(
            hf,
            [sliding(i) for i in range(hf["num_hidden_layers"])],
            hf.get("sliding_window", 4096),
        ),
        **own,
    )


def _gemma2_config(hf: dict) -> Config:
    return _gemma23(
        hf,
        _GEMMA2_SIZES,
        lambda i: i % 2 == 0,
        attention_cap=float(hf.get("attn_logit_softcapping", 50.0) or 0),
        logit_cap=float(hf.get("final_logit_softcapping", 30.0) or 0),
    )


def _gemma3_config(hf: dict) -> Config:
    # Two sets of rotary settings; transformers 4 wrote them as keys, and scaled the global one.
    hf = _GEMMA3_SIZES | hf
    both = hf.get("rope_parameters") or {}
    whole = both.get("full_attention") or dict(hf.get("rope_scaling") or {})
    local = both.get("sliding_attention") or {}
    rope = lambda settings, key, theta: _rope(
        settings, hf["head_dim"], hf["max_position_embeddings"], hf.get(key, theta)
    )
    every = hf.get("sliding_window_pattern", 6)
    config = _gemma23(
        hf,
        {},
        lambda i: (i + 1) % every != 0,
        attention_cap=float(hf.get("attn_logit_softcapping") or 0),
        logit_cap=float(hf.get("final_logit_softcapping") or 0),
        qk_norm=True,
        rope=rope(whole, "rope_theta", 1_000_000.0),
        local_rope=rope(local, "rope_local_base_freq", 10_000.0),
    )
    return config if config.windows else dataclasses.replace(config, local_rope=None)


def _gemma3_of_images_config(hf: dict) -> Config:
    """Gemma 3 of 4B and more is published with a vision tower, which text does not pass."""
    text = hf["text_config"]
    return _gemma3_config({"tie_word_embeddings": hf.get("tie_word_embeddings", True)} | text)


def _phi3_config(hf: dict) -> Config:
    width, heads = hf["hidden_size"], hf["num_attention_heads"]
    max_length = hf.get("max_position_embeddings", 4096)
    settings = _rope_settings(hf)
    original = hf.get("original_max_position_embeddings", 4096)
    settings["original_max_position_embeddings"] = original
    share = settings.get("partial_rotary_factor", 1.0)
    size = int((hf.get("head_dim") or width // heads) * share)
    # "yarn" is what the first files called it.
    if settings.get("rope_type", settings.get("type")) == "yarn":
        settings["rope_type"] = "longrope"
    rope = _rope(settings, size, max_length, 10_000.0)
    if rope.scaling == "factors":
        # Beyond the original length other factors turn all tokens, those before it too: states
        # would depend on what follows. Up to there this is exact.
        max_length = min(max_length, original)
    return _llama_like(
        hf,
        max_length=max_length,
        norm_eps=hf.get("rms_norm_eps", 1e-5),
        padding_token=_padding_token(hf, 32_000),
        rope=rope,
        windows=_windows({}, [True] * hf["num_hidden_layers"], hf.get("sliding_window")),
    )


_LLAMA_ATTENTION = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
}
_LLAMA_MLP = {"mlp_gate": "mlp.gate_proj", "mlp_in": "mlp.up_proj"}


def _llama_tensors(config: Config, fused: _Modules = _LLAMA_ATTENTION | _LLAMA_MLP):
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if config.norm_place == "both":
        norms |= {
            "attention_post_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        }
    blocks = {**norms, **fused, "attention_out": "self_attn.o_proj", "mlp_out": "mlp.down_proj"}
    outside = {"words": "embed_tokens", "final_norm": "norm", "head": "lm_head"}
    return _tensors(outside | _blocks("layers.{layer}.", blocks))


def _phi3_tensors(config: Config) -> dict[str, Tensor]:
    q, kv = (n * config.head_size for n in (config.num_heads, config.num_kv_heads))
    F = config.mlp_size
    return _llama_tensors(
        config,
        _in_a_row("self_attn.qkv_proj", query=q, key=kv, value=kv)
        | _in_a_row("mlp.gate_up_proj", mlp_gate=F, mlp_in=F),
    )


def _family(config_from_hf, tensors, prefixes, *ignored: str, copies=_COPIED_HEAD) -> Family:
    unused = lambda config: ignored + (copies if config.tied_embeddings else ())
    return Family(Network, config_from_hf, tensors, unused, prefixes)


def _llama_family(config_from_hf, tensors=_llama_tensors) -> Family:
    return _family(config_from_hf, tensors, ("model.",), _ROTARY_BUFFER)


FAMILIES = {
    "gpt2": _family(
        _gpt2_config, _gpt2_tensors, ("transformer.",), r"h\.\d+\.attn\.(bias|masked_bias)"
    ),
    "opt": _family(_opt_config, _opt_tensors, ("model.",)),
    "gpt_neox": _family(
        _neox_config,
        _neox_tensors,
        ("gpt_neox.",),
        r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
        copies=(r"embed_out\.weight",),
    ),
    "gptj": _family(
        _gptj_config, _gptj_tensors, ("transformer.",), r"h\.\d+\.attn\.(bias|masked_bias)"
    ),
    "bloom": _family(_bloom_config, _bloom_tensors, ("transformer.",)),
    "llama": _llama_family(_llama_config),
    "mistral": _llama_family(_mistral_config),
    "qwen2": _llama_family(_qwen2_config),
    "qwen3": _llama_family(_qwen3_config),
    "gemma": _llama_family(_gemma_config),
    "gemma2": _llama_family(_gemma2_config),
    "gemma3_text": _llama_family(_gemma3_config),
    "gemma3": _family(
        _gemma3_of_images_config,
        _llama_tensors,
        ("language_model.model.", "model.language_model.", "language_model.", "model."),
        r"(vision_tower|multi_modal_projector)\..*",
    ),
    "phi3": _llama_family(_phi3_config, _phi3_tensors),
}
