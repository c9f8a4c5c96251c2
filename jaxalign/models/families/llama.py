"""LLaMA, Mistral, Qwen, Gemma, Phi-3: their configurations and tensors."""

import dataclasses
import math
from typing import Any

from jaxalign.errors import InputError
from jaxalign.io.checkpoint import Llama2cHeader
from jaxalign.models.families import hf_reading, keys, rotary
from jaxalign.models.families.base import Family
from jaxalign.models.families.decoder import Config, Network
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.weights import Tensor

Values = dict[str, Any]  # of the keys of config.json


EVERY = {
    "vocab_size": Key(keys.COUNT),
    "hidden_size": Key(keys.COUNT),
    "num_hidden_layers": Key(keys.LAYERS),
    "num_attention_heads": Key(keys.COUNT),
    "intermediate_size": Key(keys.COUNT),
    "num_key_value_heads": Key(optional(keys.COUNT), None),  # null: num_attention_heads
    "head_dim": Key(optional(keys.COUNT), None),  # null: the width is divided
    "max_position_embeddings": Key(keys.COUNT, 2048),
    "rms_norm_eps": Key(keys.SMALL, 1e-6),
    "hidden_act": Key(hf_reading.ACTIVATION, "silu"),
    "initializer_range": Key(keys.DEVIATION, 0.02),
    "pad_token_id": Key(optional(keys.TOKEN), None),
    "tie_word_embeddings": Key(keys.FLAG, False),
    # What some files say of families that have no choice.
    "attention_bias": keys.only(False),
    "mlp_bias": keys.only(False),
    "rope_interleaved": keys.only(False),
} | rotary.KEYS
WINDOW = optional(keys.COUNT)
LAYER_TYPES = {"layer_types": Key(optional(keys.NAMES), None)}
INERT = "max_sequence_length pretraining_tp is_decoder is_llama_config"


def llama_like(values: Values, **differs: Any) -> Config:
    """Read what LLaMA and its successors have in common.

    Args:
      values: of the keys of config.json.
      differs: what the family does in another way.
    """
    sizes = head_sizes(values)
    max_length = values["max_position_embeddings"]
    shared = {
        "tied_embeddings": values["tie_word_embeddings"],
        "init_sd": values["initializer_range"],
        "padding_token": hf_reading.padding_token(values),
    }
    if "norm_eps" not in differs:
        differs["norm_eps"] = values["rms_norm_eps"]
    if "rope" not in differs:
        settings = rotary.settings(values)
        differs["rope"] = rotary.read(settings, sizes["head_size"], max_length)
    if "activation" not in differs:
        differs["activation"] = hf_reading.activation(values["hidden_act"])
    return Config(
        vocab_size=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        **sizes,
        mlp_size=values["intermediate_size"],
        max_length=rotary.exact_length(differs["rope"], max_length),
        **(shared | differs),
    )


def head_sizes(values: Values) -> dict[str, int]:
    """Return numbers and size of heads."""
    heads = values["num_attention_heads"]
    return hf_reading.read_head_sizes(
        values["hidden_size"],
        heads,
        values["num_key_value_heads"] or heads,
        values["head_dim"] or 0,
    )


ATTENTION_BIAS = {"attention_bias": Key(keys.FLAG, False)}


def attention_bias(values: Values) -> dict[str, bool]:
    """Return the biases of all four maps of attention, which one key sets."""
    return dict.fromkeys(("qkv_bias", "attention_out_bias"), values["attention_bias"])


_LLAMA_KEYS = keys.family(
    EVERY
    | ATTENTION_BIAS
    | {"mlp_bias": Key(keys.FLAG, False), "use_sliding_window": keys.only(False)},
    INERT,
)


def _llama_config(values: Values) -> Config:
    return llama_like(values, mlp_bias=values["mlp_bias"], **attention_bias(values))


