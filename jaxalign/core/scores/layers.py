"""The choice of a layer inside the training data: one rule for protocols, targets and tables."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.core.features import Labels, members
from jaxalign.core.metrics import mean_defined


class Choice(NamedTuple):
    """The layer chosen in each fold (and by each target)."""

    layer: Int[np.ndarray, "*k"]  # index among the layers; 0 where none can be chosen
    known: Bool[np.ndarray, "*k"]  # False where no layer has a defined score to be chosen by


def choose(inner: Float[np.ndarray, "l *k"]) -> Choice:
    """Choose the layer with the highest score on the inner splits, fold by fold.

    Of equal scores the first layer is chosen. NaN is undefined and never chosen. -inf (an R2 whose
    squared error left the range of floats) is a score, the worst there is: a layer that has it is
    chosen only where all others are -inf or NaN. A single layer needs no score to be chosen.

    Args:
      inner: score of each layer, on splits of the training data alone.
    """
    undefined = np.isnan(inner)
    bounded = np.maximum(inner, np.finfo(inner.dtype).min)
    layer = np.where(undefined, -np.inf, bounded).argmax(axis=0)
    return Choice(np.asarray(layer), np.asarray(~undefined.all(axis=0) | (len(inner) == 1)))


def choose_for_groups(inner: Float[np.ndarray, "l k v"], groups: Labels | None = None) -> Choice:
    """Choose one layer for each fold and group of targets, by the mean over the group's targets.

    Targets whose score is undefined are left out of the mean.

    Args:
      inner: score of each layer and target on the inner splits.
      groups: of each target: its subject (as protocols have it), or its subject and ROI (as rows
        and tables have it); None: all are one group.
    """
    _, k, v = inner.shape
    layer, known = np.zeros((k, v), int), np.ones((k, v), bool)
    for targets in members([""] * v if groups is None else groups).values():
        found = choose(mean_defined(inner[..., targets], axis=-1))
        layer[:, targets], known[:, targets] = found.layer[:, None], found.known[:, None]
    return Choice(layer, known)


def take(values: Float[np.ndarray, "l *k"], choice: Choice) -> Float[np.ndarray, "*k"]:
    """Return the values of the layers chosen; NaN where none could be.

    Args:
      values: of each layer, fold and target.
      choice: from `choose` or `choose_for_groups`.
    """
    taken = np.take_along_axis(values, choice.layer[None], axis=0)[0]
    return np.where(choice.known, taken, np.nan)
