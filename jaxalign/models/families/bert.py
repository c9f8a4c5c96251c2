"""BERT and RoBERTa: their configurations and tensors.

They differ in where positions begin (RoBERTa leaves the rows up to its padding token free, so that
514 rows hold 512 positions) and in the names of their checkpoints.
"""

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading
from jaxalign.models.families.base import Family
from jaxalign.models.families.encoder import Config, Network


def config_from_hf(hf: dict) -> Config:
    """Read a Hugging Face `config.json` of model_type bert or roberta.

    Raises:
      InputError: if it asks for a variant that is not built here.
    """
    hf_reading.require(hf, hidden_act="gelu", position_embedding_type="absolute", is_decoder=False)
    if hf["hidden_size"] % hf["num_attention_heads"]:
        raise InputError(
            f"config.json: num_attention_heads must divide hidden_size {hf['hidden_size']}, "
            f"found {hf['num_attention_heads']}."
        )
    roberta = hf["model_type"] == "roberta"
    padding = hf.get("pad_token_id", 1 if roberta else 0)
    if roberta and padding is None:
        raise InputError("config.json: pad_token_id must be set: RoBERTa's positions begin at it.")
    first_position = padding + 1 if roberta else 0
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        width=hf["hidden_size"],
        num_heads=hf["num_attention_heads"],
        mlp_size=hf["intermediate_size"],
        max_length=hf["max_position_embeddings"] - first_position,
        first_position=first_position,
        # What a configuration leaves out is what transformers sets for both.
        num_segments=hf.get("type_vocab_size", 2),
        padding_token=-1 if padding is None else padding,
        norm_eps=hf.get("layer_norm_eps", 1e-12),
        init_sd=hf.get("initializer_range", 0.02),
    )


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
_IGNORED = (
    r"embeddings\.(position_ids|token_type_ids)",
    r"pooler\.dense\.(weight|bias)",
    r"(cls|lm_head|classifier)\..*",
)


_FAMILY = Family(
    network=Network,
    config_from_hf=config_from_hf,
    tensors=lambda config: _TENSORS,
    ignored=lambda config: _IGNORED,
    prefixes=("bert.", "roberta."),
    # As TensorFlow calls them: bert-base-uncased, and whatever was converted then.
    old_ends={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
)
FAMILIES = {"bert": _FAMILY, "roberta": _FAMILY}
