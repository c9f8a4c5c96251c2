"""GPT (the first one), GPT-Neo, GPT-BigCode, CTRL: their configurations and tensors."""

import math
from typing import Any

from jaxalign.checks import Rule
from jaxalign.errors import InputError
from jaxalign.models.families import gpt, hf_reading, keys
from jaxalign.models.families.decoder import Config
from jaxalign.models.families.gpt import Values
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.weights import Tensor

_POSITIONS = Key(keys.COUNT, names=("n_positions",))
_COMMON = {
    "layer_norm_epsilon": Key(keys.SMALL, 1e-5),
    "initializer_range": Key(keys.DEVIATION, 0.02),
    "tie_word_embeddings": Key(keys.FLAG, True),
}

# What this family calls "gelu" is the one with tanh.
_GPT1_ACTIVATIONS = {"relu": "relu", "silu": "silu", "swish": "silu", "gelu": "gelu_tanh"}
_GPT1_KEYS = keys.family(
    gpt.SIZES
    | _COMMON
    | {
        "max_position_embeddings": _POSITIONS._replace(default=512),
        "afn": Key(keys.one_of(_GPT1_ACTIVATIONS), "gelu"),
        # transformers draws the maps with it, whatever else stands here.
        "initializer_range": keys.only(0.02),
    },
    gpt.INERT,
)


def _gpt1_config(values: Values) -> Config:
    return gpt.gpt_like(
        values,
        mlp_size=4 * values["hidden_size"],
        max_length=values["max_position_embeddings"],
        norm_eps=values["layer_norm_epsilon"],
        norm_place="after",
        final_norm=False,
        learned_positions=True,
        activation=_GPT1_ACTIVATIONS[values["afn"]],
        init_sd=0.02,
    )


def _gpt1_tensors(config: Config) -> dict[str, Tensor]:
    D = config.width
    blocks = {
        **hf_reading.fused_in_a_row("attn.c_attn", query=D, key=D, value=D),
        "attention_out": "attn.c_proj",
        "attention_norm": "ln_1",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
        "mlp_norm": "ln_2",
    }
    outside = {"words": "tokens_embed", "positions": "positions_embed", "head": "lm_head"}
    return hf_reading.name_tensors(outside, "h.{layer}.", blocks, conv1d=True)


_KINDS = ("global", "local")


def _is_layout(x: Any) -> bool:
    """Return whether layers are named as GPT-Neo does: [[["global", "local"], 12]]."""
    pair = lambda y: isinstance(y, list) and len(y) == 2 and type(y[1]) is int
    names = lambda y: isinstance(y, list) and all(z in _KINDS for z in y if isinstance(z, str))
    return isinstance(x, list) and all(
        pair(y) and 0 <= y[1] <= 10_000 and names(y[0]) and all(isinstance(z, str) for z in y[0])
        for y in x
    )


_GPT_NEO_KEYS = keys.family(
    {
        "vocab_size": Key(keys.COUNT),
        "hidden_size": Key(keys.COUNT),
        "num_layers": Key(keys.LAYERS, names=("num_hidden_layers",)),
        "num_heads": Key(keys.COUNT, names=("num_attention_heads",)),
        "max_position_embeddings": Key(keys.COUNT, 2048),
        "intermediate_size": Key(optional(keys.COUNT), None),
        "activation_function": Key(hf_reading.ACTIVATION, "gelu_new"),
        "attention_types": Key(
            Rule(f"be pairs of a list of {' and '.join(_KINDS)} and how often", _is_layout),
            [[["global", "local"], 12]],
        ),
        # The same again, layer by layer.
        "attention_layers": Key(optional(keys.NAMES), None),
        "window_size": Key(keys.COUNT, 256),
    }
    | _COMMON,
    f"{gpt.INERT} resid_dropout embed_dropout",
)


def _gpt_neo_config(values: Values) -> Config:
    width, num_layers = values["hidden_size"], values["num_layers"]
    kinds = [kind for names, times in values["attention_types"] for kind in names * times]
    if len(kinds) != num_layers or values["attention_layers"] not in (None, kinds):
        raise InputError(
            f"config.json: attention_types must name all {num_layers} layers, and as "
            f"attention_layers does where that is set: found {len(kinds)}."
        )
    sizes = {"num_hidden_layers": num_layers, "num_attention_heads": values["num_heads"]}
    sliding = [kind == "local" for kind in kinds]
    return gpt.gpt_like(
        values | sizes,
        mlp_size=values["intermediate_size"] or 4 * width,
        max_length=values["max_position_embeddings"],
        norm_eps=values["layer_norm_epsilon"],
        learned_positions=True,
        windows=hf_reading.read_windows(None, sliding, values["window_size"]),
        attention_scale=1.0,
        qkv_bias=False,
        activation=hf_reading.activation(values["activation_function"]),
        init_sd=values["initializer_range"],
    )


