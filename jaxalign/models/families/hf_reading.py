"""Reading Hugging Face's config.json, and naming its tensors: what the families share.

A key that is missing from config.json has Hugging Face's default. Only sizes must be there; Gemma's
published files leave out some of these too.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families.decoder import Config
from jaxalign.models.families.layers import Rope
from jaxalign.models.weights import Part, Tensor

_ACTIVATIONS = {
    "relu": "relu",
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

# Our module -> Hugging Face's, or Hugging Face's and which part of its outputs.
Modules = Mapping[str, str | tuple[str, Part]]


def require(hf: dict, **values: Any) -> None:
    """Refuse variants that are not built.

    Raises:
      InputError: if a key is there with another value.
    """
    for key, supported in values.items():
        # Older files write null for false.
        if (found := hf.get(key, supported)) != supported and (found or supported):
            raise InputError(f"config.json: {key} must be {supported!r}, found {found!r}.")


def read_activation(hf: dict, key: str, default: str) -> str:
    """Return the name in `layers.ACTIVATIONS` of what a key names.

    Raises:
      InputError: if it is not built.
    """
    name = hf.get(key) or default
    if name not in _ACTIVATIONS:
        raise InputError(
            f"config.json: {key} must be one of {', '.join(_ACTIVATIONS)}, found {name!r}."
        )
    return _ACTIVATIONS[name]


def read_padding_token(hf: dict, default: int = -1) -> int:
    """Return the padding token, -1 where there is none."""
    token = hf.get("pad_token_id", default)
    return -1 if token is None else token


def read_head_sizes(width: int, heads: int, kv_heads: int, head_size: int = 0) -> dict[str, int]:
    """Return numbers and size of heads; size 0: the width is divided among them.

    Raises:
      InputError: if they do not divide.
    """
    if heads % kv_heads or (not head_size and width % heads):
        raise InputError(
            "config.json: num_key_value_heads must divide num_attention_heads, and that "
            f"hidden_size: found {kv_heads}, {heads} and {width}."
        )
    head_size = head_size or width // heads
    return {"num_heads": heads, "num_kv_heads": kv_heads, "head_size": head_size}


def read_rope(settings: dict, size: int, max_length: int, theta: int | float) -> Rope:
    """Read one set of rotary settings.

    Raises:
      InputError: if the scaling is not built.
    """
    kind = settings.get("rope_type", settings.get("type", "default"))
    rope = {"size": size, "theta": float(settings.get("rope_theta", theta))}
    original = settings.get("original_max_position_embeddings", max_length)
    if kind == "default":
        return Rope(**rope)
    if kind == "linear":
        return Rope(**rope, scaling="linear", factor=float(settings["factor"]))
    if kind == "llama3":
        return Rope(
            **rope,
            scaling="llama3",
            factor=float(settings["factor"]),
            low_factor=float(settings["low_freq_factor"]),
            high_factor=float(settings["high_freq_factor"]),
            original_length=original,
        )
    if kind in ("longrope", "su"):
        return _longrope(settings, rope, original, max_length)
    # "dynamic" rotates every token by an angle that depends on how many tokens follow it.
    raise InputError(
        f"config.json: rope_type must be one of default, linear, llama3, longrope, found {kind!r}."
    )


def _longrope(settings: dict, rope: dict, original: int, max_length: int) -> Rope:
    factors = tuple(map(float, settings["short_factor"]))
    if len(factors) != rope["size"] // 2:
        raise InputError(
            f"config.json: short_factor must have {rope['size'] // 2} numbers, "
            f"found {len(factors)}."
        )
    factor = settings.get("factor") or max_length / original
    magnitude = settings.get("attention_factor")
    if magnitude is None:
        magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return Rope(
        **rope,
        scaling="factors",
        factors=factors,
        magnitude=float(magnitude),
        original_length=original,
    )


def exact_length(rope: Rope, max_length: int) -> int:
    """Return the most tokens that `rope` is exact for.

    Beyond the original length longrope rotates all tokens by other factors, also the first ones:
    their states would depend on what follows.
    """
    return min(max_length, rope.original_length) if rope.scaling == "factors" else max_length


def rope_settings(hf: dict) -> dict:
    """Return rotary settings in the form of transformers 5: one dictionary."""
    settings = dict(hf.get("rope_parameters") or hf.get("rope_scaling") or {})
    for key in ("rope_theta", "partial_rotary_factor"):
        if hf.get(key) is not None:
            settings.setdefault(key, hf[key])
    return settings


def read_windows(hf: dict, sliding: list[bool], window: int | None) -> tuple[int, ...]:
    """Return each layer's window: where `layer_types` names it, or else where `sliding` says.

    Raises:
      InputError: if `layer_types` does not fit.
    """
    types = hf.get("layer_types")
    if types is not None:
        if len(types) != len(sliding) or set(types) - {"sliding_attention", "full_attention"}:
            raise InputError(
                "config.json: layer_types must name each layer sliding_attention or "
                f"full_attention, found {len(types)} of {', '.join(sorted(set(types)))}."
            )
        sliding = [kind == "sliding_attention" for kind in types]
    return tuple(window if slides else 0 for slides in sliding) if window and any(sliding) else ()


def name_tensors(
    outside: Modules, prefix: str, blocks: Modules, *, conv1d: bool = False
) -> dict[str, Tensor]:
    """Name the tensors of our modules after Hugging Face's modules.

    Args:
      outside: modules outside of blocks.
      prefix: of the names of blocks' modules, with `{layer}`.
      blocks: modules of a block.
      conv1d: whether linear maps of blocks are stored as [inputs outputs].
    """
    places = [(ours, where, "", False) for ours, where in outside.items()]
    places += [(f"blocks/{ours}", where, prefix, conv1d) for ours, where in blocks.items()]
    tensors = {}
    for ours, where, front, untransposed in places:
        theirs, part = (where, None) if isinstance(where, str) else where
        theirs = front + theirs
        if ours in ("words", "positions", "segments"):
            tensors[f"{ours}/table"] = Tensor(f"{theirs}.weight")
        elif ours.endswith("norm"):
            tensors[f"{ours}/scale"] = Tensor(f"{theirs}.weight")
            tensors[f"{ours}/bias"] = Tensor(f"{theirs}.bias")
        else:
            tensors[f"{ours}/kernel"] = Tensor(f"{theirs}.weight", not untransposed, part)
            tensors[f"{ours}/bias"] = Tensor(f"{theirs}.bias", part=part)
    return tensors


def fused_by_head(config: Config, name: str) -> dict[str, tuple[str, Part]]:
    """Place queries, keys and values that one map yields head by head."""
    H = config.head_size
    total = 3 * config.num_heads * H
    return {
        ours: (name, Part(i * H, H, 3 * H, total))
        for i, ours in enumerate(("query", "key", "value"))
    }


def fused_in_a_row(name: str, **sizes: int) -> dict[str, tuple[str, Part]]:
    """Place maps that one map yields one after the other."""
    parts, start = {}, 0
    for ours, size in sizes.items():
        parts[ours] = (name, Part(start, size, size, sum(sizes.values())))
        start += size
    return parts


def unused(*patterns: str, head: str = "lm_head") -> Callable[[Config], tuple[str, ...]]:
    """Return which tensors a network leaves unread: see `base.Family.ignored`.

    Args:
      patterns: of buffers, and of parts that are not built.
      head: module that is a copy of the embedding where the two are tied.
    """
    copy = (re.escape(head) + r"\.weight",)
    return lambda config: patterns + (copy if config.tied_embeddings else ())
