"""mPLUG-Owl: a tower like CLIP's, the visual abstractor, and LLaMA.

Not in transformers; the names and the order of computation are those of X-PLUG/mPLUG-Owl,
`modeling_mplug_owl.py`. Published files are pickles, which `models.convert` reads once.
"""

from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import keys, multimodal, vision
from jaxalign.models.families.base import Family
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.families.resamplers import AbstractorConfig
from jaxalign.models.weights import Tensor

Values = dict[str, Any]  # of the keys of config.json

_VISION, _LANGUAGE = "vision_model.", "language_model."
_ABSTRACTOR = keys.family(
    {
        "hidden_size": Key(keys.COUNT, 1024),
        "num_hidden_layers": Key(keys.LAYERS, 6),
        "num_attention_heads": Key(keys.COUNT, 16),
        "intermediate_size": Key(keys.COUNT, 4096),
        "initializer_range": Key(keys.DEVIATION, 0.02),
        "layer_norm_eps": Key(keys.SMALL, 1e-6),
        "encoder_hidden_size": Key(keys.COUNT, 1024),
    },
    "grid_size",
)
_KEYS = {
    "text_config": Key(keys.MAPPING),
    "vision_config": Key(keys.MAPPING),
    "visual_abstractor_config": Key(optional(keys.MAPPING), None, names=("abstractor_config",)),
    "num_query_tokens": Key(keys.COUNT, 64),
    "tie_word_embeddings": Key(optional(keys.FLAG), None),
}
_INERT = "initializer_range use_decoder_only_language_model"


def _abstractor(values: Values, tower: vision.Config, outputs: int) -> AbstractorConfig:
    found = keys.read(
        _ABSTRACTOR,
        values["visual_abstractor_config"] or {},
        source="config.json: visual_abstractor_config",
        owner="the visual abstractor",
    )
    width, heads = found["hidden_size"], found["num_attention_heads"]
    if not width == found["encoder_hidden_size"] == tower.width or width % heads:
        raise InputError(
            "config.json: visual_abstractor_config must have the width of the vision tower "
            f"{tower.width} as hidden_size and encoder_hidden_size, in whole heads: found "
            f"{width}, {found['encoder_hidden_size']} and {heads} heads."
        )
    return AbstractorConfig(
        num_latents=values["num_query_tokens"],
        depth=found["num_hidden_layers"],
        width=width,
        num_heads=heads,
        mlp_size=found["intermediate_size"],
        image_width=tower.width,
        outputs=outputs,
        norm_eps=found["layer_norm_eps"],
        init_sd=found["initializer_range"],
    )


def _config(values: Values) -> multimodal.Config:
    kind, tower = multimodal.read_tower(values, "mplug_owl_vision_model")
    language_kind, language = multimodal.read_language(values)
    return multimodal.Config(
        design=("mplug-owl", kind, language_kind),
        vision=tower,
        connector=_abstractor(values, tower, language.width),
        language=language,
        image_token=-1,
        num_image_tokens=values["num_query_tokens"] + 1,
    )


def _connector_tensors() -> dict[str, Tensor]:
    layer = "abstractor.encoder.layers.{layer}.crossattention."
    named = {
        "latent_norm": "norm1",
        "image_norm": "normk",
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "out": "output.out_proj",
        "mlp_norm": "output.norm2",
        "mlp_gate": "output.mlp.w1",
        "mlp_in": "output.mlp.w3",
        "inner_norm": "output.mlp.ffn_ln",
        "mlp_out": "output.mlp.w2",
    }
    named = {f"blocks/{ours}": layer + theirs for ours, theirs in named.items()}
    named["project"] = "abstractor.visual_fc"
    return multimodal.projection_tensors(named) | {
        "latents": Tensor("query_tokens"),
        "end": Tensor("abstractor.vit_eos"),
    }


FAMILIES = {
    "mplug-owl": Family(
        network=multimodal.Network,
        keys=keys.family(_KEYS, _INERT),
        configure=_config,
        tensors=lambda config: multimodal.part_tensors(
            config, _connector_tensors(), vision=_VISION, language=_LANGUAGE
        ),
        ignored=lambda config: multimodal.part_ignored(
            config, vision=r"vision_model\.", language=r"language_model\."
        ),
        old_beginnings={"language_model.model.": _LANGUAGE},
        copies=lambda config: multimodal.part_copies(config, language=_LANGUAGE),
        head="language_model.lm_head.weight",
        written=lambda config: multimodal.part_written(config, language=_LANGUAGE),
    )
}
