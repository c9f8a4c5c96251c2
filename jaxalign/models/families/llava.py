"""LLaVA-1.5 and PaliGemma: a vision tower whose patches are projected, each to a token."""

import dataclasses
import functools
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys, multimodal
from jaxalign.models.families.base import Family
from jaxalign.models.families.connectors import ProjectionConfig
from jaxalign.models.families.keys import Key, optional

Values = dict[str, Any]  # of the keys of config.json

_VISION, _LANGUAGE = "vision_tower.", "language_model."
# transformers 4 and 5 write the names of parts in other ways than the published files.
_BEGINNINGS = {
    "model.language_model.": _LANGUAGE,
    "language_model.model.": _LANGUAGE,
    "lm_head.": "language_model.lm_head.",
    "model.vision_tower.vision_model.": _VISION,
    "model.vision_tower.": _VISION,
    "vision_tower.vision_model.": _VISION,
    "model.multi_modal_projector.": "multi_modal_projector.",
}
_EVERY = {
    "text_config": Key(keys.MAPPING),
    "vision_config": Key(keys.MAPPING),
    "tie_word_embeddings": Key(optional(keys.FLAG), None),
}


def _language(values: Values, *, known: str = "") -> tuple[str, Any]:
    """Read the language model; a file may tie its embeddings in either place."""
    kind, config = multimodal.read_language(values, known=known)
    if values["tie_word_embeddings"]:
        config = dataclasses.replace(config, tied_embeddings=True)
    return kind, config


def _ignored(config: multimodal.Config) -> tuple[str, ...]:
    """Leave unread what comes after the layer of the tower that is used: its layers and norm."""
    unused = [r"vision_tower\.head\..*"]
    if not config.vision.final_norm:
        unused.append(r"vision_tower\.post_layernorm\..*")
    return multimodal.part_ignored(
        config, *unused, vision=r"vision_tower\.", language=r"language_model\."
    )


def _family(declared: dict[str, Key], inert: str, configure, connector) -> Family:
    return Family(
        network=multimodal.Network,
        keys=keys.family(_EVERY | declared, inert),
        configure=configure,
        tensors=lambda config: multimodal.part_tensors(
            config,
            multimodal.projection_tensors(connector),
            vision=_VISION,
            language=_LANGUAGE,
        ),
        ignored=_ignored,
        old_beginnings=_BEGINNINGS,
        copies=lambda config: multimodal.part_copies(config, language=_LANGUAGE),
        head="language_model.lm_head.weight",
        written=lambda config: multimodal.part_written(config, language=_LANGUAGE),
    )


# LLaVA.

_LLAVA_KEYS = {
    "image_token_index": Key(keys.TOKEN, 32_000, names=("image_token_id",)),
    "projector_hidden_act": Key(hf_reading.ACTIVATION, "gelu"),
    "vision_feature_select_strategy": Key(keys.one_of(("default", "full")), "default"),
    "vision_feature_layer": Key(keys.integer(-10_000, 10_000), -2),
    "multimodal_projector_bias": Key(keys.FLAG, True),
    "image_seq_length": Key(optional(keys.COUNT), None),
}


def _llava_config(values: Values) -> multimodal.Config:
    read = functools.partial(multimodal.read_tower, values, "clip_vision_model")
    tower, vision = read(layer=values["vision_feature_layer"])
    num_unused = read()[1].num_layers - vision.num_layers
    # The states are those between two blocks, which no norm has passed.
    vision = dataclasses.replace(vision, final_norm=False)
    kind, language = _language(values)
    default = values["vision_feature_select_strategy"] == "default"
    if default and vision.num_prefix != 1:
        raise InputError(
            "config.json: vision_feature_select_strategy must be 'full' where the vision tower has "
            "no CLS token, found 'default'."
        )
    return multimodal.Config(
        design=("llava", tower, kind),
        vision=vision,
        connector=ProjectionConfig(
            inputs=vision.width,
            outputs=language.width,
            depth=2,
            activation=hf_reading.activation(values["projector_hidden_act"]),
            bias=values["multimodal_projector_bias"],
            init_sd=language.init_sd,
        ),
        language=language,
        image_token=values["image_token_index"],
        num_image_tokens=_num_tokens(values["image_seq_length"], vision, default),
        without_cls=default,
        num_unused_layers=num_unused,
    )


def _num_tokens(given: int | None, vision: Any, without_cls: bool) -> int:
    """Return how many tokens an image has, which a file may say too."""
    found = vision.max_length - without_cls
    if given not in (None, found):
        raise InputError(
            f"config.json: image_seq_length must be the {found} states of the vision tower, found "
            f"{given}."
        )
    return found


# PaliGemma.

_PALIGEMMA_KEYS = {
    "image_token_index": Key(keys.TOKEN, 256_000, names=("image_token_id",)),
    "projection_dim": Key(optional(keys.COUNT), None),
}


def _paligemma_config(values: Values) -> multimodal.Config:
    known = "projection_dim projector_hidden_act num_image_tokens num_positions"
    tower, vision = multimodal.read_tower(values, "siglip_vision_model", known=known)
    # transformers 5 writes what it does to prompts, and older files nothing.
    if values["text_config"].get("use_bidirectional_attention") not in (None, True):
        raise InputError(
            "config.json: text_config.use_bidirectional_attention must be true of PaliGemma, whose "
            "prompts are read in both directions."
        )
    kind, language = _language(values, known="num_image_tokens use_bidirectional_attention")
    given = values["projection_dim"]
    if given not in (None, language.width):
        raise InputError(
            f"config.json: projection_dim must be the language model's width {language.width}, "
            f"found {given}."
        )
    return multimodal.Config(
        design=("paligemma", tower, kind),
        vision=vision,
        connector=ProjectionConfig(
            inputs=vision.width, outputs=language.width, init_sd=language.init_sd
        ),
        language=language,
        image_token=values["image_token_index"],
        num_image_tokens=vision.max_length,
        prompt_together=True,
    )


FAMILIES = {
    "llava": _family(
        _LLAVA_KEYS,
        "ignore_index vocab_size pretraining_tp",
        _llava_config,
        {
            "first": "multi_modal_projector.linear_1",
            "second": "multi_modal_projector.linear_2",
        },
    ),
    "paligemma": _family(
        _PALIGEMMA_KEYS,
        "ignore_index hidden_size vocab_size",
        _paligemma_config,
        {"first": "multi_modal_projector.linear"},
    ),
}
