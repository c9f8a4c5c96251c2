"""CLIP and SigLIP, both towers of each, and the vision tower of BLIP-2: configurations, tensors.

A checkpoint of both towers is read as one of them (`tower`). Towers by themselves are families
too: that is how parts of larger models read theirs.
"""

import math
from collections.abc import Collection
from typing import Any

from flax import nnx

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys, text_towers, vision
from jaxalign.models.families.base import Family
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.families.text_towers import ClipTextConfig, SiglipTextConfig
from jaxalign.models.families.vit import linear, norm, patch_kernel, read_tower, tower_keys
from jaxalign.models.weights import Part, Tensor

Values = dict[str, Any]  # of the keys of config.json
Config = vision.Config | ClipTextConfig | SiglipTextConfig

_INERT = "initializer_factor logit_scale_init_value"


def _build(config: Config, *, dtype, rngs: nnx.Rngs) -> nnx.Module:
    """Make the network of either tower."""
    kinds = {
        vision.Config: vision.Network,
        ClipTextConfig: text_towers.ClipText,
        SiglipTextConfig: text_towers.SiglipText,
    }
    return kinds[type(config)](config, dtype=dtype, rngs=rngs)


# Tensors: blocks are named alike in all of them.

_BLOCK = "encoder.layers.{layer}."
_MAPS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_out": "self_attn.out_proj",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
}


def _blocks(prefix: str, maps: dict[str, str] = _MAPS) -> dict[str, Tensor]:
    found = {}
    for ours, theirs in maps.items():
        found |= linear(f"blocks/{ours}", f"{prefix}{_BLOCK}{theirs}")
    for ours, theirs in (("attention_norm", "layer_norm1"), ("mlp_norm", "layer_norm2")):
        found |= norm(f"blocks/{ours}", f"{prefix}{_BLOCK}{theirs}")
    return found


def _vision_tensors(config: vision.Config, prefix: str) -> dict[str, Tensor]:
    """Name the tensors of a vision tower of CLIP or SigLIP."""
    inside = f"{prefix}embeddings."
    D, head = config.width, f"{prefix}head."
    found = {
        "patches_in/kernel": patch_kernel(f"{inside}patch_embedding.weight", config),
        "patches_in/bias": Tensor(f"{inside}patch_embedding.bias"),
        "cls": Tensor(f"{inside}class_embedding"),
        "positions": Tensor(f"{inside}position_embedding.weight"),
        **norm("embed_norm", f"{prefix}pre_layrnorm"),
        **norm("final_norm", f"{prefix}post_layernorm"),
        **_blocks(prefix),
        "projection/kernel": Tensor("visual_projection.weight", True),
        "attention_pool/probe": Tensor(f"{head}probe", lead=2),
        **linear("attention_pool/attention_out", f"{head}attention.out_proj"),
        **norm("attention_pool/norm", f"{head}layernorm"),
        **linear("attention_pool/mlp_in", f"{head}mlp.fc1"),
        **linear("attention_pool/mlp_out", f"{head}mlp.fc2"),
    }
    for i, ours in enumerate(("query", "key", "value")):
        part = Part(i * D, D, D, 3 * D)
        fused = f"{head}attention.in_proj_"
        found[f"attention_pool/{ours}/kernel"] = Tensor(f"{fused}weight", True, part)
        found[f"attention_pool/{ours}/bias"] = Tensor(f"{fused}bias", part=part)
    return found


def _text_tensors(prefix: str) -> dict[str, Tensor]:
    """Name the tensors of a text tower of CLIP or SigLIP."""
    return {
        "words/table": Tensor(f"{prefix}embeddings.token_embedding.weight"),
        "positions/table": Tensor(f"{prefix}embeddings.position_embedding.weight"),
        **norm("final_norm", f"{prefix}final_layer_norm"),
        **_blocks(prefix),
        "projection/kernel": Tensor("text_projection.weight", True),
        **linear("shared", f"{prefix}head"),
    }


def _either(config: Config, *, whole: bool) -> dict[str, Tensor]:
    """Name the tensors of the tower that a configuration is of; `whole`: of a file of both."""
    if isinstance(config, vision.Config):
        return _vision_tensors(config, "vision_model." if whole else "")
    return _text_tensors("text_model." if whole else "")


_POSITIONS = r"(vision_model\.|text_model\.)?embeddings\.position_ids"
_SCALES = r"logit_(scale|bias)"


def _other_tower(config: Config) -> tuple[str, ...]:
    """Return what one tower leaves unread in a file of both."""
    is_vision = isinstance(config, vision.Config)
    other = r"(text_model|text_projection)" if is_vision else r"(vision_model|visual_projection)"
    return hf_reading.unused(rf"{other}\..*", _SCALES, _POSITIONS)(config)


_lone = hf_reading.unused(_POSITIONS)


