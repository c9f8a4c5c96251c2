"""SmolVLM: SigLIP's tower, groups of patches that become one token, and LLaMA.

One image is one square of the tower's size; the tiles that its processor can cut an image into are
as many images, which are not built.
"""

import dataclasses
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import keys, multimodal
from jaxalign.models.families.base import Family
from jaxalign.models.families.connectors import ProjectionConfig
from jaxalign.models.families.keys import Key, optional

Values = dict[str, Any]  # of the keys of config.json

_VISION, _LANGUAGE = "vision_model.", "text_model."
_KEYS = {
    "text_config": Key(keys.MAPPING),
    "vision_config": Key(keys.MAPPING),
    "image_token_id": Key(keys.TOKEN, 128_257),
    "scale_factor": Key(keys.COUNT, 2),
    "tie_word_embeddings": Key(optional(keys.FLAG), None),
}
# transformers' defaults, where they are not SigLIP's.
_TOWER = {
    "hidden_size": 1152,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 32,
}
# Of LLaMA with parts that the text model does not have.
_KNOWN = "perceiver_config qk_layer_norms use_resampler pixel_shuffle_factor"


def _config(values: Values) -> multimodal.Config:
    found = _TOWER | values["vision_config"] | {"model_type": "siglip_vision_model"}
    known = "size max_image_size tie_word_embeddings use_base_siglip"
    tower, vision = multimodal.read_tower(
        {"vision_config": found}, "siglip_vision_model", known=known
    )
    text = {"rms_norm_eps": 1e-5} | values["text_config"]
    kind, language = multimodal.read_language({"text_config": text}, known=_KNOWN)
    if values["tie_word_embeddings"]:
        language = dataclasses.replace(language, tied_embeddings=True)
    side = values["scale_factor"]
    rows, columns = vision.grid
    if rows % side or columns % side:
        raise InputError(
            f"config.json: scale_factor must divide the {rows}x{columns} patches of an image, "
            f"found {side}."
        )
    return multimodal.Config(
        design=("smolvlm", tower, kind),
        vision=vision,
        connector=ProjectionConfig(
            inputs=vision.width * side**2,
            outputs=language.width,
            bias=False,
            group=side,
            columns=columns,
            init_sd=language.init_sd,
        ),
        language=language,
        image_token=values["image_token_id"],
        num_image_tokens=rows * columns // side**2,
    )


FAMILIES = {
    "smolvlm": Family(
        network=multimodal.Network,
        keys=keys.family(_KEYS, "_pad_token_id image_token_index vocab_size"),
        configure=_config,
        tensors=lambda config: multimodal.part_tensors(
            config,
            multimodal.projection_tensors({"first": "connector.modality_projection.proj"}),
            vision=_VISION,
            language=_LANGUAGE,
        ),
        ignored=lambda config: multimodal.part_ignored(
            config, vision=r"vision_model\.", language=r"text_model\."
        ),
        prefixes=("model.",),
        old_beginnings={"lm_head.": "text_model.lm_head."},
        copies=lambda config: multimodal.part_copies(config, language=_LANGUAGE),
        head="text_model.lm_head.weight",
        written=lambda config: {"text_model.lm_head.": "lm_head.", "": "model."},
    )
}
