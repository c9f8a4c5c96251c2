"""Falcon, MPT, Phi: their configurations and tensors."""

from jaxalign.errors import InputError
from jaxalign.models.families import gpt, hf_reading, keys, rotary
from jaxalign.models.families.decoder import Config
from jaxalign.models.families.gpt import Values
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.weights import Tensor

_COMMON = {
    "initializer_range": Key(keys.DEVIATION, 0.02),
    "tie_word_embeddings": Key(keys.FLAG, True),
}

_FALCON_KEYS = keys.family(
    {
        "vocab_size": Key(keys.COUNT),
        "hidden_size": Key(keys.COUNT, names=("n_embed",)),
        "num_hidden_layers": Key(keys.LAYERS),
        "num_attention_heads": Key(keys.COUNT),
        "num_kv_heads": Key(optional(keys.COUNT), None),
        "ffn_hidden_size": Key(optional(keys.COUNT), None),
        "num_ln_in_parallel_attn": Key(optional(keys.integer(1, 2)), None),
        "max_position_embeddings": Key(keys.COUNT, 2048),
        "layer_norm_epsilon": Key(keys.SMALL, 1e-5),
        "activation": Key(hf_reading.ACTIVATION, "gelu"),
        "alibi": Key(keys.FLAG, False),
        "new_decoder_architecture": Key(keys.FLAG, False),
        "multi_query": Key(keys.FLAG, True),
        "parallel_attn": Key(keys.FLAG, True),
        "bias": Key(keys.FLAG, False),
        "apply_residual_connection_post_layernorm": keys.only(False),
    }
    | _COMMON
    | rotary.KEYS,
    "is_decoder head_dim",
)


def _falcon_config(values: Values) -> Config:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    new, parallel = values["new_decoder_architecture"], values["parallel_attn"]
    num_norms = values["num_ln_in_parallel_attn"] or (2 if new else 1)
    if (new and not parallel) or (num_norms == 2 and not new):
        raise InputError(
            "config.json: parallel_attn must be true with new_decoder_architecture, and "
            f"num_ln_in_parallel_attn 1 without it: found {parallel} and {num_norms}."
        )
    kv_heads = values["num_kv_heads"] or heads
    if not new:
        kv_heads = 1 if values["multi_query"] else heads
    sizes = hf_reading.read_head_sizes(width, heads, kv_heads)
    max_length = values["max_position_embeddings"]
    places: Values = {"alibi": True, "alibi_scale": sizes["head_size"] ** -0.5}
    places["alibi_rounded"] = True
    if not values["alibi"]:
        rope = rotary.read(rotary.settings(values), sizes["head_size"], max_length)
        places, max_length = {"rope": rope}, rotary.exact_length(rope, max_length)
    bias = values["bias"]
    return gpt.gpt_like(
        values,
        num_kv_heads=kv_heads,
        mlp_size=values["ffn_hidden_size"] or 4 * width,
        max_length=max_length,
        norm_eps=values["layer_norm_epsilon"],
        qkv_bias=bias,
        attention_out_bias=bias,
        mlp_bias=bias,
        activation=hf_reading.activation(values["activation"]),
        parallel=parallel,
        shared_norm=parallel and num_norms == 1,
        init_sd=values["initializer_range"],
        **places,
    )


def _falcon_tensors(config: Config) -> dict[str, Tensor]:
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if config.parallel and not config.shared_norm:
        norms = {"attention_norm": "ln_attn", "mlp_norm": "ln_mlp"}
    blocks = {
        **norms,
        **hf_reading.fused_by_head(config, "self_attention.query_key_value"),
        "attention_out": "self_attention.dense",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    }
    outside = {"words": "word_embeddings", "final_norm": "ln_f", "head": "lm_head"}
    return hf_reading.name_tensors(outside, "h.{layer}.", blocks)


_MPT_KEYS = keys.family(
    {
        "vocab_size": Key(keys.COUNT),
        "hidden_size": Key(keys.COUNT, names=("d_model",)),
        "num_hidden_layers": Key(keys.LAYERS, names=("n_layers",)),
        "num_attention_heads": Key(keys.COUNT, names=("n_heads",)),
        "max_seq_len": Key(keys.COUNT, 2048),
        "layer_norm_epsilon": Key(keys.SMALL, 1e-5),
        "attn_config": Key(optional(keys.MAPPING), None),
        # transformers builds no other, whatever these keys say.
        "expansion_ratio": keys.only(4),
        "no_bias": keys.only(True),
        "logit_scale": keys.only(None),
    }
    | _COMMON,
    # The table of positions is not built where there is ALiBi, which is always.
    "learned_pos_emb emb_pdrop embedding_fraction ffn_config fc_type init_config init_device"
    " norm_type tokenizer_name verbose",
)
_MPT_ATTENTION_KEYS = keys.family(
    {
        "attn_type": keys.only("multihead_attention"),
        "clip_qkv": Key(optional(keys.number(0, 1e6)), None),
        "softmax_scale": Key(optional(keys.number(0, 1e6, above=True)), None),
        "prefix_lm": keys.only(False),
        "qk_ln": keys.only(False),
        "attn_uses_sequence_id": keys.only(False),
        "alibi": keys.only(True),
        # transformers knows slopes of 8 alone, the authors' code those of MPT-StoryWriter, 16, too.
        "alibi_bias_max": keys.only(8),
    },
    "attn_impl",
)


