"""LLaMA, Mistral, Qwen, Gemma, Phi-3: their configurations and tensors."""

import dataclasses
import math
from typing import Any

from jaxalign.errors import InputError
from jaxalign.io.checkpoint import Llama2cHeader
from jaxalign.models.families import hf_reading
from jaxalign.models.families.base import Family
from jaxalign.models.families.decoder import Config, Network
from jaxalign.models.families.layers import Rope
from jaxalign.models.weights import Tensor


def _llama_like(
    hf: dict, *, kv_heads: int | None = None, head_size: int = 0, **differs: Any
) -> Config:
    """Read what LLaMA and its successors have in common.

    Args:
      hf: content of config.json.
      kv_heads: what a missing num_key_value_heads means; None: num_attention_heads.
      head_size: what a missing head_dim means; 0: the width is divided.
      differs: what the family does in another way.
    """
    width, heads = hf["hidden_size"], hf["num_attention_heads"]
    sizes = hf_reading.read_head_sizes(
        width,
        heads,
        hf.get("num_key_value_heads", kv_heads) or heads,
        hf.get("head_dim", head_size) or 0,
    )
    max_length = differs.pop("max_length", None) or hf.get("max_position_embeddings", 2048)
    settings = hf_reading.rope_settings(hf)
    shared = {
        "norm_eps": hf.get("rms_norm_eps", 1e-6),
        "tied_embeddings": hf.get("tie_word_embeddings", False),
        "init_sd": hf.get("initializer_range", 0.02),
        "padding_token": hf_reading.read_padding_token(hf),
    }
    if "rope" not in differs:
        differs["rope"] = hf_reading.read_rope(settings, sizes["head_size"], max_length, 10_000.0)
    if "activation" not in differs:
        hf_reading.require(hf, hidden_act="silu")
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        width=width,
        **sizes,
        mlp_size=hf["intermediate_size"],
        max_length=hf_reading.exact_length(differs["rope"], max_length),
        **(shared | differs),
    )


def _llama_config(hf: dict) -> Config:
    hf_reading.require(hf, attention_bias=False, mlp_bias=False)
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
        windows=hf_reading.read_windows({}, sliding, hf.get("sliding_window", 4096)),
    )


def _qwen_windows(hf: dict) -> tuple[int, ...]:
    first = hf.get("max_window_layers", 28)
    window = hf.get("sliding_window", 4096) if hf.get("use_sliding_window") else None
    return hf_reading.read_windows(hf, [i >= first for i in range(hf["num_hidden_layers"])], window)


def _qwen2_config(hf: dict) -> Config:
    max_length = hf.get("max_position_embeddings", 32_768)
    return _llama_like(
        hf, kv_heads=32, max_length=max_length, windows=_qwen_windows(hf), qkv_bias=True
    )


def _qwen3_config(hf: dict) -> Config:
    hf_reading.require(hf, attention_bias=False)
    return _llama_like(
        hf,
        kv_heads=32,
        head_size=128,
        max_length=hf.get("max_position_embeddings", 32_768),
        windows=_qwen_windows(hf),
        qk_norm=True,
    )


def _gemma_like(hf: dict, sizes: dict[str, int], **differs: Any) -> Config:
    """Read what the Gemmas have in common; `sizes` are Hugging Face's defaults."""
    hf_reading.require(hf, attention_bias=False, use_bidirectional_attention=False)
    hf = sizes | hf
    return _llama_like(
        hf,
        **{
            "tied_embeddings": hf.get("tie_word_embeddings", True),
            "embed_scale": math.sqrt(hf["hidden_size"]),
            "norm": "centred_rms",
            "padding_token": hf_reading.read_padding_token(hf, 0),
        }
        | differs,
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


def _gemma23(hf: dict, sizes: dict[str, int], sliding, **differs: Any) -> Config:
    """Read what Gemma 2 and 3 have in common; `sliding(i)`: whether layer i has a window."""
    hf = sizes | hf
    return _gemma_like(
        hf,
        {},
        activation=hf_reading.read_activation(hf, "hidden_activation", "gelu_pytorch_tanh"),
        norm_place="both",
        attention_scale=hf.get("query_pre_attn_scalar", 256) ** -0.5,
        windows=hf_reading.read_windows(
            hf,
            [sliding(i) for i in range(hf["num_hidden_layers"])],
            hf.get("sliding_window", 4096),
        ),
        **differs,
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
    rope = lambda settings, key, theta: hf_reading.read_rope(
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
    settings = hf_reading.rope_settings(hf)
    original = hf.get("original_max_position_embeddings", 4096)
    settings["original_max_position_embeddings"] = original
    share = settings.get("partial_rotary_factor", 1.0)
    size = int((hf.get("head_dim") or width // heads) * share)
    # "yarn" is what the first files called it.
    if settings.get("rope_type", settings.get("type")) == "yarn":
        settings["rope_type"] = "longrope"
    rope = hf_reading.read_rope(settings, size, max_length, 10_000.0)
    sliding = [True] * hf["num_hidden_layers"]
    return _llama_like(
        hf,
        max_length=max_length,
        norm_eps=hf.get("rms_norm_eps", 1e-5),
        padding_token=hf_reading.read_padding_token(hf, 32_000),
        rope=rope,
        windows=hf_reading.read_windows({}, sliding, hf.get("sliding_window")),
    )


_LLAMA_ATTENTION = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
}
_LLAMA_MLP = {"mlp_gate": "mlp.gate_proj", "mlp_in": "mlp.up_proj"}


def _llama_tensors(
    config: Config, inputs: hf_reading.Modules = _LLAMA_ATTENTION | _LLAMA_MLP
) -> dict[str, Tensor]:
    """Name the tensors; `inputs` are the maps that Phi-3 fuses."""
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if config.norm_place == "both":
        norms |= {
            "attention_post_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        }
    blocks = {**norms, **inputs, "attention_out": "self_attn.o_proj", "mlp_out": "mlp.down_proj"}
    outside = {"words": "embed_tokens", "final_norm": "norm", "head": "lm_head"}
    return hf_reading.name_tensors(outside, "layers.{layer}.", blocks)


def _phi3_tensors(config: Config) -> dict[str, Tensor]:
    q, kv = (n * config.head_size for n in (config.num_heads, config.num_kv_heads))
    F = config.mlp_size
    return _llama_tensors(
        config,
        hf_reading.fused_in_a_row("self_attn.qkv_proj", query=q, key=kv, value=kv)
        | hf_reading.fused_in_a_row("mlp.gate_up_proj", mlp_gate=F, mlp_in=F),
    )


# A buffer that older checkpoints hold.
_ROTARY_BUFFER = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"


def _family(config_from_hf, tensors=_llama_tensors) -> Family:
    unused = hf_reading.unused(_ROTARY_BUFFER)
    return Family(Network, config_from_hf, tensors, unused, ("model.",))


FAMILIES = {
    "llama": _family(_llama_config),
    "mistral": _family(_mistral_config),
    "qwen2": _family(_qwen2_config),
    "qwen3": _family(_qwen3_config),
    "gemma": _family(_gemma_config),
    "gemma2": _family(_gemma2_config),
    "gemma3_text": _family(_gemma3_config),
    "gemma3": Family(
        Network,
        _gemma3_of_images_config,
        _llama_tensors,
        hf_reading.unused(r"(vision_tower|multi_modal_projector)\..*"),
        ("language_model.model.", "model.language_model.", "language_model.", "model."),
    ),
    "phi3": _family(_phi3_config, _phi3_tensors),
}