def hf_from_llama2c(header: Llama2cHeader) -> dict[str, Any]:
    """Return the `config.json` of a llama2.c file; what it does not hold is fixed in llama2.c.

    Tokens that begin and end a text are those of llama2.c's tokenizer.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": abs(header.vocab_size),
        "hidden_size": header.dim,
        "num_hidden_layers": header.n_layers,
        "num_attention_heads": header.n_heads,
        "num_key_value_heads": header.n_kv_heads,
        "intermediate_size": header.hidden_dim,
        "max_position_embeddings": header.seq_len,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": header.vocab_size > 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def config_from_llama2c(header: Llama2cHeader) -> Config:
    """Read the header of a llama2.c file."""
    return FAMILIES["llama"].config_from_hf(hf_from_llama2c(header), source="a llama2.c header")


_MISTRAL_KEYS = keys.family(
    EVERY
    | LAYER_TYPES
    | {
        "num_key_value_heads": Key(optional(keys.COUNT), 8),
        "max_position_embeddings": Key(keys.COUNT, 131_072),
        "sliding_window": Key(WINDOW, 4096),
    },
    INERT,
)


def _mistral_config(values: Values) -> Config:
    # transformers reads one with layer_types as a Ministral, whose layers alternate.
    sliding = [True] * values["num_hidden_layers"]
    windows = hf_reading.read_windows(values["layer_types"], sliding, values["sliding_window"])
    return llama_like(values, windows=windows)


_QWEN2_KEYS = (
    EVERY
    | LAYER_TYPES
    | {
        "num_key_value_heads": Key(optional(keys.COUNT), 32),
        "max_position_embeddings": Key(keys.COUNT, 32_768),
        "use_sliding_window": Key(keys.FLAG, False),
        "sliding_window": Key(WINDOW, 4096),
        "max_window_layers": Key(keys.integer(0), 28),
        "use_mrope": keys.only(False),
    }
)


def _qwen_windows(values: Values) -> tuple[int, ...]:
    first = values["max_window_layers"]
    sliding = [i >= first for i in range(values["num_hidden_layers"])]
    window = values["sliding_window"] if values["use_sliding_window"] else None
    return hf_reading.read_windows(values["layer_types"], sliding, window)


def _qwen2_config(values: Values) -> Config:
    return llama_like(values, windows=_qwen_windows(values), qkv_bias=True)


_QWEN3_KEYS = _QWEN2_KEYS | ATTENTION_BIAS | {"head_dim": Key(keys.COUNT, 128)}


def _qwen3_config(values: Values) -> Config:
    bias = attention_bias(values)
    return llama_like(values, windows=_qwen_windows(values), qk_norm=True, **bias)


# Published files of Gemma leave out some sizes: these are Hugging Face's defaults.
_GEMMA_EVERY = (
    EVERY
    | ATTENTION_BIAS
    | {
        "vocab_size": Key(keys.COUNT, 256_000),
        "hidden_size": Key(keys.COUNT, 3072),
        "intermediate_size": Key(keys.COUNT, 24_576),
        "num_hidden_layers": Key(keys.LAYERS, 28),
        "num_attention_heads": Key(keys.COUNT, 16),
        "num_key_value_heads": Key(keys.COUNT, 16),
        "head_dim": Key(keys.COUNT, 256),
        "max_position_embeddings": Key(keys.COUNT, 8192),
        "pad_token_id": Key(optional(keys.TOKEN), 0),
        "tie_word_embeddings": Key(keys.FLAG, True),
        "use_bidirectional_attention": keys.only(False),
    }
)
_GEMMA_KEYS = _GEMMA_EVERY | {
    "hidden_act": Key(hf_reading.ACTIVATION, "gelu_pytorch_tanh"),
    "hidden_activation": Key(optional(hf_reading.ACTIVATION), None),
}
_CAP = optional(keys.number(0, 1e6, above=True))
_GEMMA2_KEYS = (
    {name: key for name, key in _GEMMA_EVERY.items() if name != "hidden_act"}
    | LAYER_TYPES
    | {
        "hidden_size": Key(keys.COUNT, 2304),
        "intermediate_size": Key(keys.COUNT, 9216),
        "num_hidden_layers": Key(keys.LAYERS, 26),
        "num_attention_heads": Key(keys.COUNT, 8),
        "num_key_value_heads": Key(keys.COUNT, 4),
        "hidden_activation": Key(hf_reading.ACTIVATION, "gelu_pytorch_tanh"),
        "query_pre_attn_scalar": Key(keys.number(0, 1e6, above=True), 256),
        "sliding_window": Key(WINDOW, 4096),
        "attn_logit_softcapping": Key(_CAP, 50.0),
        "final_logit_softcapping": Key(_CAP, 30.0),
    }
)
_GEMMA3_KEYS = {
    name: key
    for name, key in _GEMMA2_KEYS.items()
    if name not in ("attn_logit_softcapping", "original_max_position_embeddings")
} | {
    "vocab_size": Key(keys.COUNT, 262_208),
    "max_position_embeddings": Key(keys.COUNT, 131_072),
    "final_logit_softcapping": Key(_CAP, None),
    "rope_local_base_freq": Key(optional(rotary.THETA), None),
    "sliding_window_pattern": Key(keys.COUNT, 6, names=("_sliding_window_pattern",)),
}
# Of the text alone; images have settings that no text passes.
_GEMMA3_IMAGES_KEYS = {
    "text_config": Key(keys.MAPPING),
    "tie_word_embeddings": Key(optional(keys.FLAG), None),
}


def _gemma_like(values: Values, **differs: Any) -> Config:
    """Read what the Gemmas have in common."""
    scale = math.sqrt(values["hidden_size"])
    bias = attention_bias(values)
    return llama_like(values, embed_scale=scale, norm="centred_rms", **bias, **differs)


def _gemma_config(values: Values) -> Config:
    # Gemma's first files say "gelu" and mean the one with tanh, as Hugging Face knows.
    name = "gelu_pytorch_tanh" if values["hidden_act"] == "gelu" else values["hidden_act"]
    other = values["hidden_activation"]
    if other is not None and hf_reading.activation(other) != hf_reading.activation(name):
        raise InputError(
            "config.json: hidden_act and hidden_activation must agree, found "
            f"{values['hidden_act']!r} and {other!r}."
        )
    return _gemma_like(values, activation=hf_reading.activation(name))


def _gemma23(values: Values, sliding: list[bool], **differs: Any) -> Config:
    """Read what Gemma 2 and 3 have in common; `sliding`: whether a layer has a window."""
    windows = hf_reading.read_windows(values["layer_types"], sliding, values["sliding_window"])
    return _gemma_like(
        values,
        activation=hf_reading.activation(values["hidden_activation"]),
        norm_place="both",
        attention_scale=values["query_pre_attn_scalar"] ** -0.5,
        windows=windows,
        logit_cap=float(values["final_logit_softcapping"] or 0),
        **differs,
    )


def _gemma2_config(values: Values) -> Config:
    sliding = [i % 2 == 0 for i in range(values["num_hidden_layers"])]
    cap = float(values["attn_logit_softcapping"] or 0)
    return _gemma23(values, sliding, attention_cap=cap)


def _gemma3_config(values: Values) -> Config:
    every = values["sliding_window_pattern"]
    sliding = [(i + 1) % every != 0 for i in range(values["num_hidden_layers"])]
    rope, local_rope = (
        rotary.read(found, values["head_dim"], values["max_position_embeddings"])
        for found in _gemma3_rotary(values)
    )
    config = _gemma23(values, sliding, qk_norm=True, rope=rope, local_rope=local_rope)
    if not config.windows:
        return dataclasses.replace(config, local_rope=None)
    return dataclasses.replace(
        config, max_length=rotary.exact_length(local_rope, config.max_length)
    )


def _gemma3_rotary(values: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two sets of rotary settings: of layers that see all, and of those with a window.

    transformers 4 wrote them as keys, and scaled the first alone.
    """
    both = values["rope_parameters"] or {}
    kinds = ("full_attention", "sliding_attention")
    wrong = {name: x for name, x in both.items() if name not in kinds or not _mapping_or_null(x)}
    for name, found in wrong.items():
        raise InputError(
            f"config.json: rope_parameters must hold an object for each of {' and '.join(kinds)}, "
            f"found {keys.shown(name)}: {keys.shown(found)}."
        )
    whole, local = (dict(both.get(kind) or {}) for kind in kinds)
    whole |= values["rope_scaling"] or {}
    for settings, key, default in (
        (whole, "rope_theta", 1_000_000.0),
        (local, "rope_local_base_freq", 10_000.0),
    ):
        settings.setdefault("rope_theta", default if values[key] is None else values[key])
        if values["partial_rotary_factor"] is not None:
            settings.setdefault("partial_rotary_factor", values["partial_rotary_factor"])
    return whole, local


