"""IDEFICS-1: a tower like CLIP's, a perceiver, and LLaMA with layers that attend to the image."""

import dataclasses
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import gated, hf_reading, keys, llama, multimodal
from jaxalign.models.families.base import Family
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.families.resamplers import PerceiverConfig
from jaxalign.models.weights import Tensor

Values = dict[str, Any]  # of the keys of config.json

_VISION = "vision_model."
_KEYS = {
    "vocab_size": Key(keys.COUNT, 32_000),
    "additional_vocab_size": Key(keys.integer(0), 0),
    "hidden_size": Key(keys.COUNT, 4096),
    "intermediate_size": Key(keys.COUNT, 11_008),
    "num_hidden_layers": Key(keys.LAYERS, 32),
    "num_attention_heads": Key(keys.COUNT, 32),
    "hidden_act": Key(hf_reading.ACTIVATION, "silu"),
    "initializer_range": Key(keys.DEVIATION, 0.02),
    "rms_norm_eps": Key(keys.SMALL, 1e-6),
    "pad_token_id": Key(optional(keys.TOKEN), 0),
    "tie_word_embeddings": Key(keys.FLAG, False),
    "max_position_embeddings": Key(keys.COUNT, 2048, names=("max_sequence_length",)),
    "cross_layer_interval": Key(keys.COUNT, 1),
    "qk_layer_norms": Key(keys.FLAG, False),
    "alpha_initializer": Key(
        keys.one_of(("zeros", "ones", "normal", "gaussian", "random")), "zeros"
    ),
    "alphas_initializer_range": Key(keys.DEVIATION, 0.0),
    "alpha_type": Key(keys.one_of(("float", "vector")), "float"),
    "use_resampler": Key(keys.FLAG, False),
    "rope_parameters": Key(optional(keys.MAPPING), None),
    "vision_config": Key(optional(keys.MAPPING), None),
    "perceiver_config": Key(optional(keys.MAPPING), None),
}
# How it was trained.
_INERT = """
freeze_text_layers freeze_text_module_exceptions freeze_lm_head freeze_vision_layers
freeze_vision_module_exceptions word_embed_proj_dim tokenizer_name
"""
_PERCEIVER = keys.family(
    {
        "use_resampler": Key(keys.FLAG, False),
        "resampler_n_latents": Key(keys.COUNT, 64),
        "resampler_depth": Key(keys.LAYERS, 6),
        "resampler_n_heads": Key(keys.COUNT, 16),
        "resampler_head_dim": Key(keys.COUNT, 96),
        "qk_layer_norms_perceiver": Key(keys.FLAG, False),
    }
)
_TOWER = {
    "hidden_size": 768,
    "image_size": 224,
    "intermediate_size": 5120,
    "patch_size": 14,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}


def _config(values: Values) -> multimodal.Config:
    found = dict(values["vision_config"] or {})
    if "embed_dim" in found:
        found["hidden_size"] = found.pop("embed_dim")
    found["model_type"] = "clip_vision_model"
    tower, vision = multimodal.read_tower(
        {"vision_config": _TOWER | found}, "clip_vision_model", known="vision_model_name"
    )
    # The perceiver is given states that no norm has passed.
    vision = dataclasses.replace(vision, final_norm=False)
    if not values["use_resampler"]:
        raise InputError("config.json: use_resampler must be true: nothing else is built.")
    language = _language(values, vision.width)
    return multimodal.Config(
        design=("idefics", tower, "idefics"),
        vision=vision,
        connector=_perceiver(values["perceiver_config"] or {}, vision),
        language=language,
        image_token=language.image_token,
        num_image_tokens=1,
        attends=True,
    )


def _language(values: Values, image_width: int) -> gated.Config:
    layers, every = values["num_hidden_layers"], values["cross_layer_interval"]
    if layers % every:
        raise InputError(
            "config.json: cross_layer_interval must divide num_hidden_layers, found "
            f"{every} and {layers}."
        )
    more = values["additional_vocab_size"]
    if more < 1:
        raise InputError(
            "config.json: additional_vocab_size must be at least 1, the image's token being the "
            f"last one: found {more}."
        )
    own = llama.FAMILIES["llama"].keys.read.keys()
    plain = {name: x for name, x in values.items() if name in own and x is not None}
    config = llama.FAMILIES["llama"].config_from_hf(plain)
    start = {"zeros": 0.0, "ones": 1.0}.get(values["alpha_initializer"])
    return gated.Config(
        **{field.name: getattr(config, field.name) for field in dataclasses.fields(config)},
        num_more_words=more,
        gate_every=every,
        image_width=image_width,
        image_token=values["vocab_size"] + more - 1,
        gate_per_unit=values["alpha_type"] == "vector",
        gate_start=start or 0.0,
        gate_sd=values["alphas_initializer_range"] if start is None else 0.0,
        gated_qk_norm=values["qk_layer_norms"],
    )


def _perceiver(found: dict[str, Any], vision: Any) -> PerceiverConfig:
    values = keys.read(
        _PERCEIVER, found, source="config.json: perceiver_config", owner="a perceiver"
    )
    return PerceiverConfig(
        num_latents=values["resampler_n_latents"],
        depth=values["resampler_depth"],
        width=vision.width,
        num_heads=values["resampler_n_heads"],
        head_size=values["resampler_head_dim"],
        mlp_size=4 * vision.width,
        qk_norm=values["qk_layer_norms_perceiver"],
    )


def _perceiver_tensors() -> dict[str, Tensor]:
    outside = "perceiver_resampler."
    attends, mlp = f"{outside}blocks.{{layer}}.0.", f"{outside}blocks.{{layer}}.1."
    named = {
        "image_norm": f"{attends}context_layer_norm",
        "latent_norm": f"{attends}latents_layer_norm",
        "query_norm": f"{attends}q_layer_norm",
        "key_norm": f"{attends}k_layer_norm",
        "query": f"{attends}q_proj",
        "key": f"{attends}k_proj",
        "value": f"{attends}v_proj",
        "out": f"{attends}output_proj",
        "mlp_norm": f"{mlp}ln",
        "mlp_in": f"{mlp}fc",
        "mlp_out": f"{mlp}c_proj",
    }
    named = {f"blocks/{ours}": theirs for ours, theirs in named.items()}
    named["norm"] = f"{outside}layer_norm"
    return multimodal.projection_tensors(named) | {"latents": Tensor(f"{outside}latents")}


def _copies(config: multimodal.Config) -> dict[str, str]:
    found = multimodal.part_copies(config, language="")
    if config.tied_embeddings:
        found["lm_head.additional_fc.weight"] = "embed_tokens.additional_embedding.weight"
    return found


FAMILIES = {
    "idefics": Family(
        network=multimodal.Network,
        keys=keys.family(_KEYS, _INERT),
        configure=_config,
        tensors=lambda config: multimodal.part_tensors(
            config, _perceiver_tensors(), vision=_VISION, language=""
        ),
        ignored=lambda config: multimodal.part_ignored(
            config, r"vision_model\.post_layernorm\..*", vision=r"vision_model\.", language=""
        ),
        prefixes=("model.",),
        copies=_copies,
        head="lm_head.weight",
        written=hf_reading.written("model.", "lm_head"),
    )
}
