"""The vision tower of mPLUG-Owl: its configuration and tensors, as a part of that model."""

from typing import Any

from jaxalign.models.families import hf_reading, keys, vision
from jaxalign.models.families.base import Family
from jaxalign.models.families.keys import Key
from jaxalign.models.families.vit import linear, norm, patch_kernel, read_tower, tower_keys
from jaxalign.models.weights import Part, Tensor

_KEYS = tower_keys(224, 14) | {
    "hidden_size": Key(keys.COUNT, 1024),
    "num_hidden_layers": Key(keys.LAYERS, 24),
    "num_attention_heads": Key(keys.COUNT, 16),
    "intermediate_size": Key(keys.COUNT, 4096),
    "layer_norm_eps": Key(keys.SMALL, 1e-6),
    # The code knows no other, whatever the file says.
    "hidden_act": keys.only("quick_gelu"),
}


def _config(values: dict[str, Any]) -> vision.Config:
    return read_tower(
        values | {"hidden_act": "quick_gelu"},
        mlp_size=values["intermediate_size"],
        patch_bias=False,
        embed_norm=True,
    )


def _tensors(config: vision.Config) -> dict[str, Tensor]:
    block, H = "encoder.layers.{layer}.", config.width // config.num_heads
    found = {
        "patches_in/kernel": patch_kernel("embeddings.patch_embed.weight", config),
        "cls": Tensor("embeddings.cls_token", lead=2),
        "positions": Tensor("embeddings.position_embedding", lead=1),
        **norm("embed_norm", "embeddings.pre_layernorm"),
        **norm("final_norm", "post_layernorm"),
        **norm("blocks/attention_norm", f"{block}input_layernorm"),
        **norm("blocks/mlp_norm", f"{block}post_attention_layernorm"),
        **linear("blocks/attention_out", f"{block}self_attn.dense"),
        **linear("blocks/mlp_in", f"{block}mlp.fc1"),
        **linear("blocks/mlp_out", f"{block}mlp.fc2"),
    }
    # One map yields queries, keys and values head by head.
    for i, ours in enumerate(("query", "key", "value")):
        part = Part(i * H, H, 3 * H, 3 * config.width)
        found |= linear(f"blocks/{ours}", f"{block}self_attn.query_key_value", part)
    return found


FAMILY = Family(
    network=vision.Network,
    keys=keys.family(_KEYS, "initializer_factor projection_dim use_flash_attn"),
    configure=_config,
    tensors=_tensors,
    ignored=hf_reading.unused(r"embeddings\.position_ids"),
)