def _gpt_neo_tensors(config: Config) -> dict[str, Tensor]:
    del config
    blocks = {
        "attention_norm": "ln_1",
        "query": "attn.attention.q_proj",
        "key": "attn.attention.k_proj",
        "value": "attn.attention.v_proj",
        "attention_out": "attn.attention.out_proj",
        "mlp_norm": "ln_2",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    }
    outside = {"words": "wte", "positions": "wpe", "final_norm": "ln_f", "head": "lm_head"}
    return hf_reading.name_tensors(outside, "h.{layer}.", blocks)


_BIGCODE_KEYS = keys.family(
    gpt.SIZES
    | _COMMON
    | {
        "max_position_embeddings": _POSITIONS._replace(default=1024),
        "n_inner": Key(optional(keys.COUNT), None),
        "activation_function": Key(hf_reading.ACTIVATION, "gelu_pytorch_tanh"),
        "scale_attn_weights": Key(keys.FLAG, True),
        "multi_query": Key(keys.FLAG, True),
    },
    f"{gpt.INERT} attention_softmax_in_fp32 scale_attention_softmax_in_fp32 inference_runner"
    " max_batch_size max_sequence_length num_key_value_heads pre_allocate_kv_cache"
    " validate_runner_input",
)


def _bigcode_config(values: Values) -> Config:
    width, heads, sd = (
        values[x] for x in ("hidden_size", "num_attention_heads", "initializer_range")
    )
    return gpt.gpt_like(
        values,
        num_kv_heads=1 if values["multi_query"] else heads,
        mlp_size=values["n_inner"] or 4 * width,
        max_length=values["max_position_embeddings"],
        norm_eps=values["layer_norm_epsilon"],
        learned_positions=True,
        attention_scale=0.0 if values["scale_attn_weights"] else 1.0,
        activation=hf_reading.activation(values["activation_function"]),
        init_sd=sd,
        residual_init_sd=sd / math.sqrt(2 * values["num_hidden_layers"]),
    )


def _bigcode_tensors(config: Config) -> dict[str, Tensor]:
    blocks = {
        "attention_norm": "ln_1",
        **hf_reading.fused_by_head(config, "attn.c_attn"),
        "attention_out": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    }
    outside = {"words": "wte", "positions": "wpe", "final_norm": "ln_f", "head": "lm_head"}
    return hf_reading.name_tensors(outside, "h.{layer}.", blocks)


_CTRL_KEYS = keys.family(
    gpt.SIZES
    | _COMMON
    | {
        "max_position_embeddings": _POSITIONS._replace(default=256),
        "dff": Key(keys.COUNT, 8192),
        # Of the norms in blocks it is fixed, so that no other can be meant.
        "layer_norm_epsilon": keys.only(1e-6),
    },
    f"{gpt.INERT} from_tf",
)


def _ctrl_config(values: Values) -> Config:
    width = values["hidden_size"]
    if width % 2:
        raise InputError(f"config.json: n_embd must be even, for sines and cosines, found {width}.")
    return gpt.gpt_like(
        values,
        mlp_size=values["dff"],
        max_length=values["max_position_embeddings"],
        norm_eps=1e-6,
        embed_scale=math.sqrt(width),
        sinusoids=True,
        activation="relu",
        head_bias=True,
        init_sd=values["initializer_range"],
    )


def _ctrl_tensors(config: Config) -> dict[str, Tensor]:
    del config
    blocks = {
        "attention_norm": "layernorm1",
        "query": "multi_head_attention.Wq",
        "key": "multi_head_attention.Wk",
        "value": "multi_head_attention.Wv",
        "attention_out": "multi_head_attention.dense",
        "mlp_norm": "layernorm2",
        "mlp_in": "ffn.0",
        "mlp_out": "ffn.2",
    }
    outside = {"words": "w", "final_norm": "layernorm", "head": "lm_head", "head_bias": "lm_head"}
    return hf_reading.name_tensors(outside, "h.{layer}.", blocks)


FAMILIES = {
    "openai-gpt": gpt.causal_family(
        _GPT1_KEYS,
        _gpt1_config,
        _gpt1_tensors,
        "transformer.",
        gpt.MASK_BUFFERS,
        "position_ids",
        words="tokens_embed",
    ),
    "gpt_neo": gpt.causal_family(
        _GPT_NEO_KEYS,
        _gpt_neo_config,
        _gpt_neo_tensors,
        "transformer.",
        r"h\.\d+\.attn\.attention\.(bias|masked_bias)",
        words="wte",
    ),
    "gpt_bigcode": gpt.causal_family(
        _BIGCODE_KEYS,
        _bigcode_config,
        _bigcode_tensors,
        "transformer.",
        gpt.MASK_BUFFERS,
        "bias",
        words="wte",
    ),
    "ctrl": gpt.causal_family(
        _CTRL_KEYS, _ctrl_config, _ctrl_tensors, "transformer.", "pos_encoding", words="w"
    ),
}
