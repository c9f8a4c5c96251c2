"""Units that respond more to one condition than to another, and as many random units."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxalign.core import metrics


def welch_t(
    condition: Float[np.ndarray, "n u"], control: Float[np.ndarray, "m u"]
) -> Float[np.ndarray, " u"]:
    """Welch's t of the size of each unit's activation: condition against control.

    (mean|a| - mean|b|) / sqrt(var|a| / n + var|b| / m), variances with n - 1.

    Args:
      condition: activations, one row per item (sentences).
      control: likewise (strings of non-words).

    Returns:
      NaN where the sizes vary in neither.

    Raises:
      ValueError: with fewer than two items of either, or a value that is not finite.

    Source: AlKhamissi, Tuckute, Bosselut and Schrimpf (2025), NAACL, arXiv 2411.02280.
    """
    if min(len(condition), len(control)) < 2:
        raise ValueError(
            f"Welch's t takes two items of either condition, got {len(condition)} and "
            f"{len(control)}."
        )
    if not (np.isfinite(condition).all() and np.isfinite(control).all()):
        raise ValueError("activations must be finite, got some that are not.")
    a, b = np.abs(np.asarray(condition, np.float64)), np.abs(np.asarray(control, np.float64))
    varies = ~(metrics.is_constant(a) & metrics.is_constant(b))
    error = np.sqrt(a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b))
    difference = a.mean(axis=0) - b.mean(axis=0)
    return np.divide(difference, error, out=np.full(len(error), np.nan), where=varies)


def top_units(t: Float[np.ndarray, "L u"], num: int) -> Bool[np.ndarray, "L u"]:
    """Choose the units of the largest t over all layers.

    Of equal ones the lower layer, then the lower unit, is chosen. Units whose t is undefined are
    not.

    Args:
      t: from `welch_t`, layer by layer.
      num: how many.

    Raises:
      ValueError: if fewer have a t.
    """
    defined = int((~np.isnan(t)).sum())
    if not 1 <= num <= defined:
        raise ValueError(f"num must lie in 1..{defined}, the units that have a t, got {num}.")
    order = np.argsort(np.where(np.isnan(t), np.inf, -t), axis=None, kind="stable")
    return _mask(t.shape, order[:num])


class HalfT(NamedTuple):
    """Mean t of units that half of the items choose; means over both directions."""

    chosen: float  # on the items that chose them
    held_out: float  # on the other items
    rest: float  # of all other units, on the other items


def half_t(halves: Float[np.ndarray, "2 L u"], num: int) -> HalfT:
    """Choose units by one half of the items, and look at their t on the other half.

    Units chosen by their t have a high t on the items that chose them by chance alone; on other
    items that is gone. A t of half the items is smaller than one of all by a factor of about
    sqrt(2), so that only halves can be compared with one another.

    Args:
      halves: from `welch_t`, of either half of the items.
      num: how many units are chosen.

    Raises:
      ValueError: as `top_units`.
    """
    found = []
    for chooser, other in (halves, halves[::-1]):
        mask = top_units(chooser, num)
        rest = ~mask & ~np.isnan(other)
        parts = (chooser[mask], other[mask], other[rest])
        found.append([float(metrics.mean_defined(part)) for part in parts])
    return HalfT(*np.mean(found, axis=0).tolist())


def random_units(
    chosen: Bool[np.ndarray, "L u"],
    allowed: Bool[np.ndarray, "L u"],
    rng: np.random.Generator,
) -> Bool[np.ndarray, "L u"]:
    """Draw as many units as were chosen from the allowed ones that were not: a control.

    Args:
      chosen: from `top_units`.
      allowed: units that could have been chosen.
      rng: draws them.

    Raises:
      ValueError: if there are not as many left.
    """
    left = np.flatnonzero(allowed & ~chosen)
    num = int(chosen.sum())
    if num > len(left):
        raise ValueError(
            f"{num} random units must be drawn from those left, which are {len(left)}."
        )
    return _mask(chosen.shape, rng.choice(left, num, replace=False))


def _mask(shape, index) -> Bool[np.ndarray, "L u"]:
    mask = np.zeros(shape, bool)
    mask.flat[index] = True
    return mask