def _mpt_config(values: Values) -> Config:
    attention = keys.read(
        _MPT_ATTENTION_KEYS,
        values["attn_config"] or {},
        source="config.json: attn_config",
        owner="mpt",
    )
    return gpt.gpt_like(
        values,
        mlp_size=4 * values["hidden_size"],
        max_length=values["max_seq_len"],
        norm_eps=values["layer_norm_epsilon"],
        norm_bias=False,
        alibi=True,
        attention_scale=attention["softmax_scale"] or 0.0,
        qkv_clip=attention["clip_qkv"] or 0.0,
        qkv_bias=False,
        attention_out_bias=False,
        mlp_bias=False,
        activation="gelu",
        init_sd=values["initializer_range"],
    )


def _mpt_tensors(config: Config) -> dict[str, Tensor]:
    D = config.width
    blocks = {
        "attention_norm": "norm_1",
        **hf_reading.fused_in_a_row("attn.Wqkv", query=D, key=D, value=D),
        "attention_out": "attn.out_proj",
        "mlp_norm": "norm_2",
        "mlp_in": "ffn.up_proj",
        "mlp_out": "ffn.down_proj",
    }
    outside = {"words": "wte", "final_norm": "norm_f", "head": "lm_head"}
    return hf_reading.name_tensors(outside, "blocks.{layer}.", blocks)


_PHI_KEYS = keys.family(
    {
        "vocab_size": Key(keys.COUNT),
        "hidden_size": Key(keys.COUNT),
        "num_hidden_layers": Key(keys.LAYERS),
        "num_attention_heads": Key(keys.COUNT),
        "num_key_value_heads": Key(optional(keys.COUNT), None),
        "intermediate_size": Key(keys.COUNT),
        "max_position_embeddings": Key(keys.COUNT, 2048),
        "layer_norm_eps": Key(keys.SMALL, 1e-5),
        "hidden_act": Key(hf_reading.ACTIVATION, "gelu_new"),
        "qk_layernorm": Key(keys.FLAG, False),
        "pad_token_id": Key(optional(keys.TOKEN), None),
    }
    | _COMMON
    | {"tie_word_embeddings": Key(keys.FLAG, False)}
    | rotary.KEYS,
    "is_decoder",
)


def _phi_config(values: Values) -> Config:
    heads = values["num_attention_heads"]
    sizes = hf_reading.read_head_sizes(
        values["hidden_size"], heads, values["num_key_value_heads"] or heads
    )
    settings = {"partial_rotary_factor": 0.5} | rotary.settings(values)
    max_length = values["max_position_embeddings"]
    rope = rotary.read(settings, sizes["head_size"], max_length, whole=False)
    return gpt.gpt_like(
        values,
        num_kv_heads=sizes["num_kv_heads"],
        mlp_size=values["intermediate_size"],
        max_length=rotary.exact_length(rope, max_length),
        norm_eps=values["layer_norm_eps"],
        rope=rope,
        qk_norm=values["qk_layernorm"],
        activation=hf_reading.activation(values["hidden_act"]),
        parallel=True,
        shared_norm=True,
        head_bias=True,
        init_sd=values["initializer_range"],
        padding_token=hf_reading.padding_token(values),
    )


def _phi_tensors(config: Config) -> dict[str, Tensor]:
    del config
    blocks = {
        "attention_norm": "input_layernorm",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "query_norm": "self_attn.q_layernorm",
        "key_norm": "self_attn.k_layernorm",
        "attention_out": "self_attn.dense",
        "mlp_in": "mlp.fc1",
        "mlp_out": "mlp.fc2",
    }
    outside = {
        "words": "embed_tokens",
        "final_norm": "final_layernorm",
        "head": "lm_head",
        "head_bias": "lm_head",
    }
    return hf_reading.name_tensors(outside, "layers.{layer}.", blocks)


FAMILIES = {
    "falcon": gpt.causal_family(
        _FALCON_KEYS,
        _falcon_config,
        _falcon_tensors,
        "transformer.",
        r"h\.\d+\.self_attention\.rotary_emb\.inv_freq",
        words="word_embeddings",
    ),
    "mpt": gpt.causal_family(_MPT_KEYS, _mpt_config, _mpt_tensors, "transformer.", words="wte"),
    "phi": gpt.causal_family(
        _PHI_KEYS,
        _phi_config,
        _phi_tensors,
        "model.",
        r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
        words="embed_tokens",
    ),
}
