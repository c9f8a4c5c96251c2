"""Gemma 3 with images: SigLIP, squares of patches that become one token, and Gemma 3.

The tokens of an image see each other in both directions, words only those before them. What a file
of this kind holds without its vision tower is read by `llama`.

Source: Gemma Team (2025), arXiv 2503.19786; transformers 5.24, `modeling_gemma3.py`.
"""

import dataclasses
import math
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models import readers
from jaxalign.models.families import keys, multimodal
from jaxalign.models.families.base import Family
from jaxalign.models.families.connectors import PoolingConfig
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.weights import Tensor

Values = dict[str, Any]  # of the keys of config.json

_VISION, _CONNECTOR = "vision_tower.", "multi_modal_projector."
_TEXT = "gemma3_text"
_KEYS = {
    "text_config": Key(keys.MAPPING),
    "vision_config": Key(keys.MAPPING),
    "image_token_index": Key(keys.TOKEN, 262_144, names=("image_token_id",)),
    "mm_tokens_per_image": Key(keys.COUNT, 256),
    "tie_word_embeddings": Key(optional(keys.FLAG), None),
}
_INERT = "boi_token_id boi_token_index eoi_token_id eoi_token_index initializer_range"


def _config(values: Values) -> multimodal.Config:
    tower, vision = multimodal.read_tower(values, "siglip_vision_model")
    text = {"model_type": _TEXT} | values["text_config"]
    kind, language = multimodal.read_language({"text_config": text})
    if values["tie_word_embeddings"] is not None:
        language = dataclasses.replace(language, tied_embeddings=values["tie_word_embeddings"])
    num = values["mm_tokens_per_image"]
    rows, columns = vision.grid
    side = math.isqrt(num)
    if side**2 != num or rows != columns or rows % side:
        raise InputError(
            f"config.json: mm_tokens_per_image must be a square that divides the {rows}x{columns} "
            f"patches of an image into squares, found {num}."
        )
    return multimodal.Config(
        design=(readers.whole("gemma3"), tower, kind),
        vision=vision,
        connector=PoolingConfig(
            inputs=vision.width,
            outputs=language.width,
            group=rows // side,
            columns=columns,
            norm_eps=vision.norm_eps,
            init_sd=language.init_sd,
        ),
        language=language,
        image_token=values["image_token_index"],
        num_image_tokens=num,
        image_together=True,
    )


FAMILIES = {
    readers.whole("gemma3"): Family(
        network=multimodal.Network,
        keys=keys.family(_KEYS, _INERT),
        configure=_config,
        tensors=lambda config: multimodal.part_tensors(
            config,
            {
                "norm/scale": Tensor(f"{_CONNECTOR}mm_soft_emb_norm.weight"),
                "project/kernel": Tensor(f"{_CONNECTOR}mm_input_projection_weight"),
            },
            vision=_VISION,
            language="",
        ),
        ignored=lambda config: multimodal.part_ignored(
            config, r"vision_tower\.head\..*", vision=r"vision_tower\.", language=""
        ),
        # Names of the language model are those of Gemma 3 alone.
        prefixes=("language_model.model.", "model.language_model.", "language_model.", "model."),
        old_beginnings={"vision_tower.vision_model.": _VISION},
        copies=lambda config: multimodal.part_copies(config, language=""),
        head="lm_head.weight",
        written=lambda config: {
            _VISION: _VISION,
            _CONNECTOR: _CONNECTOR,
            "lm_head.": "language_model.lm_head.",
            "": "language_model.model.",
        },
    )
}