def _mapping_or_null(x: Any) -> bool:
    return x is None or isinstance(x, dict)


def _gemma3_of_images_config(values: Values) -> Config:
    """Gemma 3 of 4B and more is published with a vision tower, which text does not pass."""
    text = FAMILIES["gemma3_text"].config_from_hf(
        values["text_config"], source="config.json: text_config"
    )
    tied = values["tie_word_embeddings"]
    return text if tied is None else dataclasses.replace(text, tied_embeddings=bool(tied))


_PHI3_KEYS = keys.family(
    EVERY
    | {
        "max_position_embeddings": Key(keys.COUNT, 4096),
        "original_max_position_embeddings": Key(keys.integer(2), 4096),
        "rms_norm_eps": Key(keys.SMALL, 1e-5),
        "pad_token_id": Key(optional(keys.TOKEN), 32_000),
        "sliding_window": Key(WINDOW, None),
        "lm_head_bias": keys.only(False),
        "full_attn_mod": keys.only(1),
        "interpolate_factor": keys.only(1),
    },
    INERT,
)


def _phi3_config(values: Values) -> Config:
    settings = rotary.settings(values)
    # "yarn" is what the first files called it.
    for name in ("rope_type", "type"):
        if settings.get(name) == "yarn":
            settings[name] = "longrope"
    head_size, max_length = head_sizes(values)["head_size"], values["max_position_embeddings"]
    rope = rotary.read(settings, head_size, max_length, whole=False)
    sliding = [True] * values["num_hidden_layers"]
    windows = hf_reading.read_windows(None, sliding, values["sliding_window"])
    return llama_like(values, rope=rope, windows=windows)


