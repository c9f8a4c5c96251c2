"""GPT-2, OPT, GPT-NeoX and Pythia, GPT-J, BLOOM: their configurations and tensors."""

import math
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys, rotary
from jaxalign.models.families.base import Family
from jaxalign.models.families.decoder import Config, Network
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.families.layers import Rope
from jaxalign.models.weights import Tensor

Values = dict[str, Any]  # of the keys of config.json

SIZES = {
    "vocab_size": Key(keys.COUNT),
    "hidden_size": Key(keys.COUNT, names=("n_embd",)),
    "num_hidden_layers": Key(keys.LAYERS, names=("n_layer",)),
    "num_attention_heads": Key(keys.COUNT, names=("n_head",)),
}
_ROW = Key(keys.COUNT, names=("n_positions",))
_SD = Key(keys.DEVIATION, 0.02)
# Heads for other tasks; n_inner is what these families read, and shapes of tensors are checked.
INERT = """
is_decoder n_ctx intermediate_size n_special predict_special_tokens
summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
"""


def gpt_like(values: Values, **differs: Any) -> Config:
    """Read what these families have in common: layer norms, biases, and an MLP without a gate.

    Args:
      values: of the keys of config.json.
      differs: what the family does in another way.
    """
    width, heads = values["hidden_size"], values["num_attention_heads"]
    common = {
        "norm": "layer",
        "qkv_bias": True,
        "attention_out_bias": True,
        "gated": False,
        "mlp_bias": True,
    }
    return Config(
        vocab_size=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        width=width,
        tied_embeddings=values["tie_word_embeddings"],
        **(hf_reading.read_head_sizes(width, heads, heads) | common | differs),
    )


_GPT2_KEYS = keys.family(
    SIZES
    | {
        "max_position_embeddings": _ROW,
        "n_inner": Key(optional(keys.COUNT), None),
        "activation_function": Key(hf_reading.ACTIVATION, "gelu_new"),
        "layer_norm_epsilon": Key(keys.SMALL, 1e-5),
        "initializer_range": _SD,
        "scale_attn_weights": Key(keys.FLAG, True),
        "scale_attn_by_inverse_layer_idx": Key(keys.FLAG, False),
        "tie_word_embeddings": Key(keys.FLAG, True),
    },
    # Logits of attention are in float32 here, as reorder_and_upcast_attn wants them.
    f"{INERT} reorder_and_upcast_attn",
)


def _gpt2_config(values: Values) -> Config:
    sd = values["initializer_range"]
    return gpt_like(
        values,
        mlp_size=values["n_inner"] or 4 * values["hidden_size"],
        max_length=values["max_position_embeddings"],
        norm_eps=values["layer_norm_epsilon"],
        learned_positions=True,
        activation=hf_reading.activation(values["activation_function"]),
        attention_scale=0.0 if values["scale_attn_weights"] else 1.0,
        scale_by_layer=values["scale_attn_by_inverse_layer_idx"],
        init_sd=sd,
        residual_init_sd=sd / math.sqrt(2 * values["num_hidden_layers"]),
    )


def _gpt2_tensors(config: Config) -> dict[str, Tensor]:
    D = config.width
    blocks = {
        "attention_norm": "ln_1",
        **hf_reading.fused_in_a_row("attn.c_attn", query=D, key=D, value=D),
        "attention_out": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    }
    outside = {"words": "wte", "positions": "wpe", "final_norm": "ln_f", "head": "lm_head"}
    return hf_reading.name_tensors(outside, "h.{layer}.", blocks, conv1d=True)


_OPT_KEYS = keys.family(
    {
        "vocab_size": Key(keys.COUNT),
        "hidden_size": Key(keys.COUNT),
        "num_hidden_layers": Key(keys.LAYERS),
        "num_attention_heads": Key(keys.COUNT),
        "ffn_dim": Key(keys.COUNT),
        "max_position_embeddings": Key(keys.COUNT, 2048),
        "word_embed_proj_dim": Key(optional(keys.COUNT), None),
        "do_layer_norm_before": Key(keys.FLAG, True),
        "_remove_final_layer_norm": Key(keys.FLAG, False),
        "activation_function": Key(hf_reading.ACTIVATION, "relu"),
        "enable_bias": Key(keys.FLAG, True),
        "layer_norm_elementwise_affine": Key(keys.FLAG, True),
        "init_std": _SD,
        "pad_token_id": Key(optional(keys.TOKEN), 1),
        "tie_word_embeddings": Key(keys.FLAG, True),
    },
    f"{INERT} activation_dropout",
)


