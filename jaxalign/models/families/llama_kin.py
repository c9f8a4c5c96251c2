"""StableLM, OLMo, Granite, StarCoder 2, SmolLM 3, Cohere: their configurations and tensors."""

import dataclasses
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys, llama, rotary
from jaxalign.models.families.decoder import Config
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.families.llama import Values, attention_bias, llama_like
from jaxalign.models.weights import Tensor

# Of families whose norms have a mean.
_MEAN_NORM = {name: key for name, key in llama.EVERY.items() if name != "rms_norm_eps"}
_LAYER_NORM_EPS = {"layer_norm_eps": Key(keys.SMALL, 1e-5)}
_MULTIPLIER = Key(keys.number(0, 1e6, above=True), 1.0)


def _rope(values: Values, *, theta: float = 10_000.0, share: float = 1.0) -> Any:
    """Read rotary settings whose defaults are the family's."""
    settings = ({} if share == 1 else {"partial_rotary_factor": share}) | rotary.settings(values)
    head_size = llama.head_sizes(values)["head_size"]
    max_length = values["max_position_embeddings"]
    return rotary.read(settings, head_size, max_length, theta=theta, whole=share == 1)


_STABLELM_KEYS = keys.family(
    _MEAN_NORM
    | _LAYER_NORM_EPS
    | {
        "num_key_value_heads": Key(optional(keys.COUNT), 32),
        "max_position_embeddings": Key(keys.COUNT, 4096),
        "use_qkv_bias": Key(keys.FLAG, False),
        "use_parallel_residual": Key(keys.FLAG, False),
        # Those of 12B have a norm of its own for each head.
        "qk_layernorm": keys.only(False),
    },
    llama.INERT,
)


def _stablelm_config(values: Values) -> Config:
    parallel = values["use_parallel_residual"]
    return llama_like(
        values,
        rope=_rope(values, share=0.25),
        norm="layer",
        norm_eps=values["layer_norm_eps"],
        qkv_bias=values["use_qkv_bias"],
        parallel=parallel,
        shared_norm=parallel,
    )


_CLIP = Key(optional(keys.number(0, 1e6, above=True)), None)
_OLMO_KEYS = keys.family(
    _MEAN_NORM
    | llama.ATTENTION_BIAS
    | {"pad_token_id": Key(optional(keys.TOKEN), 1), "clip_qkv": _CLIP},
    llama.INERT,
)


def _olmo_config(values: Values) -> Config:
    return llama_like(
        values,
        norm="layer",
        norm_affine=False,
        norm_eps=1e-5,  # not in the configuration
        qkv_clip=values["clip_qkv"] or 0.0,
        **attention_bias(values),
    )


_OLMO2_KEYS = keys.family(
    llama.EVERY
    | llama.ATTENTION_BIAS
    | {"pad_token_id": Key(optional(keys.TOKEN), 1), "rms_norm_eps": Key(keys.SMALL, 1e-5)},
    llama.INERT,
)


def _olmo2_config(values: Values) -> Config:
    bias = attention_bias(values)
    return llama_like(values, norm_place="outputs", qk_norm=True, qk_norm_whole=True, **bias)


_GRANITE_KEYS = keys.family(
    llama.EVERY
    | llama.ATTENTION_BIAS
    | {
        "mlp_bias": Key(keys.FLAG, False),
        "embedding_multiplier": _MULTIPLIER,
        "attention_multiplier": _MULTIPLIER,
        "residual_multiplier": _MULTIPLIER,
        "logits_scaling": _MULTIPLIER,
    },
    llama.INERT,
)


def _granite_config(values: Values) -> Config:
    return llama_like(
        values,
        embed_scale=values["embedding_multiplier"],
        attention_scale=values["attention_multiplier"],
        residual_scale=values["residual_multiplier"],
        logit_scale=1 / values["logits_scaling"],
        mlp_bias=values["mlp_bias"],
        **attention_bias(values),
    )


_STARCODER2_KEYS = keys.family(
    {name: key for name, key in _MEAN_NORM.items() if not name.endswith("_bias")}
    | {
        "num_key_value_heads": Key(optional(keys.COUNT), 2),
        "max_position_embeddings": Key(keys.COUNT, 4096),
        "norm_epsilon": Key(keys.SMALL, 1e-5),
        "hidden_act": Key(hf_reading.ACTIVATION, "gelu_pytorch_tanh"),
        "initializer_range": Key(keys.DEVIATION, 0.018042),
        "sliding_window": Key(llama.WINDOW, None),
        "use_bias": Key(keys.FLAG, True),
        "tie_word_embeddings": Key(keys.FLAG, True),
        # What the first files say of a family that has no choice.
        "mlp_type": keys.only("default"),
        "norm_type": keys.only("layer_norm"),
    },
    f"{llama.INERT} embedding_dropout residual_dropout",
)


