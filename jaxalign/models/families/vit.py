"""ViT and DINOv2: their configurations and tensors, and what all vision towers share.

Names of tensors are those of published files. Heads for other tasks, the pooler of ViT and the mask
token are not built: no activation passes through them.
"""

from collections.abc import Mapping
from typing import Any

from jaxalign.checks import Rule
from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys
from jaxalign.models.families.base import Family
from jaxalign.models.families.keys import Key
from jaxalign.models.families.vision import Config, Network
from jaxalign.models.weights import Part, Tensor

Values = dict[str, Any]  # of the keys of config.json

_LARGEST_SIDE = 100_000
SIDES = Rule(
    "be a positive integer, or a list of two: height and width",
    lambda x: (
        all(type(y) is int and 0 < y < _LARGEST_SIDE for y in (x if isinstance(x, list) else [x]))
        and (not isinstance(x, list) or len(x) == 2)
    ),
)
MOST_CHANNELS = 64


def tower_keys(image_size: int, patch_size: int) -> dict[str, Key]:
    """Return the keys that all towers read; sizes that are left out are those of transformers.

    Args:
      image_size: that a missing key means.
      patch_size: the same.
    """
    return {
        "hidden_size": Key(keys.COUNT, 768),
        "num_hidden_layers": Key(keys.LAYERS, 12),
        "num_attention_heads": Key(keys.COUNT, 12),
        "image_size": Key(SIDES, image_size),
        "patch_size": Key(SIDES, patch_size),
        "num_channels": Key(keys.integer(1, MOST_CHANNELS), 3),
        "hidden_act": Key(hf_reading.ACTIVATION, "gelu"),
        "layer_norm_eps": Key(keys.SMALL, 1e-6),
        "initializer_range": Key(keys.DEVIATION, 0.02),
    }


def read_tower(values: Values, **differs: Any) -> Config:
    """Read what all towers have in common.

    Args:
      values: of `tower_keys`.
      differs: what the family does in another way.

    Raises:
      InputError: if heads do not divide the width, or a patch is larger than an image.
    """
    width, heads = values["hidden_size"], values["num_attention_heads"]
    if width % heads:
        raise InputError(
            f"config.json: num_attention_heads must divide hidden_size {width}, found {heads}."
        )
    size, patch = (_sides(values[name]) for name in ("image_size", "patch_size"))
    if patch[0] > size[0] or patch[1] > size[1]:
        raise InputError(
            f"config.json: patch_size must be at most image_size {list(size)}, found {list(patch)}."
        )
    common = {
        "num_layers": values["num_hidden_layers"],
        "width": width,
        "num_heads": heads,
        "norm_eps": values["layer_norm_eps"],
        "image_size": size,
        "patch_size": patch,
        "num_channels": values["num_channels"],
        "activation": hf_reading.activation(values["hidden_act"]),
        "init_sd": values["initializer_range"],
    }
    return Config(**(common | differs))


def _sides(value: int | list[int]) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


def patch_kernel(name: str, config: Config) -> Tensor:
    """Place the map of patches, stored as the kernel of a convolution."""
    return Tensor(name, transpose=True, divided=(config.num_channels, *config.patch_size))


def linear(ours: str, theirs: str, part: Part | None = None) -> dict[str, Tensor]:
    """Place a linear map."""
    return {
        f"{ours}/kernel": Tensor(f"{theirs}.weight", True, part),
        f"{ours}/bias": Tensor(f"{theirs}.bias", part=part),
    }


def norm(ours: str, theirs: str) -> dict[str, Tensor]:
    """Place a layer norm."""
    return {f"{ours}/scale": Tensor(f"{theirs}.weight"), f"{ours}/bias": Tensor(f"{theirs}.bias")}


_ATTENTION = {
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "attention_out": "attention.output.dense",
}