LLAMA_ATTENTION = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
}
_LLAMA_MLP = {"mlp_gate": "mlp.gate_proj", "mlp_in": "mlp.up_proj"}
_LLAMA_OUTPUTS = {"attention_out": "self_attn.o_proj", "mlp_out": "mlp.down_proj"}


def llama_tensors(
    config: Config,
    inputs: hf_reading.Modules = LLAMA_ATTENTION | _LLAMA_MLP,
    outputs: hf_reading.Modules = _LLAMA_OUTPUTS,
) -> dict[str, Tensor]:
    """Name the tensors.

    Args:
      config: of the network.
      inputs: maps that sublayers begin with, which Phi-3 fuses.
      outputs: maps that they end with.
    """
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if config.norm_place == "both":
        norms |= {
            "attention_post_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        }
    elif config.norm_place == "outputs":
        norms = {
            "attention_post_norm": "post_attention_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        }
    blocks = {**norms, **inputs, **outputs}
    outside = {"words": "embed_tokens", "final_norm": "norm", "head": "lm_head"}
    return hf_reading.name_tensors(outside, "layers.{layer}.", blocks)


def _phi3_tensors(config: Config) -> dict[str, Tensor]:
    q, kv = (n * config.head_size for n in (config.num_heads, config.num_kv_heads))
    F = config.mlp_size
    return llama_tensors(
        config,
        hf_reading.fused_in_a_row("self_attn.qkv_proj", query=q, key=kv, value=kv)
        | hf_reading.fused_in_a_row("mlp.gate_up_proj", mlp_gate=F, mlp_in=F),
    )


# A buffer that older checkpoints hold.
_ROTARY_BUFFER = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"


def family(declared: keys.Keys, configure, tensors=llama_tensors, **differs: Any) -> Family:
    """Return a family of `decoder.Network`, with names as LLaMA's; see `base.Family`.

    Args:
      declared: the keys of config.json.
      configure: reads their values.
      tensors: names the tensors.
      differs: other fields of the family.
    """
    return Family(
        **{
            "network": Network,
            "keys": declared,
            "configure": configure,
            "tensors": tensors,
            "ignored": hf_reading.unused(_ROTARY_BUFFER),
            "prefixes": ("model.", "transformer."),
            "copies": hf_reading.copies("lm_head", "embed_tokens"),
            "head": "lm_head.weight",
            "written": hf_reading.written("model.", "lm_head"),
        }
        | differs
    )


FAMILIES = {
    "llama": family(_LLAMA_KEYS, _llama_config),
    "mistral": family(_MISTRAL_KEYS, _mistral_config),
    "qwen2": family(keys.family(_QWEN2_KEYS, INERT), _qwen2_config),
    "qwen3": family(keys.family(_QWEN3_KEYS, INERT), _qwen3_config),
    "gemma": family(keys.family(_GEMMA_KEYS, INERT), _gemma_config),
    # transformers reads hidden_activation and sliding_window; published files also hold the other
    # names.
    "gemma2": family(
        keys.family(_GEMMA2_KEYS, f"{INERT} hidden_act sliding_window_size"), _gemma2_config
    ),
    # transformers has never applied the cap of Gemma 3's attention, nor were its weights trained
    # with one.
    "gemma3_text": family(
        keys.family(_GEMMA3_KEYS, f"{INERT} hidden_act attn_logit_softcapping"), _gemma3_config
    ),
    "gemma3": family(
        keys.family(
            _GEMMA3_IMAGES_KEYS,
            "boi_token_id boi_token_index eoi_token_id eoi_token_index image_token_id"
            " image_token_index initializer_range mm_tokens_per_image vision_config",
        ),
        _gemma3_of_images_config,
        ignored=hf_reading.unused(r"(vision_tower|multi_modal_projector)\..*"),
        text_alone="gemma3_text",
        prefixes=(
            "language_model.model.",
            "model.language_model.",
            "language_model.",
            "model.",
        ),
    ),
    "phi3": family(_PHI3_KEYS, _phi3_config, _phi3_tensors),
}