def _fit(config: Config, names: Collection[str]) -> Config:
    """Leave out the projection or the pooling that a file of a tower by itself does not hold."""
    if isinstance(config, vision.Config):
        held = "visual_projection.weight" in names
        pooled = any(name.endswith("head.probe") for name in names)
        return text_towers.without(
            config,
            projection=config.projection and not held,
            attention_pool=config.attention_pool and not pooled,
        )
    if isinstance(config, ClipTextConfig):
        missing = config.projection and "text_projection.weight" not in names
        return text_towers.without(config, projection=missing)
    return config


# CLIP.

_CLIP_VISION_KEYS = tower_keys(224, 32) | {
    "intermediate_size": Key(keys.COUNT, 3072),
    "hidden_act": Key(hf_reading.ACTIVATION, "quick_gelu"),
    "layer_norm_eps": Key(keys.SMALL, 1e-5),
    "projection_dim": Key(keys.COUNT, 512),
}
_TEXT_SIZES = {
    "num_hidden_layers": Key(keys.LAYERS, 12),
    "layer_norm_eps": Key(keys.SMALL, 1e-5),
    "initializer_range": Key(keys.DEVIATION, 0.02),
}
_CLIP_TEXT_KEYS = _TEXT_SIZES | {
    "vocab_size": Key(keys.COUNT, 49_408),
    "hidden_size": Key(keys.COUNT, 512),
    "intermediate_size": Key(keys.COUNT, 2048),
    "num_attention_heads": Key(keys.COUNT, 8),
    "max_position_embeddings": Key(keys.COUNT, 77),
    "hidden_act": Key(hf_reading.ACTIVATION, "quick_gelu"),
    "projection_dim": Key(optional(keys.COUNT), 512),
    # Older files say 2 and mean the largest token, which is CLIP's last.
    "eos_token_id": Key(keys.TOKEN, 49_407),
}


def _clip_sds(values: Values) -> dict[str, float]:
    """Return the standard deviations of CLIP's initialisation."""
    width, layers = values["hidden_size"], values["num_hidden_layers"]
    narrow = width**-0.5 * (2 * layers) ** -0.5
    return {
        "qkv_sd": narrow,
        "attention_out_sd": width**-0.5,
        "mlp_in_sd": (2 * width) ** -0.5,
        "mlp_out_sd": narrow,
    }


def _clip_vision(values: Values) -> vision.Config:
    return read_tower(
        values,
        mlp_size=values["intermediate_size"],
        patch_bias=False,
        embed_norm=True,
        projection=values["projection_dim"],
        **_clip_sds(values),
    )


def _clip_text(values: Values) -> ClipTextConfig:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    sds = _clip_sds(values)
    return ClipTextConfig(
        vocab_size=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        width=width,
        **hf_reading.read_head_sizes(width, heads, heads),
        mlp_size=values["intermediate_size"],
        max_length=values["max_position_embeddings"],
        norm_eps=values["layer_norm_eps"],
        activation=hf_reading.activation(values["hidden_act"]),
        init_sd=values["initializer_range"],
        residual_init_sd=sds["mlp_out_sd"],
        projection=values["projection_dim"] or 0,
        end_token=-1 if values["eos_token_id"] == 2 else values["eos_token_id"],
        **text_towers.CLIP,
    )


_PARTS = {
    "vision_config": Key(optional(keys.MAPPING), None),
    "text_config": Key(optional(keys.MAPPING), None),
    # transformers' first files: where they are given, they are what counts.
    "vision_config_dict": Key(optional(keys.MAPPING), None),
    "text_config_dict": Key(optional(keys.MAPPING), None),
}
_CLIP_KEYS = _PARTS | {"projection_dim": Key(keys.COUNT, 512)}


def _part(values: Values, tower: str) -> dict[str, Any]:
    return values[f"{tower}_config_dict"] or values[f"{tower}_config"] or {}


def _tower_family(model_type: str, values: Values, tower: str) -> Config:
    """Read one tower of a file of both."""
    own = FAMILIES[f"{model_type}_{tower}_model"]
    return own.config_from_hf(_part(values, tower), source=f"config.json: {tower}_config")


def _clip_both(values: Values, *, tower: str = "vision") -> Config:
    config = _tower_family("clip", values, tower)
    return text_towers.projected(config, values["projection_dim"])


# SigLIP.

_SIGLIP_VISION_KEYS = tower_keys(224, 16) | {
    "intermediate_size": Key(keys.COUNT, 3072),
    "hidden_act": Key(hf_reading.ACTIVATION, "gelu_pytorch_tanh"),
    "vision_use_head": Key(keys.FLAG, True),
}
_SIGLIP_TEXT_KEYS = _TEXT_SIZES | {
    "vocab_size": Key(keys.COUNT, 32_000),
    "hidden_size": Key(keys.COUNT, 768),
    "intermediate_size": Key(keys.COUNT, 3072),
    "num_attention_heads": Key(keys.COUNT, 12),
    "max_position_embeddings": Key(keys.COUNT, 64),
    "hidden_act": Key(hf_reading.ACTIVATION, "gelu_pytorch_tanh"),
    "layer_norm_eps": Key(keys.SMALL, 1e-6),
    "projection_size": Key(optional(keys.COUNT), None),
    "pad_token_id": Key(keys.integer(0), 1),
}


