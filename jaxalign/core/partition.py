"""What each feature band explains: R2 and Pearson r split over bands, and what bands share."""

import itertools
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float

from jaxalign.core import metrics


def product_measure(
    contributions: Float[np.ndarray, "g n v"], Y: Float[np.ndarray, "n v"]
) -> Float[np.ndarray, "g v"]:
    """Split R2 over bands, by the product measure.

    With c_b and y about their means over these samples, the part of band b is
    sum (2 y - sum_b' c_b') c_b / sum y^2, and the parts add up to 1 - sum (y - sum_b c_b)^2 /
    sum y^2: the R2 of the predictions, but for a difference of the means, which no band accounts
    for. A part may be negative. NaN for a constant target.

    Args:
      contributions: predictions of each band, from `predict_bands`.
      Y: responses of the same samples.

    Source: Hoffman (1960), The paramorphic representation of clinical judgment, and Pratt (1987),
    Dividing the indivisible, for least squares, where the part is sum y c_b / sum y^2; for any
    predictions, la Tour et al. (2022).
    """
    y, total, defined = _about_means(contributions, Y)
    square = np.where(defined, (y**2).sum(axis=0), np.nan)
    # The other factor has mean 0, so that of the contribution need not be taken out.
    return np.stack([((2 * y - total) * part).sum(axis=0) / square for part in contributions])


def correlation_split(
    contributions: Float[np.ndarray, "g n v"], Y: Float[np.ndarray, "n v"]
) -> Float[np.ndarray, "g v"]:
    """Split Pearson r over bands: the covariance of each with y, over the scale of r.

    The parts add up to the correlation of the whole prediction. NaN where it or a target is
    constant.

    Args:
      contributions: predictions of each band, from `predict_bands`.
      Y: responses of the same samples.
    """
    y, total, defined = _about_means(contributions, Y)
    defined = defined & ~metrics.is_constant(contributions.sum(axis=0))
    scale = np.where(defined, np.sqrt((y**2).sum(axis=0) * (total**2).sum(axis=0)), np.nan)
    return np.stack([(y * part).sum(axis=0) / scale for part in contributions])


def variance_partition(
    scores: Mapping[frozenset, Float[np.ndarray, "*s"]],
) -> dict[frozenset, Float[np.ndarray, "*s"]]:
    """Divide R2 into what each band explains alone, and what sets of bands share.

    The part of a set S of bands is what all of S explain, each in place of the others, and no band
    outside of S does: with F all bands, sum over subsets T of S of (-1)^(|T| + 1) R2(T and F - S).
    For bands a and b: R2(ab) - R2(b), R2(ab) - R2(a), and R2(a) + R2(b) - R2(ab), which they share.
    The parts add up to R2(F). They may be negative, on held-out samples and where one band
    suppresses noise of another. NaN stays NaN.

    Args:
      scores: R2 of the models of every non-empty set of bands, arrays of one shape;
        `banded.subset_scores` computes them.

    Returns:
      The part of every non-empty set of bands.

    Raises:
      ValueError: if there is no band, or the R2 of a set of bands is missing.

    Source: Mood (1971), Partitioning variance in multiple regression analyses as a tool for
    developing learning models, American Educational Research Journal 8.
    """
    every = frozenset().union(*scores)
    parts = subsets(every)
    if not parts:
        raise ValueError("scores must hold at least one band, got none.")
    missing = [sorted(s, key=str) for s in parts if s not in scores]
    if missing:
        raise ValueError(
            f"scores must hold every non-empty set of {len(every)} bands; {len(missing)} are "
            f"missing, the first is {missing[0]}."
        )
    return {
        s: np.asarray(
            sum(
                (-1) ** (len(t) + 1) * scores[t | (every - s)]
                for t in (frozenset(), *subsets(s))
                if t | (every - s)
            )
        )
        for s in parts
    }


def subsets(bands: Iterable) -> list[frozenset]:
    """Return every non-empty set of bands, small ones first.

    Args:
      bands: labels.
    """
    items = sorted(bands, key=str)
    sizes = range(1, len(items) + 1)
    return [frozenset(s) for size in sizes for s in itertools.combinations(items, size)]


def _about_means(contributions, Y):
    """Return responses and predictions about their means, and which responses vary."""
    y = Y.astype(np.float64)
    total = contributions.sum(axis=0, dtype=np.float64)
    return y - y.mean(axis=0), total - total.mean(axis=0), ~metrics.is_constant(Y)
