"""DistilBERT, ALBERT, ELECTRA and XLM: their configurations and tensors."""

from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys
from jaxalign.models.families.base import Family
from jaxalign.models.families.encoder import Config, Network
from jaxalign.models.families.keys import Key, optional

Values = dict[str, Any]  # of the keys of config.json

_COMMON = {
    "vocab_size": Key(keys.COUNT),
    "max_position_embeddings": Key(keys.COUNT, 512),
    "initializer_range": Key(keys.DEVIATION, 0.02),
    "pad_token_id": Key(optional(keys.TOKEN), 0),
}
_SIZES = _COMMON | {
    "hidden_size": Key(keys.COUNT),
    "num_hidden_layers": Key(keys.LAYERS),
    "num_attention_heads": Key(keys.COUNT),
    "intermediate_size": Key(keys.COUNT),
    "embedding_size": Key(keys.COUNT, 128),
    "type_vocab_size": Key(keys.COUNT, 2),
    "layer_norm_eps": Key(keys.SMALL, 1e-12),
    "position_embedding_type": keys.only("absolute"),
}


def _bert_like(values: Values, **differs: Any) -> Config:
    """Read what these families have in common with BERT.

    Args:
      values: of the keys of config.json.
      differs: what is called otherwise, or done in another way.
    """
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads:
        raise InputError(
            f"config.json: the number of attention heads must divide the width {width}, "
            f"found {heads}."
        )
    return Config(
        vocab_size=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        width=width,
        num_heads=heads,
        mlp_size=values["intermediate_size"],
        max_length=values["max_position_embeddings"],
        first_position=0,
        padding_token=hf_reading.padding_token(values),
        init_sd=values["initializer_range"],
        **differs,
    )


def _are_sinusoids(asked: bool, width: int) -> bool:
    if asked and width % 2:
        raise InputError(f"config.json: the width must be even, for sines, found {width}.")
    return asked


_DISTILBERT_KEYS = keys.family(
    _COMMON
    | {
        "dim": Key(keys.COUNT, names=("hidden_size",)),
        "n_layers": Key(keys.LAYERS, names=("num_hidden_layers",)),
        "n_heads": Key(keys.COUNT, names=("num_attention_heads",)),
        "hidden_dim": Key(keys.COUNT, 3072),
        "activation": Key(hf_reading.ACTIVATION, "gelu"),
        "sinusoidal_pos_embds": Key(keys.FLAG, False),
    },
    "qa_dropout seq_classif_dropout tie_weights_ tie_word_embeddings",
)


def _distilbert_config(values: Values) -> Config:
    names = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
    }
    names["intermediate_size"] = "hidden_dim"
    return _bert_like(
        values | {name: values[own] for name, own in names.items()},
        num_segments=0,
        norm_eps=1e-12,  # not in the configuration
        activation=hf_reading.activation(values["activation"]),
        sinusoids=_are_sinusoids(values["sinusoidal_pos_embds"], values["dim"]),
    )


_EMBEDDINGS = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "norm": "embeddings.LayerNorm",
}
_SEGMENTS = {"segments": "embeddings.token_type_embeddings"}
_DISTILBERT_TENSORS = hf_reading.name_tensors(
    _EMBEDDINGS,
    "transformer.layer.{layer}.",
    {
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_out": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "mlp_in": "ffn.lin1",
        "mlp_out": "ffn.lin2",
        "mlp_norm": "output_layer_norm",
    },
)

_ALBERT_KEYS = keys.family(
    _SIZES
    | {
        "hidden_act": Key(hf_reading.ACTIVATION, "gelu_new"),
        "num_hidden_groups": Key(keys.COUNT, 1),
        "inner_group_num": keys.only(1),
    },
    "classifier_dropout_prob down_scale_factor gap_size net_structure_type num_memory_blocks"
    " tie_word_embeddings",
)


def _albert_config(values: Values) -> Config:
    groups, num_layers = values["num_hidden_groups"], values["num_hidden_layers"]
    if num_layers % groups:
        raise InputError(
            f"config.json: num_hidden_groups must divide num_hidden_layers {num_layers}, "
            f"found {groups}."
        )
    return _bert_like(
        values,
        num_segments=values["type_vocab_size"],
        norm_eps=values["layer_norm_eps"],
        activation=hf_reading.activation(values["hidden_act"]),
        embed_width=values["embedding_size"],
        num_groups=groups,
    )


_ALBERT_TENSORS = hf_reading.name_tensors(
    _EMBEDDINGS | _SEGMENTS | {"project_in": "encoder.embedding_hidden_mapping_in"},
    "encoder.albert_layer_groups.{layer}.albert_layers.0.",
    {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "attention_out": "attention.dense",
        "attention_norm": "attention.LayerNorm",
        "mlp_in": "ffn",
        "mlp_out": "ffn_output",
        "mlp_norm": "full_layer_layer_norm",
    },
)