def _tensors(config: Config, blocks: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    patches = "embeddings.patch_embeddings.projection"
    found = {
        "patches_in/kernel": patch_kernel(f"{patches}.weight", config),
        "patches_in/bias": Tensor(f"{patches}.bias"),
        "cls": Tensor("embeddings.cls_token", lead=2),
        "registers": Tensor("embeddings.register_tokens", lead=1),
        "positions": Tensor("embeddings.position_embeddings", lead=1),
        **norm("final_norm", "layernorm"),
    }
    for block in blocks.values():
        found |= block
    return found


def _in_blocks(places: Mapping[str, str]) -> dict[str, dict[str, Tensor]]:
    """Place linear maps and norms of blocks."""
    make = lambda ours: norm if ours.endswith("norm") else linear
    return {
        ours: make(ours)(f"blocks/{ours}", f"encoder.layer.{{layer}}.{theirs}")
        for ours, theirs in places.items()
    }


# ViT.

_VIT_KEYS = tower_keys(224, 16) | {
    "intermediate_size": Key(keys.COUNT, 3072),
    "layer_norm_eps": Key(keys.SMALL, 1e-12),
    "qkv_bias": Key(keys.FLAG, True),
}


def _vit_config(values: Values) -> Config:
    return read_tower(values, mlp_size=values["intermediate_size"], qkv_bias=values["qkv_bias"])


def _vit_tensors(config: Config) -> dict[str, Tensor]:
    places = _ATTENTION | {
        "attention_norm": "layernorm_before",
        "mlp_norm": "layernorm_after",
        "mlp_in": "intermediate.dense",
        "mlp_out": "output.dense",
    }
    return _tensors(config, _in_blocks(places))


# DINOv2.

_DINOV2_KEYS = tower_keys(224, 14) | {
    "mlp_ratio": Key(keys.number(0, 1000, above=True), 4.0),
    "qkv_bias": Key(keys.FLAG, True),
    "layerscale_value": Key(keys.number(0, 1000, above=True), 1.0),
    "use_swiglu_ffn": Key(keys.FLAG, False),
}
_REGISTERS_KEYS = _DINOV2_KEYS | {
    "patch_size": Key(SIDES, 16),
    "num_register_tokens": Key(keys.integer(0, 10_000), 4),
}


def _dinov2_config(values: Values) -> Config:
    gated = values["use_swiglu_ffn"]
    inner = int(values["hidden_size"] * values["mlp_ratio"])
    if gated:  # two thirds of it, in steps of 8
        inner = (int(inner * 2 / 3) + 7) // 8 * 8
    return read_tower(
        values,
        mlp_size=inner,
        qkv_bias=values["qkv_bias"],
        gated=gated,
        layer_scale=values["layerscale_value"],
        num_registers=values.get("num_register_tokens", 0),
        stretch="antialiased" if "num_register_tokens" in values else "bicubic",
        **({"activation": "silu"} if gated else {}),
    )


def _dinov2_tensors(config: Config) -> dict[str, Tensor]:
    places = _ATTENTION | {"attention_norm": "norm1", "mlp_norm": "norm2"}
    block, F = "encoder.layer.{layer}.", config.mlp_size
    scales = {
        f"blocks/{ours}_scale": Tensor(f"{block}{theirs}.lambda1")
        for ours, theirs in (("attention", "layer_scale1"), ("mlp", "layer_scale2"))
    }
    if config.gated:
        fused = f"{block}mlp.weights_in"
        mlp = linear("blocks/mlp_gate", fused, Part(0, F, F, 2 * F))
        mlp |= linear("blocks/mlp_in", fused, Part(F, F, F, 2 * F))
        mlp |= linear("blocks/mlp_out", f"{block}mlp.weights_out")
    else:
        mlp = linear("blocks/mlp_in", f"{block}mlp.fc1")
        mlp |= linear("blocks/mlp_out", f"{block}mlp.fc2")
    return _tensors(config, _in_blocks(places) | {"scales": scales, "mlp": mlp})


_UNUSED = hf_reading.unused(
    r"pooler\.dense\.(weight|bias)",
    r"embeddings\.mask_token",
    r"decoder\.\d+\.(weight|bias)",  # of masked images
)
_DINOV2_INERT = """
_out_features _out_indices apply_layernorm drop_path_rate out_features out_indices
reshape_hidden_states stage_names use_mask_token
"""
_dinov2 = lambda keys_of_family: Family(
    network=Network,
    keys=keys.family(keys_of_family, _DINOV2_INERT),
    configure=_dinov2_config,
    tensors=_dinov2_tensors,
    ignored=_UNUSED,
    prefixes=("dinov2.", "dinov2_with_registers."),
)
FAMILIES = {
    "vit": Family(
        network=Network,
        keys=keys.family(_VIT_KEYS, "encoder_stride pooler_output_size pooler_act"),
        configure=_vit_config,
        tensors=_vit_tensors,
        ignored=_UNUSED,
        prefixes=("vit.",),
    ),
    "dinov2": _dinov2(_DINOV2_KEYS),
    "dinov2_with_registers": _dinov2(_REGISTERS_KEYS),
}