def _siglip_sds(values: Values) -> dict[str, float]:
    """Return the standard deviations of SigLIP's initialisation, which is uniform (Glorot's)."""
    width, mlp = values["hidden_size"], values["intermediate_size"]
    glorot = lambda first, second: math.sqrt(2 / (first + second))
    return {
        "position_sd": width**-0.5,
        "qkv_sd": glorot(width, width),
        "attention_out_sd": glorot(width, width),
        "mlp_in_sd": glorot(width, mlp),
        "mlp_out_sd": glorot(width, mlp),
    }


def _siglip_vision(values: Values) -> vision.Config:
    return read_tower(
        values,
        mlp_size=values["intermediate_size"],
        cls=False,
        attention_pool=values["vision_use_head"],
        **_siglip_sds(values),
    )


def _siglip_text(values: Values) -> SiglipTextConfig:
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads:
        raise InputError(
            f"config.json: num_attention_heads must divide hidden_size {width}, found {heads}."
        )
    return SiglipTextConfig(
        vocab_size=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        width=width,
        num_heads=heads,
        mlp_size=values["intermediate_size"],
        max_length=values["max_position_embeddings"],
        norm_eps=values["layer_norm_eps"],
        activation=hf_reading.activation(values["hidden_act"]),
        projection=values["projection_size"] or width,
        padding_token=values["pad_token_id"],
        init_sd=values["initializer_range"],
    )


def _siglip_both(values: Values, *, tower: str = "vision") -> Config:
    return _tower_family("siglip", values, tower)


# The vision tower of BLIP-2.

_EVA_KEYS = tower_keys(224, 14) | {
    "hidden_size": Key(keys.COUNT, 1408),
    "num_hidden_layers": Key(keys.LAYERS, 39),
    "num_attention_heads": Key(keys.COUNT, 16),
    "intermediate_size": Key(keys.COUNT, 6144),
    "qkv_bias": Key(keys.FLAG, True),
}


def _eva(values: Values) -> vision.Config:
    # transformers draws it with a standard deviation of 1e-10, meant to be overwritten; a network
    # of such weights would be no control. EVA itself began at .02.
    return read_tower(
        values,
        mlp_size=values["intermediate_size"],
        qkv_bias=values["qkv_bias"],
        init_sd=max(values["initializer_range"], 0.02),
    )


def _eva_tensors(config: vision.Config) -> dict[str, Tensor]:
    D = config.width
    found = _vision_tensors(config, "") | _blocks("", {"attention_out": "self_attn.projection"})
    found |= {
        "cls": Tensor("embeddings.class_embedding", lead=2),
        "positions": Tensor("embeddings.position_embedding", lead=1),
    }
    for i, ours in enumerate(("query", "key", "value")):
        found |= linear(f"blocks/{ours}", f"{_BLOCK}self_attn.qkv", Part(i * D, D, D, 3 * D))
    return found


def _tower(keys_of_tower, inert: str, configure, prefix: str) -> Family:
    return Family(
        network=_build,
        keys=keys.family(keys_of_tower, inert),
        configure=configure,
        tensors=lambda config: _either(config, whole=False),
        ignored=_lone,
        prefixes=(prefix,),
        fit=_fit,
    )


def _both(keys_of_both, configure) -> Family:
    return Family(
        network=_build,
        keys=keys.family(keys_of_both, _INERT),
        configure=configure,
        tensors=lambda config: _either(config, whole=True),
        ignored=_other_tower,
        fit=_fit,
        two_towers=True,
        unread="one of its two networks",
    )


FAMILIES = {
    "clip": _both(_CLIP_KEYS, _clip_both),
    "clip_vision_model": _tower(_CLIP_VISION_KEYS, _INERT, _clip_vision, "vision_model."),
    "clip_text_model": _tower(_CLIP_TEXT_KEYS, _INERT, _clip_text, "text_model."),
    "siglip": _both(_PARTS, _siglip_both),
    "siglip_vision_model": _tower(_SIGLIP_VISION_KEYS, _INERT, _siglip_vision, "vision_model."),
    "siglip_text_model": _tower(_SIGLIP_TEXT_KEYS, _INERT, _siglip_text, "text_model."),
    "blip_2_vision_model": Family(
        network=vision.Network,
        keys=keys.family(_EVA_KEYS, _INERT),
        configure=_eva,
        tensors=_eva_tensors,
        ignored=_lone,
        prefixes=("vision_model.",),
    ),
}