def _starcoder2_config(values: Values) -> Config:
    sliding = [True] * values["num_hidden_layers"]
    biases = ("qkv_bias", "attention_out_bias", "mlp_bias")
    return llama_like(
        values,
        norm="layer",
        norm_eps=values["norm_epsilon"],
        windows=hf_reading.read_windows(None, sliding, values["sliding_window"]),
        gated=False,
        **dict.fromkeys(biases, values["use_bias"]),
    )


def _starcoder2_tensors(config: Config) -> dict[str, Tensor]:
    outputs = {"attention_out": "self_attn.o_proj", "mlp_out": "mlp.c_proj"}
    return llama.llama_tensors(config, llama.LLAMA_ATTENTION | {"mlp_in": "mlp.c_fc"}, outputs)


_SMOLLM3_KEYS = keys.family(
    llama.EVERY
    | llama.ATTENTION_BIAS
    | llama.LAYER_TYPES
    | {
        "num_key_value_heads": Key(optional(keys.COUNT), 4),
        "max_position_embeddings": Key(keys.COUNT, 32_768),
        "pad_token_id": Key(optional(keys.TOKEN), 128_004),
        "tie_word_embeddings": Key(keys.FLAG, True),
        "mlp_bias": Key(keys.FLAG, False),
        "no_rope_layers": Key(optional(keys.FLAGS), None),
        "no_rope_layer_interval": Key(keys.COUNT, 4),
        "use_sliding_window": Key(keys.FLAG, False),
        "sliding_window": Key(llama.WINDOW, None),
    },
    # Left by the code that it was converted with; layer_types say what it could.
    f"{llama.INERT} max_window_layers",
)


def _smollm3_config(values: Values) -> Config:
    num_layers, every = values["num_hidden_layers"], values["no_rope_layer_interval"]
    rotated = values["no_rope_layers"]
    if rotated is None:
        rotated = [(i + 1) % every != 0 for i in range(num_layers)]
    if len(rotated) < num_layers:
        raise InputError(
            f"config.json: no_rope_layers must have a number for each of {num_layers} layers, "
            f"found {len(rotated)}."
        )
    plain = tuple(i for i in range(num_layers) if not rotated[i])
    sliding = [i in plain for i in range(num_layers)]
    window = values["sliding_window"] if values["use_sliding_window"] else None
    return llama_like(
        values,
        rope=_rope(values, theta=2_000_000.0),
        unrotated=plain,
        windows=hf_reading.read_windows(values["layer_types"], sliding, window),
        mlp_bias=values["mlp_bias"],
        **attention_bias(values),
    )


_COHERE_KEYS = keys.family(
    _MEAN_NORM
    | llama.ATTENTION_BIAS
    | _LAYER_NORM_EPS
    | {
        "max_position_embeddings": Key(keys.COUNT, 8192),
        "pad_token_id": Key(optional(keys.TOKEN), 0),
        "tie_word_embeddings": Key(keys.FLAG, True),
        "logit_scale": Key(optional(keys.number(0, 1e6, above=True)), 0.0625),
        # Those of 104B have a norm of its own for each head.
        "use_qk_norm": keys.only(False),
    },
    llama.INERT,
)


def _cohere_config(values: Values) -> Config:
    if values["logit_scale"] is None:
        raise InputError("config.json: logit_scale must be a number, found None.")
    rope = dataclasses.replace(_rope(values, theta=500_000.0), interleaved=True)
    return llama_like(
        values,
        rope=rope,
        norm="layer",
        norm_bias=False,
        norm_eps=values["layer_norm_eps"],
        parallel=True,
        shared_norm=True,
        logit_scale=values["logit_scale"],
        **attention_bias(values),
    )


FAMILIES = {
    "stablelm": llama.family(_STABLELM_KEYS, _stablelm_config),
    "olmo": llama.family(_OLMO_KEYS, _olmo_config),
    "olmo2": llama.family(_OLMO2_KEYS, _olmo2_config),
    "granite": llama.family(_GRANITE_KEYS, _granite_config),
    "starcoder2": llama.family(_STARCODER2_KEYS, _starcoder2_config, _starcoder2_tensors),
    "smollm3": llama.family(_SMOLLM3_KEYS, _smollm3_config),
    "cohere": llama.family(_COHERE_KEYS, _cohere_config),
}
