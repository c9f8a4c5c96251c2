"""GPT-2, OPT, GPT-NeoX and Pythia, GPT-J, BLOOM: their configurations and tensors."""

import math
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading
from jaxalign.models.families.base import Family
from jaxalign.models.families.decoder import Config, Network
from jaxalign.models.families.layers import Rope
from jaxalign.models.weights import Tensor

# Names of sizes in files of GPT-2, GPT-J and BLOOM, and those of other families, also found there.
_OLDER_NAMES = (
    ("n_embd", "hidden_size"),
    ("n_embed", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_positions", "max_position_embeddings"),
)


def _with_newer_names(hf: dict) -> dict:
    return hf | {new: hf[old] for old, new in _OLDER_NAMES if hf.get(old) is not None}


def _gpt_like(hf: dict, **differs: Any) -> Config:
    """Read what these families have in common: layer norms, biases, and an MLP without a gate.

    Args:
      hf: content of config.json.
      differs: what the family does in another way.
    """
    width, heads = hf["hidden_size"], hf["num_attention_heads"]
    common = {
        "mlp_size": hf.get("n_inner") or 4 * width,
        "norm_eps": hf.get("layer_norm_epsilon", 1e-5),
        "tied_embeddings": hf.get("tie_word_embeddings", True),
        "norm": "layer",
        "qkv_bias": True,
        "attention_out_bias": True,
        "gated": False,
        "mlp_bias": True,
        "init_sd": hf.get("initializer_range", 0.02),
    }
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        width=width,
        **hf_reading.read_head_sizes(width, heads, heads),
        **(common | differs),
    )


def _gpt2_config(hf: dict) -> Config:
    hf_reading.require(
        hf,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    hf = _with_newer_names(hf)
    residual_sd = hf.get("initializer_range", 0.02) / math.sqrt(2 * hf["num_hidden_layers"])
    return _gpt_like(
        hf,
        max_length=hf["max_position_embeddings"],
        learned_positions=True,
        activation=hf_reading.read_activation(hf, "activation_function", "gelu_new"),
        residual_init_sd=residual_sd,
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


def _opt_config(hf: dict) -> Config:
    hf_reading.require(hf, enable_bias=True, layer_norm_elementwise_affine=True)
    width = hf["hidden_size"]
    embed_width = hf.get("word_embed_proj_dim") or width
    before = hf.get("do_layer_norm_before", True)
    return _gpt_like(
        hf,
        mlp_size=hf["ffn_dim"],
        max_length=hf.get("max_position_embeddings", 2048),
        norm_eps=1e-5,  # not in the configuration
        embed_width=0 if embed_width == width else embed_width,
        learned_positions=True,
        position_offset=2,
        norm_place="before" if before else "after",
        # Checkpoints of before transformers 4.20 ran without it.
        final_norm=before and not hf.get("_remove_final_layer_norm", False),
        activation=hf_reading.read_activation(hf, "activation_function", "relu"),
        init_sd=hf.get("init_std", 0.02),
        padding_token=hf_reading.read_padding_token(hf, 1),
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


def _neox_config(hf: dict) -> Config:
    hf_reading.require(hf, attention_bias=True)
    width, heads = hf["hidden_size"], hf["num_attention_heads"]
    head_size = hf_reading.read_head_sizes(width, heads, heads)["head_size"]
    max_length = hf.get("max_position_embeddings", 2048)
    settings = hf_reading.rope_settings(hf)
    share = settings.get("partial_rotary_factor", hf.get("rotary_pct", 0.25))
    theta = hf.get("rotary_emb_base", 10_000.0)
    rope = hf_reading.read_rope(settings, int(head_size * share), max_length, theta)
    return _gpt_like(
        hf,
        mlp_size=hf["intermediate_size"],
        max_length=hf_reading.exact_length(rope, max_length),
        norm_eps=hf.get("layer_norm_eps", 1e-5),
        tied_embeddings=hf.get("tie_word_embeddings", False),
        rope=rope,
        activation=hf_reading.read_activation(hf, "hidden_act", "gelu"),
        parallel=hf.get("use_parallel_residual", True),
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


def _gptj_config(hf: dict) -> Config:
    hf = _with_newer_names(hf)
    size = hf.get("rotary_dim", 64)
    if not size:
        raise InputError(f"config.json: rotary_dim must be a number, found {size!r}.")
    return _gpt_like(
        hf,
        max_length=hf["max_position_embeddings"],
        tied_embeddings=hf.get("tie_word_embeddings", False),
        rope=Rope(size=size, interleaved=True),
        qkv_bias=False,
        attention_out_bias=False,
        activation=hf_reading.read_activation(hf, "activation_function", "gelu_new"),
        parallel=True,
        shared_norm=True,
        head_bias=True,
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
    return hf_reading.name_tensors(outside, "h.{layer}.", blocks)


def _bloom_config(hf: dict) -> Config:
    hf_reading.require(hf, apply_residual_connection_post_layernorm=False)
    hf = _with_newer_names(hf)
    return _gpt_like(
        hf,
        mlp_size=4 * hf["hidden_size"],
        max_length=hf.get("seq_length", 2048),  # of training: ALiBi has no table that ends
        embed_norm=True,
        alibi=True,
        activation="gelu_tanh",
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


_MASK_BUFFERS = r"h\.\d+\.attn\.(bias|masked_bias)"
_NEOX_BUFFERS = r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"


def _family(config_from_hf, tensors, prefix: str, *buffers: str, head: str = "lm_head") -> Family:
    ignored = hf_reading.unused(*buffers, head=head)
    return Family(Network, config_from_hf, tensors, ignored, (prefix,))


FAMILIES = {
    "gpt2": _family(_gpt2_config, _gpt2_tensors, "transformer.", _MASK_BUFFERS),
    "opt": _family(_opt_config, _opt_tensors, "model.", r"decoder\.version"),
    "gpt_neox": _family(_neox_config, _neox_tensors, "gpt_neox.", _NEOX_BUFFERS, head="embed_out"),
    "gptj": _family(_gptj_config, _gptj_tensors, "transformer.", _MASK_BUFFERS),
    "bloom": _family(_bloom_config, _bloom_tensors, "transformer."),
}
