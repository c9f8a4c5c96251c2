"""Intervals from data drawn anew: bootstraps over blocks of samples, jackknives over groups.

Bootstraps are by weights: a resample is a product with sums of blocks.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import stats

_LARGEST_R = 1 - 1e-12


class Bootstrap(NamedTuple):
    """How a percentile interval is found: samples, or blocks of them, are drawn anew."""

    rng: np.random.Generator  # source of all draws
    confidence: float = 0.95  # coverage
    num_resamples: int = 1000
    # Label of the block of each sample. Samples of a block are drawn together, as those of time
    # series have to be; None: each by itself.
    blocks: Shaped[np.ndarray, " n"] | None = None


def draw(
    bootstrap: Bootstrap, num_samples: int
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "q b"]]:
    """Return each sample's block, and how often each block is in the data (once) and each resample.

    Args:
      bootstrap: how.
      num_samples: of the data.

    Raises:
      ValueError: if a number is out of its range, there is not one label per sample, or there are
        fewer than two blocks.
    """
    check(bootstrap.confidence, bootstrap.num_resamples)
    labels = np.arange(num_samples) if bootstrap.blocks is None else bootstrap.blocks
    if len(labels) != num_samples:
        raise ValueError(
            f"blocks must have one label per sample: {num_samples}, got {len(labels)}."
        )
    names, block = np.unique(labels, return_inverse=True)
    b = len(names)
    if b < 2:
        raise ValueError(f"blocks must be at least 2, to resample them, got {b}.")
    drawn = bootstrap.rng.multinomial(b, np.full(b, 1 / b), size=bootstrap.num_resamples)
    return block.reshape(-1), np.concatenate([np.ones((1, b)), drawn])


def check(confidence: float, num_resamples: int) -> None:
    """Check what every bootstrap takes.

    Args:
      confidence: see `check_confidence`.
      num_resamples: must be positive.

    Raises:
      ValueError: if one is out of its range.
    """
    check_confidence(confidence)
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be >= 1, got {num_resamples}.")


def check_confidence(confidence: float) -> None:
    """Check the coverage that is asked for.

    Args:
      confidence: must lie in (0, 1).

    Raises:
      ValueError: if it does not.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}.")


def block_sums(
    x: Float[np.ndarray, "... n"], block: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "... b"]:
    """Sum over the samples of each block.

    Args:
      x: samples along the last axis.
      block: from `draw`.
    """
    order = np.argsort(block, kind="stable")
    starts = np.flatnonzero(np.diff(block[order], prepend=-1))
    return np.add.reduceat(x[..., order], starts, axis=-1)


def percentiles(
    resampled: Float[np.ndarray, "q *v"], value: Float[np.ndarray, "*v"], confidence: float
) -> tuple[Float[np.ndarray, "*v"], Float[np.ndarray, "*v"]]:
    """Return the ends of the percentile interval; NaN where the value is undefined.

    Args:
      resampled: of each bootstrap; those that are undefined are left out.
      value: of the data.
      confidence: coverage.
    """
    undefined = np.isnan(value) | np.isnan(resampled).all(axis=0)
    tail = 50 * (1 - confidence)
    # Without a number to take the place, a target without any would warn.
    resampled = np.where(undefined, 0.0, resampled)
    if not undefined.size:  # no targets
        return np.empty(undefined.shape), np.empty(undefined.shape)
    low, high = np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def jackknife(
    value: Float[np.ndarray, "*v"],
    left_out: Float[np.ndarray, "g *v"],
    *,
    counted: Bool[np.ndarray, "g *v"] | None = None,
    is_correlation: bool = False,
    confidence: float = 0.95,
) -> tuple[Float[np.ndarray, "*v"], Float[np.ndarray, "*v"]]:
    """Return the ends of Student's t interval with the standard error of a jackknife.

    e^2 = (g - 1) / g sum_i (x_i - mean x)^2, x_i the value without group i, with g - 1 degrees of
    freedom. The value may be any smooth function of independent groups, and the groups' own shares
    in it may depend on one another, as correlations of subjects with the mean of the others do.

    Args:
      value: of all groups (subjects, stories).
      left_out: of all groups but one, for each.
      counted: groups that have a share in the value; None: all.
      is_correlation: find the interval on the scale of Fisher's z, and bring it back: there the
        values of few groups are less skewed, and no end lies beyond 1.
      confidence: coverage.

    Returns:
      The ends, NaN with fewer than two groups, or where a counted one is NaN.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, eq. 11.5.
    """
    has_share = np.ones(left_out.shape, bool) if counted is None else counted
    if is_correlation:
        # Correlations of 1 have no z, those of equal subjects are 1 but for rounding.
        z, z_left = (
            np.asarray(np.arctanh(np.clip(x, -_LARGEST_R, _LARGEST_R))) for x in (value, left_out)
        )
        low, high = jackknife(z, z_left, counted=has_share, confidence=confidence)
        return np.asarray(np.tanh(low)), np.asarray(np.tanh(high))
    g = has_share.sum(axis=0)
    mean = np.where(has_share, left_out, 0.0).sum(axis=0) / np.maximum(g, 1)
    squares = (np.where(has_share, left_out - mean, 0.0) ** 2).sum(axis=0)
    error = np.sqrt((g - 1) / np.maximum(g, 1) * squares, out=np.full(g.shape, np.nan), where=g > 1)
    half = stats.t.ppf((1 + confidence) / 2, np.maximum(g - 1, 1)) * error
    return np.asarray(value - half), np.asarray(value + half)
