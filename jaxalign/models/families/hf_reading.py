"""Reading Hugging Face's config.json, and naming its tensors: what the families share.

A key that is missing from config.json has Hugging Face's default. Only sizes must be there; Gemma's
published files leave out some of these too.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import keys
from jaxalign.models.families.decoder import Config
from jaxalign.models.families.layers import ACTIVATIONS
from jaxalign.models.weights import Part, Tensor

# Name in a file -> name in `layers.ACTIVATIONS`. "gelu" is the exact one.
_ACTIVATIONS = {name: name for name in ACTIVATIONS if name != "gelu_tanh"} | {
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "swish": "silu",
}
ACTIVATION = keys.one_of(_ACTIVATIONS)

# Our module -> Hugging Face's, or Hugging Face's and which part of its outputs.
Modules = Mapping[str, str | tuple[str, Part]]


def activation(name: str) -> str:
    """Return the name in `layers.ACTIVATIONS` of one that `ACTIVATION` allows."""
    return _ACTIVATIONS[name]


def padding_token(values: Mapping[str, Any]) -> int:
    """Return the token whose row of the embedding begins at zero, -1 where there is none."""
    token = values["pad_token_id"]
    return -1 if token is None or token >= values["vocab_size"] else token


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


def read_windows(
    types: list[str] | None, sliding: list[bool], window: int | None
) -> tuple[int, ...]:
    """Return each layer's window: where `layer_types` names it, or else where `sliding` says.

    Raises:
      InputError: if `layer_types` does not fit.
    """
    if types is not None:
        if len(types) != len(sliding) or set(types) - {"sliding_attention", "full_attention"}:
            raise InputError(
                "config.json: layer_types must name each layer sliding_attention or "
                f"full_attention, found {len(types)} of "
                f"{', '.join(map(keys.shown, sorted(set(types))))}."
            )
        sliding = [kind == "sliding_attention" for kind in types]
        if any(sliding) and not window:
            raise InputError(
                "config.json: sliding_window must be set where layer_types names "
                "sliding_attention: it is null or not used."
            )
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
        elif ours == "head_bias":
            tensors[f"{ours}/bias"] = Tensor(f"{theirs}.bias")
        elif ours.endswith("norm"):
            tensors[f"{ours}/scale"] = Tensor(f"{theirs}.weight")
            tensors[f"{ours}/bias"] = Tensor(f"{theirs}.bias")
        else:
            tensors[f"{ours}/kernel"] = Tensor(f"{theirs}.weight", not untransposed, part)
            tensors[f"{ours}/bias"] = Tensor(f"{theirs}.bias", part=part)
    return tensors


def fused_by_head(config: Config, name: str) -> dict[str, tuple[str, Part]]:
    """Place queries, keys and values that one map yields, for one key-value head after the other.

    Each stands behind the queries that share it.
    """
    H, queries = config.head_size, config.num_heads // config.num_kv_heads * config.head_size
    stride = queries + 2 * H
    sizes = {"query": (0, queries), "key": (queries, H), "value": (queries + H, H)}
    return {
        ours: (name, Part(start, size, stride, config.num_kv_heads * stride))
        for ours, (start, size) in sizes.items()
    }


def fused_in_a_row(name: str, **sizes: int) -> dict[str, tuple[str, Part]]:
    """Place maps that one map yields one after the other."""
    parts, start = {}, 0
    for ours, size in sizes.items():
        parts[ours] = (name, Part(start, size, size, sum(sizes.values())))
        start += size
    return parts


# Heads for other tasks, which no activation passes through.
_OTHER_HEADS = (
    r"(score|classifier|qa_outputs|classification_head|multiple_choice_head|v_head)\..*",
)


def unused(*patterns: str) -> Callable[[Config], tuple[str, ...]]:
    """Return which tensors a network leaves unread: see `base.Family.ignored`.

    Args:
      patterns: of buffers, and of parts that are not built.
    """
    return lambda config: patterns + _OTHER_HEADS


def written(prefix: str, head: str) -> Callable[[Any], dict[str, str]]:
    """Return how names begin that transformers writes: see `base.Family.written`.

    Args:
      prefix: of all names but the head's.
      head: the module that predicts tokens.
    """
    return lambda config: {f"{head}.": f"{head}.", "": prefix}


def copies(head: str, words: str) -> Callable[[Config], dict[str, str]]:
    """Return which tensors are copies of the embedding's table: see `base.Family.copies`.

    Args:
      head: the module that predicts tokens.
      words: the module of the embedding.
    """
    return lambda config: {f"{head}.weight": f"{words}.weight"} if config.tied_embeddings else {}