_ELECTRA_KEYS = keys.family(
    _SIZES | {"hidden_act": Key(hf_reading.ACTIVATION, "gelu"), "is_decoder": keys.only(False)},
    "embedding_dropout summary_activation summary_last_dropout summary_type summary_use_proj"
    " tie_word_embeddings",
)


def _electra_config(values: Values) -> Config:
    embed_width = values["embedding_size"]
    return _bert_like(
        values,
        num_segments=values["type_vocab_size"],
        norm_eps=values["layer_norm_eps"],
        activation=hf_reading.activation(values["hidden_act"]),
        embed_width=0 if embed_width == values["hidden_size"] else embed_width,
    )


_ELECTRA_TENSORS = hf_reading.name_tensors(
    _EMBEDDINGS | _SEGMENTS | {"project_in": "embeddings_project"},
    "encoder.layer.{layer}.",
    {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "mlp_in": "intermediate.dense",
        "mlp_out": "output.dense",
        "mlp_norm": "output.LayerNorm",
    },
)


_XLM_KEYS = keys.family(
    {
        "vocab_size": Key(keys.COUNT, names=("n_words",)),
        "emb_dim": Key(keys.COUNT, names=("hidden_size",)),
        "n_layers": Key(keys.LAYERS, names=("num_hidden_layers",)),
        "n_heads": Key(keys.COUNT, names=("num_attention_heads",)),
        "max_position_embeddings": Key(keys.COUNT, 512),
        "pad_token_id": Key(optional(keys.TOKEN), 2, names=("pad_index",)),
        "gelu_activation": Key(keys.FLAG, True),
        "layer_norm_eps": Key(keys.SMALL, 1e-12),
        "init_std": Key(keys.DEVIATION, 0.02),
        "embed_init_std": Key(keys.number(0, 1000, above=True), 2048**-0.5),
        "sinusoidal_embeddings": Key(keys.FLAG, False),
        "causal": keys.only(False),
        "is_encoder": keys.only(True),
    },
    # A text is read without the vector of its language, as transformers reads it if none is given.
    "asm bos_index end_n_top eos_index id2lang initializer_range lang2id lang_id mask_index n_langs"
    " start_n_top summary_activation summary_first_dropout summary_proj_to_labels summary_type"
    " summary_use_proj tie_word_embeddings unk_index use_lang_emb",
)


def _xlm_config(values: Values) -> Config:
    usual = {
        "hidden_size": values["emb_dim"],
        "num_hidden_layers": values["n_layers"],
        "num_attention_heads": values["n_heads"],
        "intermediate_size": 4 * values["emb_dim"],
        "initializer_range": values["init_std"],
    }
    return _bert_like(
        values | usual,
        num_segments=0,
        norm_eps=values["layer_norm_eps"],
        activation="gelu" if values["gelu_activation"] else "relu",
        embed_init_sd=values["embed_init_std"],
        sinusoids=_are_sinusoids(values["sinusoidal_embeddings"], values["emb_dim"]),
    )


_XLM_TENSORS = hf_reading.name_tensors(
    {"words": "embeddings", "positions": "position_embeddings", "norm": "layer_norm_emb"},
    "",
    {
        "query": "attentions.{layer}.q_lin",
        "key": "attentions.{layer}.k_lin",
        "value": "attentions.{layer}.v_lin",
        "attention_out": "attentions.{layer}.out_lin",
        "attention_norm": "layer_norm1.{layer}",
        "mlp_in": "ffns.{layer}.lin1",
        "mlp_out": "ffns.{layer}.lin2",
        "mlp_norm": "layer_norm2.{layer}",
    },
)


def _family(declared: keys.Keys, configure, tensors, prefix: str, *heads: str) -> Family:
    return Family(
        network=Network,
        keys=declared,
        configure=configure,
        tensors=lambda config: tensors,
        ignored=hf_reading.unused(r"embeddings\.(position_ids|token_type_ids)", *heads),
        prefixes=(prefix,),
        old_ends={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    )


FAMILIES = {
    "distilbert": _family(
        _DISTILBERT_KEYS,
        _distilbert_config,
        _DISTILBERT_TENSORS,
        "distilbert.",
        r"(vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier)\..*",
    ),
    "albert": _family(
        _ALBERT_KEYS,
        _albert_config,
        _ALBERT_TENSORS,
        "albert.",
        r"pooler\.(weight|bias)",
        r"(predictions|sop_classifier)\..*",
    ),
    "electra": _family(
        _ELECTRA_KEYS,
        _electra_config,
        _ELECTRA_TENSORS,
        "electra.",
        r"(discriminator|generator)_predictions\..*",
        r"generator_lm_head\..*",
    ),
    "xlm": _family(
        _XLM_KEYS,
        _xlm_config,
        _XLM_TENSORS,
        "transformer.",
        "position_ids",
        r"(lang_embeddings|pred_layer|sequence_summary)\..*",
    ),
}
