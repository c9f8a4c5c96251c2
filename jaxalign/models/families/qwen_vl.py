"""Qwen2-VL and Qwen2.5-VL: a tower for images of any size, a merger, and Qwen2 with places.

The language model's rotary positions have three axes: an image's tokens are told by time, row and
column, words by the same number on all three. After an image words go on from the longer of its
sides, so that positions fall behind the number of tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from jaxalign.checks import Rule
from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys, llama, multimodal, qwen_tower
from jaxalign.models.families.base import Family
from jaxalign.models.families.keys import Key, optional

Values = dict[str, Any]  # of the keys of config.json

_VISION, _LANGUAGE = "visual.", "language_model."
_BEGINNINGS = {
    "model.visual.": _VISION,
    "model.language_model.": _LANGUAGE,
    "language_model.": _LANGUAGE,
    "visual.": _VISION,
    "lm_head.": "language_model.lm_head.",
    "model.": _LANGUAGE,  # of published files, where the language model is the whole
}
_QWEN2 = llama.FAMILIES["qwen2"]
_DEFAULTS = {  # of transformers; its defaults are those of the largest model
    "vocab_size": 152_064,
    "hidden_size": 8192,
    "intermediate_size": 29_568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1_000_000.0,
    "max_window_layers": 80,
}
_SECTIONS = (16, 24, 24)
_KEYS = {
    "text_config": Key(optional(keys.MAPPING), None),
    "vision_config": Key(optional(keys.MAPPING), None),
    "image_token_id": Key(keys.TOKEN, 151_655, names=("image_token_index",)),
    "tie_word_embeddings": Key(optional(keys.FLAG), None),
    # Published files write the keys of the language model at the top level.
    **{
        name: Key(optional(key.rule), None, key.names)
        for name, key in _QWEN2.keys.read.items()
        if name not in ("tie_word_embeddings", *keys.family({}).read)
    },
}
INERT = """
video_token_id vision_start_token_id vision_end_token_id vision_token_id video_token_index
"""
_TOWER_KEYS = {
    "depth": Key(keys.LAYERS, 32, names=("num_hidden_layers",)),
    "num_heads": Key(keys.COUNT, 16, names=("num_attention_heads",)),
    "in_channels": Key(keys.COUNT, 3, names=("in_chans",)),
    "patch_size": Key(keys.COUNT, 14, names=("spatial_patch_size",)),
    "spatial_merge_size": Key(keys.COUNT, 2),
    "temporal_patch_size": Key(keys.COUNT, 2),
    "initializer_range": Key(keys.DEVIATION, 0.02),
    "rope_parameters": Key(optional(keys.MAPPING), None),
}
_QWEN2_TOWER = keys.family(
    _TOWER_KEYS
    | {
        "embed_dim": Key(keys.COUNT, 1280),
        "hidden_size": Key(keys.COUNT, 3584),
        "hidden_act": Key(hf_reading.ACTIVATION, "quick_gelu"),
        "mlp_ratio": Key(keys.COUNT, 4),
    }
)
_QWEN25_TOWER = keys.family(
    _TOWER_KEYS
    | {
        "hidden_size": Key(keys.COUNT, 3584),
        "intermediate_size": Key(keys.COUNT, 3420),
        "out_hidden_size": Key(keys.COUNT, 3584),
        "hidden_act": Key(hf_reading.ACTIVATION, "silu"),
        "window_size": Key(keys.COUNT, 112),
        "fullatt_block_indexes": Key(
            Rule(
                "be a list of blocks",
                lambda x: isinstance(x, list | tuple) and all(type(y) is int for y in x),
            ),
            (7, 15, 23, 31),
        ),
    },
    "tokens_per_second",
)


def _language(values: Values) -> Any:
    found = values["text_config"]
    if found is None:
        own = set(_KEYS) - {"text_config", "vision_config", "image_token_id"}
        found = {name: values[name] for name in own if values[name] is not None}
    found = _DEFAULTS | {name: x for name, x in found.items() if x is not None}
    if values["tie_word_embeddings"] is not None:
        found["tie_word_embeddings"] = values["tie_word_embeddings"]
    rope = rotary_settings(found)
    sections = rope.pop("mrope_section", None) or _SECTIONS
    config = _QWEN2.config_from_hf(found, source="config.json: text_config")
    check_sections(sections, config.rope.size // 2)
    axes = tuple(axis for axis, count in enumerate(sections) for _ in range(count))
    return dataclasses.replace(config, rope=dataclasses.replace(config.rope, axes=axes))


def rotary_settings(found: Values) -> Values:
    """Take the rotary settings out of text_config, but for those that Qwen without images has.

    Args:
      found: text_config; it is changed.

    Returns:
      The settings of three axes.
    """
    rope = dict(found.pop("rope_scaling", None) or found.pop("rope_parameters", None) or {})
    found.pop("rope_parameters", None)
    taken = {x: rope.pop(x) for x in ("mrope_section", "mrope_interleaved") if x in rope}
    for name in ("type", "rope_type"):
        if rope.get(name) in ("mrope", "default"):
            rope.pop(name)
    if rope:
        found["rope_parameters"] = rope
    return taken


def check_sections(sections: Any, num_pairs: int) -> None:
    """Refuse numbers of pairs for the three axes that are not all pairs.

    Raises:
      InputError: naming them.
    """
    right = isinstance(sections, list | tuple) and len(sections) == 3
    if (
        not right
        or not all(type(x) is int and x > 0 for x in sections)
        or (sum(sections) != num_pairs)
    ):
        raise InputError(
            "config.json: mrope_section must be three numbers of pairs, "
            f"{num_pairs} together: found {keys.shown(sections)}."
        )


def check_tower(found: Values, width: int) -> None:
    """Refuse a tower whose places are told in another way.

    Args:
      found: values of the tower's keys.
      width: of its states.

    Raises:
      InputError: naming the key.
    """
    rope = found["rope_parameters"] or {}
    if rope.get("rope_theta", 10_000.0) != 10_000 or rope.get("rope_type", "axial") not in (
        "axial",
        "default",
    ):
        raise InputError(
            "config.json: vision_config.rope_parameters must be axial with a rope_theta of 10000, "
            f"found {keys.shown(rope)}."
        )
    if width % (4 * found["num_heads"]):
        raise InputError(
            f"config.json: vision_config: {found['num_heads']} heads must divide the width {width} "
            "into multiples of 4."
        )


def _tower(values: Values, *, rms: bool) -> tuple[qwen_tower.Config, int]:
    """Return the tower, and the width of the vectors that its merger makes."""
    given = values["vision_config"] or {}
    found = keys.read(
        _QWEN25_TOWER if rms else _QWEN2_TOWER,
        given,
        source="config.json: vision_config",
        owner="the vision tower",
    )
    width = found["hidden_size"] if rms else found["embed_dim"]
    check_tower(found, width)
    config = qwen_tower.Config(
        num_layers=found["depth"],
        width=width,
        num_heads=found["num_heads"],
        mlp_size=found["intermediate_size"] if rms else width * found["mlp_ratio"],
        patch_size=found["patch_size"],
        frames=found["temporal_patch_size"],
        merge=found["spatial_merge_size"],
        num_channels=found["in_channels"],
        activation=hf_reading.activation(found["hidden_act"]),
        rms=rms,
        window=found["window_size"] if rms else 0,
        whole_blocks=tuple(found["fullatt_block_indexes"]) if rms else (),
        init_sd=found["initializer_range"],
    )
    return config, found["out_hidden_size"] if rms else found["hidden_size"]


def _config(values: Values, *, design: str, rms: bool) -> multimodal.Config:
    vision, outputs = _tower(values, rms=rms)
    language = _language(values)
    if outputs != language.width:
        raise InputError(
            "config.json: the vision tower must make vectors of the language model's width "
            f"{language.width}, found {outputs}."
        )
    return multimodal.Config(
        design=(design, design, "qwen2"),
        vision=vision,
        connector=qwen_tower.MergerConfig(
            width=vision.width,
            merged=vision.merge**2,
            outputs=outputs,
            rms=rms,
            init_sd=vision.init_sd,
        ),
        language=language,
        image_token=values["image_token_id"],
        num_image_tokens=0,  # as many as an image's size has
        has_places=True,
    )


_MERGER = {
    "norm": "visual.merger.ln_q",
    "first": "visual.merger.mlp.0",
    "second": "visual.merger.mlp.2",
}


def family(
    declared: keys.Keys, configure: Callable[[Values], multimodal.Config], merger: dict[str, str]
) -> Family:
    """Return how checkpoints of a Qwen-VL are read.

    Args:
      declared: what config.json may hold.
      configure: the configuration, of the values of all keys that are read.
      merger: our modules of the merger -> theirs.
    """
    return Family(
        network=multimodal.Network,
        keys=declared,
        configure=configure,
        tensors=lambda config: multimodal.part_tensors(
            config,
            multimodal.projection_tensors(merger),
            vision=_VISION,
            language=_LANGUAGE,
        ),
        ignored=lambda config: multimodal.part_ignored(
            config, vision=r"visual\.", language=r"language_model\."
        ),
        old_beginnings=_BEGINNINGS,
        copies=lambda config: multimodal.part_copies(config, language=_LANGUAGE),
        head="language_model.lm_head.weight",
        # As the published files have it, where the language model is the whole.
        written=lambda config: {"language_model.lm_head.": "lm_head.", _LANGUAGE: "model."},
    )


_DECLARED = keys.family(_KEYS, f"{INERT} {' '.join(_QWEN2.keys.inert)}")
FAMILIES = {
    design: family(_DECLARED, functools.partial(_config, design=design, rms=rms), _MERGER)
    for design, rms in (("qwen2_vl", False), ("qwen2_5_vl", True))
}
