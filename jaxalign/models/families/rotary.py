"""Reading the rotary settings of a `config.json`: where they stand, and which rotation they mean.

Where two places say something, transformers decides: `rope_scaling` beside `rope_parameters`
replaces them, a number within either is heard before the key of the same name at the top level,
and `original_max_position_embeddings` at the top level before the one within.
"""

import math
from collections.abc import Mapping
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import keys
from jaxalign.models.families.keys import Key, Keys, optional
from jaxalign.models.families.layers import Rope

THETA = keys.number(1, 1e15, above=True)
SHARE = keys.number(0, 1, above=True)
_FACTOR = keys.number(0, 1e6, above=True)
_ORIGINAL = keys.integer(2)

# What a family with rotary positions may have at the top level.
KEYS = {
    "rope_parameters": Key(optional(keys.MAPPING), None),
    "rope_scaling": Key(optional(keys.MAPPING), None),
    "rope_theta": Key(optional(THETA), None),
    "partial_rotary_factor": Key(optional(SHARE), None),
    "original_max_position_embeddings": Key(optional(_ORIGINAL), None),
}

_EVERY_KIND = {
    "rope_type": Key(optional(keys.NAME), None),
    "type": Key(optional(keys.NAME), None),
    "rope_theta": Key(optional(THETA), None),
    "partial_rotary_factor": Key(optional(SHARE), None),
}
_ORIGINAL_KEY = {"original_max_position_embeddings": Key(optional(_ORIGINAL), None)}
_MAGNITUDE = {"attention_factor": Key(optional(keys.number(0, 1e6)), None)}
# Keys of each kind, in addition to those of every kind.
KINDS = {
    "default": {},
    "linear": {"factor": Key(_FACTOR)},
    "llama3": {
        "factor": Key(_FACTOR),
        "low_freq_factor": Key(_FACTOR),
        "high_freq_factor": Key(_FACTOR),
    }
    | _ORIGINAL_KEY,
    "longrope": {
        "short_factor": Key(keys.NUMBERS),
        "long_factor": Key(optional(keys.NUMBERS), None),
        "factor": Key(optional(_FACTOR), None),
    }
    | _ORIGINAL_KEY
    | _MAGNITUDE,
    "yarn": {
        "factor": Key(optional(_FACTOR), None),
        "beta_fast": Key(optional(_FACTOR), None),
        "beta_slow": Key(optional(_FACTOR), None),
        "mscale": Key(optional(keys.number(0, 1e6)), None),
        "mscale_all_dim": Key(optional(keys.number(0, 1e6)), None),
        "truncate": Key(keys.FLAG, True),
    }
    | _ORIGINAL_KEY
    | _MAGNITUDE,
    "dynamic": {"factor": Key(_FACTOR)},
}
_INERT = {"yarn": ("finetuned",)}  # of the first files, about training
# What the first files called it.
_OLDER_KINDS = {"su": "longrope"}


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one dictionary of what the keys of `KEYS` say."""
    found = dict(values["rope_scaling"] or values["rope_parameters"] or {})
    for name in ("rope_theta", "partial_rotary_factor"):
        if values[name] is not None:
            found.setdefault(name, values[name])
    if values["original_max_position_embeddings"] is not None:
        found["original_max_position_embeddings"] = values["original_max_position_embeddings"]
    return found


def read(
    found: Mapping[str, Any],
    head_size: int,
    max_length: int,
    *,
    theta: float = 10_000.0,
    whole: bool = True,
) -> Rope:
    """Read one set of rotary settings.

    Args:
      found: the settings.
      head_size: entries of a head.
      max_length: the most tokens, `max_position_embeddings`.
      theta: what a missing rope_theta means.
      whole: whether the family rotates all entries of a head.

    Raises:
      InputError: if they ask for a rotation that is not built.
    """
    kind = _kind(found)
    # At the top level a length may stand that the kind has no use for.
    unused = set(_ORIGINAL_KEY) - set(KINDS[kind])
    given = {name: value for name, value in found.items() if name not in unused}
    values = keys.read(
        Keys(_EVERY_KIND | KINDS[kind], _INERT.get(kind, ())),
        given,
        source="config.json: rotary settings",
        owner=f"rope_type {kind!r}",
    )
    share = 1.0 if values["partial_rotary_factor"] is None else values["partial_rotary_factor"]
    size = int(head_size * share)
    # transformers rounds an odd number up to pairs, where it does not fail.
    odd = size % 2 == 1 and kind not in ("yarn", "longrope")
    if whole and share != 1:
        raise InputError(
            f"config.json: partial_rotary_factor must be 1 in this family, found {share!r}."
        )
    check_size(size + odd, head_size)
    rope = {
        "size": size + odd,
        "odd": odd,
        "theta": float(theta if values["rope_theta"] is None else values["rope_theta"]),
    }
    original = values.get("original_max_position_embeddings") or max_length
    if kind == "linear":
        return Rope(**rope, scaling="linear", factor=float(values["factor"]))
    if kind == "llama3":
        return _llama3(values, rope, original)
    if kind == "longrope":
        return _longrope(values, rope, original, max_length)
    if kind == "yarn":
        return _yarn(values, rope, original, max_length)
    # "dynamic" rotates as "default" up to max_position_embeddings, where a row ends.
    return Rope(**rope)


def check_size(size: int, head_size: int) -> None:
    """Refuse a number of rotated entries that are no pairs of a head.

    Raises:
      InputError: naming the number.
    """
    if size % 2 or not 0 < size <= head_size:
        raise InputError(
            "config.json: the rotated entries of a head (rotary_dim, or partial_rotary_factor or "
            f"rotary_pct of its {head_size}) must be an even number up to {head_size}, "
            f"found {size}."
        )


def exact_length(rope: Rope, max_length: int) -> int:
    """Return the most tokens that `rope` is exact for.

    Beyond the original length longrope rotates all tokens by other factors, also the first ones:
    their states would depend on what follows.
    """
    return min(max_length, rope.original_length) if rope.scaling == "factors" else max_length


def _kind(found: Mapping[str, Any]) -> str:
    names = [found[name] for name in ("rope_type", "type") if found.get(name) is not None]
    kinds = [_OLDER_KINDS.get(x, x) if isinstance(x, str) else x for x in names] or ["default"]
    if not isinstance(kinds[0], str) or kinds[0] not in KINDS:
        raise InputError(
            f"config.json: rope_type must be one of {', '.join(KINDS)}, "
            f"found {keys.shown(kinds[0])}."
        )
    if kinds[0] != kinds[-1]:
        raise InputError(
            f"config.json: rope_type and type must agree, found {keys.shown(names[0])} and "
            f"{keys.shown(names[1])}."
        )
    return kinds[0]


def _llama3(values: Mapping[str, Any], rope: dict, original: int) -> Rope:
    low, high = float(values["low_freq_factor"]), float(values["high_freq_factor"])
    if low >= high:
        raise InputError(
            "config.json: high_freq_factor must be above low_freq_factor, found "
            f"{high:g} and {low:g}."
        )
    return Rope(
        **rope,
        scaling="llama3",
        factor=float(values["factor"]),
        low_factor=low,
        high_factor=high,
        original_length=original,
    )


def _longrope(values: Mapping[str, Any], rope: dict, original: int, max_length: int) -> Rope:
    factors = tuple(map(float, values["short_factor"]))
    if len(factors) != rope["size"] // 2:
        raise InputError(
            f"config.json: short_factor must have {rope['size'] // 2} numbers, "
            f"found {len(factors)}."
        )
    factor = values["factor"] or max_length / original
    magnitude = values["attention_factor"]
    if magnitude is None:
        magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return Rope(
        **rope,
        scaling="factors",
        factors=factors,
        magnitude=float(magnitude),
        original_length=original,
    )


def _yarn(values: Mapping[str, Any], rope: dict, original: int, max_length: int) -> Rope:
    factor = float(values["factor"] or max_length / original)
    scale = lambda weight: 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0
    magnitude = values["attention_factor"]
    if magnitude is None:
        above, below = values["mscale"], values["mscale_all_dim"]
        magnitude = scale(above) / scale(below) if above and below else scale(1)
    return Rope(
        **rope,
        scaling="yarn",
        factor=factor,
        low_factor=float(values["beta_slow"] or 1),
        high_factor=float(values["beta_fast"] or 32),
        whole_pairs=values["truncate"],
        magnitude=float(magnitude),
        original_length=original,
    )
