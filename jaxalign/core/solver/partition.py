"""What each feature band explains: R2 and Pearson r split over bands, and what bands share."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.core import metrics
from jaxalign.core.folds import Split

# R2 of a correlation of .05, the floor of ceilings: nothing is divided by less.
LEAST_R2 = 0.05**2


class Shares(NamedTuple):
    """What a model and a set of controls explain of the same targets, R2 of any one kind.

    Attributes:
      model, controls, joint: R2 of each alone, and of both as bands.
      unique_model: joint - controls.
      unique_controls: joint - model.
      shared: model + controls - joint.
      omega: percent of what the model explains that the controls explain too,
        100 (1 - (joint - controls) / model). Above 100 where the model takes from the controls,
        below 0 where it gains by them; NaN where the model explains next to nothing (R2 below
        `LEAST_R2`), for a share of that is noise of any size.
    """

    model: Float[np.ndarray, "*s"]
    controls: Float[np.ndarray, "*s"]
    joint: Float[np.ndarray, "*s"]
    unique_model: Float[np.ndarray, "*s"]
    unique_controls: Float[np.ndarray, "*s"]
    shared: Float[np.ndarray, "*s"]
    omega: Float[np.ndarray, "*s"]


def shares(
    model: Float[np.ndarray, "*s"],
    controls: Float[np.ndarray, "*s"],
    joint: Float[np.ndarray, "*s"],
) -> Shares:
    """Divide what a model and a set of controls explain into unique and shared parts.

    Nothing is clipped. To count a negative R2 as 0 before averaging over targets, as some do, clip
    the arguments. Omega is a ratio: that of averages is not the average of omegas.

    Args:
      model: R2 of the model alone.
      controls: R2 of all controls together.
      joint: R2 of both.

    Source: omega as in Hadidi, Feghhi et al. (2025), bioRxiv 2025.03.09.642245.
    """
    one, other = frozenset({"model"}), frozenset({"controls"})
    parts = variance_partition({one: model, other: controls, one | other: joint})
    ratio = np.divide(
        parts[one], model, out=np.full(np.shape(model), np.nan), where=model >= LEAST_R2
    )
    return Shares(
        model, controls, joint, parts[one], parts[other], parts[one | other], 100 * (1 - ratio)
    )


def r2_out_of_sample(
    r2: Float[np.ndarray, "k v"], Y: Float[np.ndarray, "n v"], splits: Sequence[Split]
) -> Float[np.ndarray, " v"]:
    """Return R2, over all folds, against a model that predicts the mean of the training responses.

    1 - sum_k SSE_k / sum_k SST_k, with SST_k about the mean of fold k's training responses. The
    usual R2 takes the mean of the test responses, which no model has seen. So predicting the
    training mean gives exactly 0, and folds are weighted by their variance. A target whose R2 is
    undefined in a fold (constant there) is NaN.

    Args:
      r2: of each fold about the mean of its test responses, as `cv.Nested.r2`.
      Y: responses.
      splits: of each fold.

    Raises:
      ValueError: if there is not one split for each row of `r2`.

    Source: Hawinkel, Waegeman and Maere (2024), Out-of-sample R2: estimation and inference, The
    American Statistician 78.
    """
    if len(splits) != len(r2):
        raise ValueError(
            f"There must be a split for each row of r2 ({len(r2)}), got {len(splits)}."
        )
    error, total = np.zeros((2, Y.shape[1]))
    for of_fold, split in zip(r2, splits, strict=True):
        y = Y[split.test].astype(np.float64)
        error += (1 - of_fold) * ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        total += ((y - Y[split.train].mean(axis=0, dtype=np.float64)) ** 2).sum(axis=0)
    return 1 - np.divide(error, total, out=np.full(len(total), np.nan), where=total > 0)


def product_measure(
    contributions: Float[np.ndarray, "g n v"], Y: Float[np.ndarray, "n v"]
) -> Float[np.ndarray, "g v"]:
    """Split R2 over bands, by the product measure.

    With c_b and y about their means over these samples, the part of band b is
    sum (2 y - sum_b' c_b') c_b / sum y^2, and the parts add up to 1 - sum (y - sum_b c_b)^2 /
    sum y^2: the R2 of the predictions, but for a difference of the means, which no band accounts
    for. A part may be negative. NaN for a constant target.

    Args:
      contributions: predictions of each band, from `banded.predict_bands`.
      Y: responses of the same samples.

    Source: Hoffman (1960), The paramorphic representation of clinical judgment, and Pratt (1987),
    Dividing the indivisible, for least squares, where the part is sum y c_b / sum y^2; for any
    predictions, la Tour et al. (2022).
    """
    y, total, defined = _about_means(contributions, Y)
    square = np.where(defined, (y**2).sum(axis=0), np.nan)
    # The other factor has mean 0, so the mean of the contribution cancels.
    return np.stack([((2 * y - total) * part).sum(axis=0) / square for part in contributions])


def correlation_split(
    contributions: Float[np.ndarray, "g n v"], Y: Float[np.ndarray, "n v"]
) -> Float[np.ndarray, "g v"]:
    """Split Pearson r over bands: the covariance of each with y, over the scale of r.

    The parts add up to the correlation of the whole prediction. NaN where it or a target is
    constant.

    Args:
      contributions: predictions of each band, from `banded.predict_bands`.
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
      scores: R2 of the models of every non-empty set of bands, arrays of one shape.

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


def percentages(
    parts: Mapping[frozenset, Float[np.ndarray, "*s"]],
) -> dict[frozenset, Float[np.ndarray, "*s"]]:
    """Return parts in percent of their sum, which is what all bands explain together.

    Percentages add up to 100. One may be negative, and then others exceed 100 together: nothing is
    clipped. NaN where all bands together explain nothing (a sum of 0 or less), for there is nothing
    to divide.

    Args:
      parts: from `variance_partition`; of averages over targets, for those of single targets that
        are hardly predicted have no useful mean.

    Source: Oota et al. (2025), arXiv 2506.08277, table 13, which divides normalised alignment.
    """
    total = np.asarray(sum(parts.values()))
    whole = np.where(total > 0, total, np.nan)
    return {s: np.asarray(100 * part / whole) for s, part in parts.items()}


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
