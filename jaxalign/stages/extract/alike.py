"""Layers in which nearly all texts have the same vector."""

from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging
from jaxtyping import Float

COSINE = 0.999  # to the mean direction, above which a vector says little of its text
SHARE = 0.9  # of different texts above which a layer is named
FEWEST = 10  # different texts from which that is a finding


def count(layers: Iterable[Float[np.ndarray, "m u"]], texts: Sequence[str]) -> dict[int, int]:
    """Count in each layer the different texts whose vectors have much the same direction.

    Lone words of a network that puts its largest unit into the first position, as GPT-2 does, are
    the common case: what differs between them is lost in it.

    Args:
      layers: vectors of each, read one after the other.
      texts: of their rows.

    Returns:
      The number, by layer; of layers in which it is large alone.
    """
    _, first = np.unique(np.asarray(texts, dtype=object).astype(str), return_index=True)
    if len(first) < FEWEST:
        return {}
    found = {}
    for layer, vectors in enumerate(layers):
        units = vectors[first].astype(np.float32)
        length = np.linalg.norm(units, axis=1, keepdims=True)
        units /= np.where(length > 0, length, 1)
        mean = units.mean(axis=0)
        number = int((units @ mean > COSINE * np.linalg.norm(mean)).sum())
        if number >= SHARE * len(first):
            found[layer] = number
    return found


def warn(name: str, found: dict[int, int], num_texts: int) -> None:
    """Say in which layers vectors are alike, if there are any."""
    if found:
        logging.warning(
            "extract %s: vectors of %d of %d different texts have a cosine above %g to their mean "
            "(layer %d; so it is in layers %s): they say little of what was read; give a longer "
            "extract.context, or begin rows with a token (extract.bos)",
            name,
            max(found.values()),
            num_texts,
            COSINE,
            max(found, key=lambda layer: found[layer]),
            ", ".join(map(str, found)),
        )
