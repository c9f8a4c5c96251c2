"""BERT, and RoBERTa, XLM-RoBERTa and CamemBERT: their configurations and tensors.

They differ in where positions begin (RoBERTa leaves the rows up to its padding token free, so that
514 rows hold 512 positions) and in the names of their checkpoints.
"""

from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys
from jaxalign.models.families.base import Family
from jaxalign.models.families.encoder import Config, Network
from jaxalign.models.families.keys import Key, optional

# What a configuration leaves out is what transformers sets for both.
_KEYS = {
    "vocab_size": Key(keys.COUNT),
    "hidden_size": Key(keys.COUNT),
    "num_hidden_layers": Key(keys.LAYERS),
    "num_attention_heads": Key(keys.COUNT),
    "intermediate_size": Key(keys.COUNT),
    "max_position_embeddings": Key(keys.COUNT),
    "type_vocab_size": Key(keys.COUNT, 2),
    "hidden_act": Key(hf_reading.ACTIVATION, "gelu"),
    "layer_norm_eps": Key(keys.SMALL, 1e-12),
    "initializer_range": Key(keys.DEVIATION, 0.02),
    "pad_token_id": Key(optional(keys.TOKEN), 0),
    "position_embedding_type": keys.only("absolute"),
    "is_decoder": keys.only(False),
}
# Heads for other tasks, and the pooler of the first multilingual files.
_INERT = """
tie_word_embeddings directionality
pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
"""


def _bert_config(values: dict[str, Any], *, first_position: int = 0) -> Config:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads:
        raise InputError(
            f"config.json: num_attention_heads must divide hidden_size {width}, found {heads}."
        )
    padding = hf_reading.padding_token(values)
    return Config(
        vocab_size=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        width=width,
        num_heads=heads,
        mlp_size=values["intermediate_size"],
        max_length=values["max_position_embeddings"] - first_position,
        first_position=first_position,
        num_segments=values["type_vocab_size"],
        padding_token=padding,
        norm_eps=values["layer_norm_eps"],
        init_sd=values["initializer_range"],
        activation=hf_reading.activation(values["hidden_act"]),
    )


def _roberta_config(values: dict[str, Any]) -> Config:
    padding, rows = values["pad_token_id"], values["max_position_embeddings"]
    if padding is None or not 0 <= padding < min(values["vocab_size"], rows - 1):
        raise InputError(
            "config.json: pad_token_id must be set to a token before the last position, since "
            f"RoBERTa's positions begin at it, found {padding!r} of {rows}."
        )
    return _bert_config(values, first_position=padding + 1)


_TENSORS = hf_reading.name_tensors(
    {
        "words": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "segments": "embeddings.token_type_embeddings",
        "norm": "embeddings.LayerNorm",
    },
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
# Buffers, and heads on top of the last layer, which no activation passes through.
_IGNORED = hf_reading.unused(
    r"embeddings\.(position_ids|token_type_ids)",
    r"pooler\.dense\.(weight|bias)",
    r"(cls|lm_head)\..*",
)


def _family(keys_of_family, configure) -> Family:
    return Family(
        network=Network,
        keys=keys.family(keys_of_family, _INERT),
        configure=configure,
        tensors=lambda config: _TENSORS,
        ignored=_IGNORED,
        prefixes=("bert.", "roberta."),
        # As TensorFlow calls them: bert-base-uncased, and whatever was converted then.
        old_ends={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    )


_roberta = _family(_KEYS | {"pad_token_id": Key(optional(keys.TOKEN), 1)}, _roberta_config)
FAMILIES = {
    "bert": _family(_KEYS, _bert_config),
    "roberta": _roberta,
    # RoBERTa with other texts and tokens.
    "xlm-roberta": _roberta,
    "camembert": _roberta,
}