def _opt_config(values: Values) -> Config:
    width = values["hidden_size"]
    embed_width = values["word_embed_proj_dim"] or width
    before, bias = values["do_layer_norm_before"], values["enable_bias"]
    return gpt_like(
        values,
        mlp_size=values["ffn_dim"],
        max_length=values["max_position_embeddings"],
        norm_eps=1e-5,  # not in the configuration
        norm_affine=values["layer_norm_elementwise_affine"],
        embed_width=0 if embed_width == width else embed_width,
        learned_positions=True,
        position_offset=2,
        norm_place="before" if before else "after",
        # Checkpoints of before transformers 4.20 ran without it.
        final_norm=before and not values["_remove_final_layer_norm"],
        qkv_bias=bias,
        attention_out_bias=bias,
        mlp_bias=bias,
        activation=hf_reading.activation(values["activation_function"]),
        init_sd=values["init_std"],
        padding_token=hf_reading.padding_token(values),
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
    return hf_reading.name_tensors(outside, "decoder.layers.{layer}.", blocks)


_NEOX_KEYS = keys.family(
    {
        "vocab_size": Key(keys.COUNT),
        "hidden_size": Key(keys.COUNT),
        "num_hidden_layers": Key(keys.LAYERS),
        "num_attention_heads": Key(keys.COUNT),
        "intermediate_size": Key(keys.COUNT),
        "max_position_embeddings": Key(keys.COUNT, 2048),
        "layer_norm_eps": Key(keys.SMALL, 1e-5),
        "hidden_act": Key(hf_reading.ACTIVATION, "gelu"),
        "use_parallel_residual": Key(keys.FLAG, True),
        "attention_bias": Key(keys.FLAG, True),
        "initializer_range": _SD,
        "tie_word_embeddings": Key(keys.FLAG, False),
        # The family's own names of two rotary settings; the usual ones follow in rotary.KEYS.
        "rotary_pct": Key(optional(rotary.SHARE), None),
        "rotary_emb_base": Key(optional(rotary.THETA), None),
    }
    | rotary.KEYS,
    "is_decoder",
)


def _neox_rotary(values: Values) -> dict[str, Any]:
    """Return rotary settings: transformers hears the family's own names, not the usual ones."""
    usual = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
    settings = rotary.settings(values | dict.fromkeys(usual))
    defaults = {"rope_theta": 10_000.0, "partial_rotary_factor": 0.25}
    for name, own in usual.items():
        alone = settings.get(name) is None and values[own] is None
        if alone and values[name] not in (None, defaults[name]):
            raise InputError(
                f"config.json: {name} must be called {own} in a gpt_neox, found {values[name]!r}."
            )
        settings.setdefault(name, defaults[name] if values[own] is None else values[own])
    return settings


def _neox_config(values: Values) -> Config:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    head_size = hf_reading.read_head_sizes(width, heads, heads)["head_size"]
    max_length = values["max_position_embeddings"]
    rope = rotary.read(_neox_rotary(values), head_size, max_length, whole=False)
    bias = values["attention_bias"]
    return gpt_like(
        values,
        mlp_size=values["intermediate_size"],
        max_length=rotary.exact_length(rope, max_length),
        norm_eps=values["layer_norm_eps"],
        rope=rope,
        qkv_bias=bias,
        attention_out_bias=bias,
        activation=hf_reading.activation(values["hidden_act"]),
        parallel=values["use_parallel_residual"],
        init_sd=values["initializer_range"],
    )


def _neox_tensors(config: Config) -> dict[str, Tensor]:
    blocks = {
        "attention_norm": "input_layernorm",
        **hf_reading.fused_by_head(config, "attention.query_key_value"),
        "attention_out": "attention.dense",
        "mlp_norm": "post_attention_layernorm",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    }
    outside = {"words": "embed_in", "final_norm": "final_layer_norm", "head": "embed_out"}
    return hf_reading.name_tensors(outside, "layers.{layer}.", blocks)


_GPTJ_KEYS = keys.family(
    SIZES
    | {
        "max_position_embeddings": _ROW,
        "rotary_dim": Key(keys.COUNT, 64),
        "rotary": keys.only(True),
        "n_inner": Key(optional(keys.COUNT), None),
        "activation_function": Key(hf_reading.ACTIVATION, "gelu_new"),
        "layer_norm_epsilon": Key(keys.SMALL, 1e-5),
        "initializer_range": _SD,
        "scale_attn_weights": keys.only(True),
        "tie_word_embeddings": Key(keys.FLAG, False),
    },
    INERT,
)


def _gptj_config(values: Values) -> Config:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    head_size = hf_reading.read_head_sizes(width, heads, heads)["head_size"]
    rotary.check_size(values["rotary_dim"], head_size)
    return gpt_like(
        values,
        mlp_size=values["n_inner"] or 4 * width,
        max_length=values["max_position_embeddings"],
        norm_eps=values["layer_norm_epsilon"],
        rope=Rope(size=values["rotary_dim"], interleaved=True),
        qkv_bias=False,
        attention_out_bias=False,
        activation=hf_reading.activation(values["activation_function"]),
        parallel=True,
        shared_norm=True,
        head_bias=True,
        init_sd=values["initializer_range"],
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
    outside = {"words": "wte", "final_norm": "ln_f", "head": "lm_head", "head_bias": "lm_head"}
    return hf_reading.name_tensors(outside, "h.{layer}.", blocks)


_BLOOM_KEYS = keys.family(
    SIZES
    | {
        "hidden_size": Key(keys.COUNT, names=("n_embed", "n_embd")),
        "n_inner": Key(optional(keys.COUNT), None),
        "seq_length": Key(keys.COUNT, 2048),  # of training: ALiBi has no table that ends
        "layer_norm_epsilon": Key(keys.SMALL, 1e-5),
        "apply_residual_connection_post_layernorm": Key(keys.FLAG, False),
        "slow_but_exact": Key(keys.FLAG, False),
        "pretraining_tp": Key(optional(keys.COUNT), 1),
        "initializer_range": _SD,
        "tie_word_embeddings": Key(keys.FLAG, True),
    },
    f"{INERT} attention_softmax_in_fp32 bias_dropout_fusion masked_softmax_fusion offset_alibi"
    " skip_bias_add skip_bias_add_qkv",
)


def _bloom_config(values: Values) -> Config:
    width = values["hidden_size"]
    if values["n_inner"] not in (None, 4 * width):
        raise InputError(
            f"config.json: n_inner must be {4 * width}, four times the width, as in every bloom, "
            f"found {values['n_inner']}."
        )
    if values["slow_but_exact"] and (values["pretraining_tp"] or 1) > 1:
        raise InputError(
            "config.json: slow_but_exact must be false where pretraining_tp is above 1, found "
            f"{values['pretraining_tp']}: transformers then leaves out two trained biases."
        )
    return gpt_like(
        values,
        mlp_size=4 * width,
        max_length=values["seq_length"],
        norm_eps=values["layer_norm_epsilon"],
        embed_norm=True,
        alibi=True,
        activation="gelu_tanh",
        residual_from_norm=values["apply_residual_connection_post_layernorm"],
        init_sd=values["initializer_range"],
    )


def _bloom_tensors(config: Config) -> dict[str, Tensor]:
    blocks = {
        "attention_norm": "input_layernorm",
        **hf_reading.fused_by_head(config, "self_attention.query_key_value"),
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
    return hf_reading.name_tensors(outside, "h.{layer}.", blocks)


MASK_BUFFERS = r"h\.\d+\.attn\.(bias|masked_bias)"
_NEOX_BUFFERS = r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"


def causal_family(
    declared: keys.Keys,
    configure: Any,
    tensors: Any,
    prefix: str,
    *buffers: str,
    words: str,
    head: str = "lm_head",
) -> Family:
    """Return a family of `decoder.Network`; see `base.Family`.

    Args:
      declared: the keys of config.json.
      configure: reads their values.
      tensors: names the tensors.
      prefix: of all names but the head's.
      buffers: patterns of what else a file may hold.
      words: the module of the embedding.
      head: the module that predicts tokens.
    """
    return Family(
        network=Network,
        keys=declared,
        configure=configure,
        tensors=tensors,
        ignored=hf_reading.unused(*buffers),
        prefixes=(prefix,),
        copies=hf_reading.copies(head, words),
        head=f"{head}.weight",
        written=hf_reading.written(prefix, head),
    )


FAMILIES = {
    "gpt2": causal_family(
        _GPT2_KEYS, _gpt2_config, _gpt2_tensors, "transformer.", MASK_BUFFERS, words="wte"
    ),
    "opt": causal_family(
        _OPT_KEYS,
        _opt_config,
        _opt_tensors,
        "model.",
        r"decoder\.version",
        words="decoder.embed_tokens",
    ),
    "gpt_neox": causal_family(
        _NEOX_KEYS,
        _neox_config,
        _neox_tensors,
        "gpt_neox.",
        _NEOX_BUFFERS,
        words="embed_in",
        head="embed_out",
    ),
    "gptj": causal_family(
        _GPTJ_KEYS, _gptj_config, _gptj_tensors, "transformer.", MASK_BUFFERS, words="wte"
    ),
    "bloom": causal_family(
        _BLOOM_KEYS, _bloom_config, _bloom_tensors, "transformer.", words="word_embeddings"
    ),
}
