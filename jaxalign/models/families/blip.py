"""BLIP-2 and InstructBLIP: the EVA tower, a Q-Former, and OPT, LLaMA (Vicuna) or Flan-T5."""

import dataclasses
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys, multimodal
from jaxalign.models.families.base import Family
from jaxalign.models.families.connectors import QFormerConfig
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.weights import Tensor

Values = dict[str, Any]  # of the keys of config.json

_VISION, _LANGUAGE = "vision_model.", "language_model."
_BEGINNINGS = {"language_model.model.": _LANGUAGE}

_QFORMER_KEYS = {
    "vocab_size": Key(keys.COUNT, 30_522),
    "hidden_size": Key(keys.COUNT, 768),
    "num_hidden_layers": Key(keys.LAYERS, 12),
    "num_attention_heads": Key(keys.COUNT, 12),
    "intermediate_size": Key(keys.COUNT, 3072),
    "hidden_act": Key(hf_reading.ACTIVATION, "gelu"),
    "max_position_embeddings": Key(keys.COUNT, 512),
    "initializer_range": Key(keys.DEVIATION, 0.02),
    "layer_norm_eps": Key(keys.SMALL, 1e-12),
    "pad_token_id": Key(optional(keys.TOKEN), 0),
    "cross_attention_frequency": Key(keys.COUNT, 2),
    "encoder_hidden_size": Key(keys.COUNT, 1408),
    "position_embedding_type": keys.only("absolute"),
    # Read by another head, which compares images with texts.
    "use_qformer_text_input": keys.only(False),
    "is_decoder": keys.only(False),
}
_QFORMER = keys.family(_QFORMER_KEYS, "classifier_dropout")
_KEYS = {
    "text_config": Key(keys.MAPPING),
    "vision_config": Key(keys.MAPPING),
    "qformer_config": Key(keys.MAPPING),
    "num_query_tokens": Key(keys.COUNT, 32),
    "tie_word_embeddings": Key(optional(keys.FLAG), None),
    # Older files have none, and the image's vectors stand before the text.
    "image_token_index": Key(optional(keys.TOKEN), None, names=("image_token_id",)),
}
# The two keys of initialisation are those of parts that have their own.
_INERT = """
initializer_range use_decoder_only_language_model image_text_hidden_size
"""


def _qformer(values: Values, vision: Any, language: Any, *, reads_text: bool) -> QFormerConfig:
    found = keys.read(
        _QFORMER,
        values["qformer_config"],
        source="config.json: qformer_config",
        owner="a Q-Former",
    )
    layers, every = found["num_hidden_layers"], found["cross_attention_frequency"]
    width, heads = found["hidden_size"], found["num_attention_heads"]
    if layers % every or width % heads:
        raise InputError(
            "config.json: qformer_config must have layers in whole groups of "
            "cross_attention_frequency, and heads that divide hidden_size: found "
            f"{layers} and {every}, {heads} and {width}."
        )
    # transformers overwrites encoder_hidden_size with the tower's width.
    text = {}
    if reads_text:
        text = {
            "vocab_size": found["vocab_size"],
            "max_length": found["max_position_embeddings"],
            "padding_token": hf_reading.padding_token(found),
        }
    return QFormerConfig(
        num_queries=values["num_query_tokens"],
        num_layers=layers,
        width=width,
        num_heads=heads,
        mlp_size=found["intermediate_size"],
        memory_width=vision.width,
        cross_every=every,
        outputs=language.width,
        norm_eps=found["layer_norm_eps"],
        activation=hf_reading.activation(found["hidden_act"]),
        init_sd=found["initializer_range"],
        **text,
    )


def _config(values: Values, design: str, tower: str, *, reads_text: bool) -> multimodal.Config:
    tower, vision = multimodal.read_tower(values, tower)
    kind, language = multimodal.read_language(values)
    if values["tie_word_embeddings"]:
        language = dataclasses.replace(language, tied_embeddings=True)
    token = values["image_token_index"]
    return multimodal.Config(
        design=(design, tower, kind),
        vision=vision,
        connector=_qformer(values, vision, language, reads_text=reads_text),
        language=language,
        image_token=-1 if token is None else token,
        num_image_tokens=values["num_query_tokens"],
    )


def _connector_tensors(config: QFormerConfig) -> dict[str, Tensor]:
    layer = "qformer.encoder.layer.{layer}."
    maps = {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "out": "output.dense",
        "norm": "output.LayerNorm",
    }
    mlp = {"inner": "intermediate{}.dense", "outer": "output{}.dense", "norm": "output{}.LayerNorm"}
    named = {f"blocks/attention/{x}": f"{layer}attention.{name}" for x, name in maps.items()}
    named |= {f"blocks/query_mlp/{x}": layer + name.format("_query") for x, name in mlp.items()}
    named |= {f"blocks/text_mlp/{x}": layer + name.format("") for x, name in mlp.items()}
    named |= {f"crosses/{x}": f"{layer}crossattention.{name}" for x, name in maps.items()}
    named["project"] = "language_projection"
    named["norm"] = "qformer.embeddings.layernorm" if config.reads_text else "qformer.layernorm"
    every = config.cross_every
    return {
        path: tensor._replace(every=every) if path.startswith("crosses/") else tensor
        for path, tensor in multimodal.projection_tensors(named).items()
    } | {
        "queries": Tensor("query_tokens"),
        "words/table": Tensor("qformer.embeddings.word_embeddings.weight"),
        "positions/table": Tensor("qformer.embeddings.position_embeddings.weight"),
    }


def _ignored(config: multimodal.Config) -> tuple[str, ...]:
    buffers = r"qformer\.embeddings\.position_ids"
    return multimodal.part_ignored(
        config, buffers, vision=r"vision_model\.", language=r"language_model\."
    )


def _family(design: str, tower: str, *, reads_text: bool) -> Family:
    return Family(
        network=multimodal.Network,
        keys=keys.family(_KEYS, _INERT),
        configure=lambda values: _config(values, design, tower, reads_text=reads_text),
        tensors=lambda config: multimodal.part_tensors(
            config, _connector_tensors(config.connector), vision=_VISION, language=_LANGUAGE
        ),
        ignored=_ignored,
        old_beginnings=_BEGINNINGS,
        copies=lambda config: multimodal.part_copies(config, language=_LANGUAGE),
        head="language_model.lm_head.weight",
        written=lambda config: multimodal.part_written(config, language=_LANGUAGE),
    )


FAMILIES = {
    "blip-2": _family("blip-2", "blip_2_vision_model", reads_text=False),
    "instructblip": _family("instructblip", "instructblip_vision_model", reads_text=True),
}
