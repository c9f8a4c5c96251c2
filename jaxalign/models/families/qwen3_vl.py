"""Qwen3-VL: the tower of Qwen-VL with a table of positions, mergers, and Qwen3 with places.

The rotary positions of the language model have the axes of Qwen2-VL, which take turns among the
pairs. States of some blocks of the tower are merged as the last ones are, and what becomes of them
is added to the image's tokens behind the first blocks of the language model; as in transformers,
the states that are kept of these blocks are those before.

Source: Qwen Team (2025), arXiv 2511.21631; transformers 5.24, `modeling_qwen3_vl.py`.
"""

import dataclasses
import math
from typing import Any

from jaxalign.checks import Rule
from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys, llama, multimodal, qwen_tower, qwen_vl
from jaxalign.models.families.keys import Key, optional

Values = dict[str, Any]  # of the keys of config.json

_DESIGN = "qwen3_vl"
_QWEN3 = llama.FAMILIES["qwen3"]
_DEFAULTS = {  # of transformers
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 128_000,
    "rope_theta": 500_000.0,
}
_SECTIONS = (24, 20, 20)
_KEYS = {
    "text_config": Key(keys.MAPPING),
    "vision_config": Key(keys.MAPPING),
    "image_token_id": Key(keys.TOKEN, 151_655, names=("image_token_index",)),
    "tie_word_embeddings": Key(optional(keys.FLAG), None),
}
_BLOCKS = Rule(
    "be a list of blocks in ascending order, at least one",
    lambda x: (
        isinstance(x, list | tuple)
        and all(type(y) is int and y >= 0 for y in x)
        and len(x) > 0
        and list(x) == sorted(set(x))
    ),
)
_TOWER = keys.family(
    {
        "depth": Key(keys.LAYERS, 27, names=("num_hidden_layers",)),
        "hidden_size": Key(keys.COUNT, 1152),
        "hidden_act": Key(hf_reading.ACTIVATION, "gelu_pytorch_tanh"),
        "intermediate_size": Key(keys.COUNT, 4304),
        "num_heads": Key(keys.COUNT, 16, names=("num_attention_heads",)),
        "in_channels": Key(keys.COUNT, 3),
        "patch_size": Key(keys.COUNT, 16),
        "spatial_merge_size": Key(keys.COUNT, 2),
        "temporal_patch_size": Key(keys.COUNT, 2),
        "out_hidden_size": Key(keys.COUNT, 3584),
        "num_position_embeddings": Key(keys.COUNT, 2304),
        "deepstack_visual_indexes": Key(_BLOCKS, (8, 16, 24)),
        "initializer_range": Key(keys.DEVIATION, 0.02),
        "rope_parameters": Key(optional(keys.MAPPING), None),
    }
)


def _language(values: Values) -> Any:
    found = _DEFAULTS | {k: x for k, x in values["text_config"].items() if x is not None}
    if values["tie_word_embeddings"] is not None:
        found["tie_word_embeddings"] = values["tie_word_embeddings"]
    rope = qwen_vl.rotary_settings(found)
    if rope.get("mrope_interleaved") is False:
        raise InputError("config.json: mrope_interleaved must be true of Qwen3-VL, found false.")
    sections = rope.get("mrope_section") or _SECTIONS
    config = _QWEN3.config_from_hf(found, source="config.json: text_config")
    pairs = config.rope.size // 2
    qwen_vl.check_sections(sections, pairs)
    axes = [0] * pairs
    for axis in (1, 2):
        for pair in range(axis, min(3 * sections[axis], pairs), 3):
            axes[pair] = axis
    return dataclasses.replace(config, rope=dataclasses.replace(config.rope, axes=tuple(axes)))


def _tower(values: Values) -> tuple[qwen_tower.Config, int]:
    """Return the tower, and the width of the vectors that its mergers make."""
    found = keys.read(
        _TOWER,
        values["vision_config"],
        source="config.json: vision_config",
        owner="the vision tower",
    )
    qwen_vl.check_tower(found, found["hidden_size"])
    side = math.isqrt(found["num_position_embeddings"])
    if side**2 != found["num_position_embeddings"]:
        raise InputError(
            "config.json: vision_config.num_position_embeddings must be a square, found "
            f"{found['num_position_embeddings']}."
        )
    deep = tuple(found["deepstack_visual_indexes"])
    if deep[-1] >= found["depth"]:
        raise InputError(
            "config.json: vision_config.deepstack_visual_indexes must be of the "
            f"{found['depth']} blocks of the vision tower, found {deep[-1]}."
        )
    config = qwen_tower.Config(
        num_layers=found["depth"],
        width=found["hidden_size"],
        num_heads=found["num_heads"],
        mlp_size=found["intermediate_size"],
        patch_size=found["patch_size"],
        frames=found["temporal_patch_size"],
        merge=found["spatial_merge_size"],
        num_channels=found["in_channels"],
        activation=hf_reading.activation(found["hidden_act"]),
        patch_bias=True,
        positions=side,
        deep_blocks=deep,
        init_sd=found["initializer_range"],
    )
    return config, found["out_hidden_size"]


def _config(values: Values) -> multimodal.Config:
    vision, outputs = _tower(values)
    language, num = _language(values), len(vision.deep_blocks)
    if outputs != language.width:
        raise InputError(
            "config.json: the vision tower must make vectors of the language model's width "
            f"{language.width}, found {outputs}."
        )
    if num > language.num_layers:
        raise InputError(
            "config.json: vision_config.deepstack_visual_indexes must be at most as many as the "
            f"language model has blocks, {language.num_layers}: found {num}."
        )
    return multimodal.Config(
        design=(_DESIGN, _DESIGN, "qwen3"),
        vision=vision,
        connector=qwen_tower.MergerConfig(
            width=vision.width,
            merged=vision.merge**2,
            outputs=outputs,
            rms=False,
            num_deep=num,
            init_sd=vision.init_sd,
        ),
        language=language,
        image_token=values["image_token_id"],
        num_image_tokens=0,  # as many as an image's size has
        has_places=True,
        num_added=num,
    )


_PARTS = {"norm": "norm", "first": "linear_fc1", "second": "linear_fc2"}
_MERGERS = {
    f"{ours}{part}": f"visual.{theirs}{name}"
    for ours, theirs in (("", "merger."), ("deep/", "deepstack_merger_list.{layer}."))
    for part, name in _PARTS.items()
}
FAMILIES = {
    _DESIGN: qwen_vl.family(
        keys.family(_KEYS, f"{qwen_vl.INERT} {' '.join(_QWEN3.keys.inert)}"), _config, _MERGERS
    )._replace(
        # As the published files have it.
        written=lambda config: {
            "language_model.lm_head.": "lm_head.",
            "language_model.": "model.language_model.",
            "visual.": "model.visual.",
        }
    )
}
