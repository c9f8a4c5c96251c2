"""Bootstrap intervals over subjects, blocks of stimuli, or both, for all targets at once.

A resample is how often each unit was drawn, so that a statistic of weighted sums over units is a
product of matrices for all resamples and targets. Units must be independent: subjects, passages,
runs, or blocks of samples longer than the autocorrelation.

Predictions are not made anew. So intervals over blocks of stimuli are for predictions of what was
fitted to other data (a test run), and say how these very fits do on new stimuli. In a
cross-validation each block trains the fits that predict the others, scores vary more than
resamples do, and 95 % intervals covered 84 to 92 % in simulations: `stats.crossed_interval` is for
its scores.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from jaxalign.core.features import Labels, members
from jaxalign.core.inference.orders import check_samples
from jaxalign.core.metrics import is_constant, is_flat

Kind = Literal["bca", "percentile"]
# From how often each unit of each kind was drawn, [q u] each, to values [q v].
Statistic = Callable[..., Float[np.ndarray, "q v"]]

# Resamples at a time.
BATCH = 256
# Differences that are rounding, in standard deviations of the resampled values.
TIE = 1e-9


class Estimate(NamedTuple):
    """Statistics with confidence intervals; NaN where undefined."""

    value: Float[np.ndarray, " v"]
    low: Float[np.ndarray, " v"]
    high: Float[np.ndarray, " v"]


def interval(
    statistic: Statistic,
    sizes: Sequence[int | np.integer],
    *,
    num: int,
    rng: np.random.Generator,
    confidence: float = 0.95,
    kind: Kind = "bca",
) -> Estimate:
    """Return bootstrap intervals of statistics of independent units.

    Units of each kind are drawn with replacement, each kind by itself: of subjects and blocks that
    all of them saw, both vary (two-level). Percentile intervals are quantiles of the resampled
    values; BCa intervals move these by the bias (z0, from the share of values below the
    statistic) and by how its variance changes with it (a, from leaving out one unit at a time),
    alpha' = Phi(z0 + (z0 + z) / (1 - a (z0 + z))). Neither is exact: both are too narrow with few
    units, by about sqrt((u - 1) / u) and for the normal in place of Student's t. For a mean over
    10 subjects 95 % intervals cover about 90 %; there `stats.mean_interval` is better.

    Args:
      statistic: from how often each unit was drawn to values; see `mean_over` and others below.
      sizes: number of units of each kind, in the order of the statistic's arguments.
      num: resamples.
      rng: source of all draws.
      confidence: nominal coverage.
      kind: see above.

    Returns:
      The statistic of all units once, and its interval; NaN where any resample is undefined, or
      for BCa where all lie on one side of the statistic.

    Raises:
      ValueError: if there are fewer than 2 units of a kind, or `num` or `confidence` is out of
        range.

    Source: Efron (1987), J. Am. Stat. Assoc. 82, for BCa; Efron and Tibshirani (1993), An
    Introduction to the Bootstrap, eq. 14.15; Davison and Hinkley (1997), Bootstrap Methods and
    their Application, section 5.4, for a of several kinds of units.
    """
    if any(size < 2 for size in sizes) or not len(sizes):
        raise ValueError(f"A bootstrap needs at least 2 units of every kind, got {list(sizes)}.")
    if num < 1:
        raise ValueError(f"num must be >= 1, got {num}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    drawn = [_counts(size, num, rng) for size in sizes]
    batches = [slice(start, start + BATCH) for start in range(0, num, BATCH)]
    values = np.concatenate([statistic(*(x[own] for x in drawn)) for own in batches])
    value = statistic(*(np.ones((1, size)) for size in sizes))[0]
    z = special.ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))[:, None]
    shares = np.broadcast_to(special.ndtr(z), (2, len(value)))
    if kind == "bca":
        # A resample of every unit once is equal to the statistic, but for rounding.
        tie = TIE * values.std(axis=0)
        below = ((values < value - tie).mean(axis=0) + (values <= value + tie).mean(axis=0)) / 2
        moved = special.ndtri(below) + z
        with np.errstate(invalid="ignore"):  # infinite where all lie on one side
            shares = special.ndtr(
                special.ndtri(below) + moved / (1 - _acceleration(statistic, sizes) * moved)
            )
    low, high = _quantiles(values, shares)
    return Estimate(value, low, high)


def _counts(size, num, rng) -> Float[np.ndarray, "q u"]:
    """Draw with replacement, and count."""
    drawn = rng.integers(0, size, (num, size)) + size * np.arange(num)[:, None]
    return np.bincount(drawn.ravel(), minlength=num * size).reshape(num, size).astype(np.float64)


def _acceleration(statistic, sizes) -> Float[np.ndarray, " v"]:
    """Skewness of the influence of units, over 6; 0 where no unit has any."""
    cubes, squares = 0.0, 0.0
    for kind, size in enumerate(sizes):
        counts = [np.ones((size, other)) for other in sizes]
        counts[kind] = 1 - np.eye(size)
        left_out = statistic(*counts)
        influence = (size - 1) * (left_out.mean(axis=0) - left_out) / size
        cubes = cubes + (influence**3).sum(axis=0)
        squares = squares + (influence**2).sum(axis=0)
    squares = np.asarray(squares)
    return np.where(squares > 0, cubes / np.where(squares > 0, squares, 1.0) ** 1.5, squares) / 6


def _quantiles(values: Float[np.ndarray, "q v"], shares: Float[np.ndarray, "2 v"]):
    """Quantiles of each column at shares of its own, between neighbours linearly; NaN stays."""
    undefined = np.isnan(values).any(axis=0) | np.isnan(shares).any(axis=0)
    place = np.where(undefined, 0.0, shares) * (len(values) - 1)
    ordered = np.sort(values, axis=0)
    below = np.floor(place).astype(int)
    low, high = (
        np.take_along_axis(ordered, np.minimum(below + step, len(values) - 1), axis=0)
        for step in (0, 1)
    )
    return np.where(undefined, np.nan, low + (place - below) * (high - low))


# Statistics.


def mean_over(values: Float[np.ndarray, "u v"]) -> Statistic:
    """Return the mean over units (subjects, or folds) as a statistic of one kind of unit.

    Args:
      values: of each unit and target; NaN are left out.
    """
    defined = ~np.isnan(values)
    known = np.where(defined, values, 0.0)

    def statistic(counts):
        return _ratio(counts @ known, counts @ defined.astype(np.float64))

    return statistic


def mean_over_both(values: Float[np.ndarray, "s u v"]) -> Statistic:
    """Return the mean over subjects and blocks, as a statistic of both.

    Args:
      values: of each subject, block of stimuli and target; NaN are left out.
    """
    defined = ~np.isnan(values)
    known = np.where(defined, values, 0.0)

    def statistic(subjects, blocks):
        total = lambda x: np.einsum("qs,qu,suv->qv", subjects, blocks, x, optimize=True)
        return _ratio(total(known), total(defined.astype(np.float64)))

    return statistic


class Sums(NamedTuple):
    """What blocks of samples add to a correlation, about the means of their folds."""

    products: Float[np.ndarray, "*s u v"]
    predicted: Float[np.ndarray, "*s u v"]  # squares
    recorded: Float[np.ndarray, "*s u v"]  # squares


def block_sums(
    predicted: Float[np.ndarray, "n v"],
    recorded: Float[np.ndarray, "n v"],
    folds: Sequence[Int[np.ndarray, " _"]],
    units: Labels,
) -> Sums:
    """Sum over units of resampling what the correlation within folds consists of.

    Deviations are from the mean of each fold's test samples, as fold by fold predictions have
    means of their own, which say nothing. A fold in which either is constant adds nothing; NaN
    makes a target undefined.

    Args:
      predicted: held-out predictions.
      recorded: responses.
      folds: test samples of each fold.
      units: the unit of each sample: passage, run, or block of neighbours (`blocks`).

    Raises:
      ValueError: if shapes differ.
    """
    check_samples(predicted, recorded, units)
    p, y = (np.zeros(predicted.shape) for _ in range(2))
    for fold in folds:
        varies = ~(is_flat(predicted[fold]) | is_constant(recorded[fold]))
        for apart, values in ((p, predicted), (y, recorded)):
            own = values[fold].astype(np.float64)
            apart[fold] = np.where(varies, own - own.mean(axis=0), 0.0)
    own = list(members(units).values())
    total = lambda x: np.stack([x[rows].sum(axis=0) for rows in own])
    return Sums(total(p * y), total(p**2), total(y**2))


def blocks(run: Labels, length: int) -> Int[np.ndarray, " n"]:
    """Number blocks of neighbouring samples of each run; the last of a run may be shorter.

    Args:
      run: run of each sample; samples of a run are in order of time.
      length: samples per block, several times the autocorrelation time.

    Raises:
      ValueError: if `length` is less than 1.
    """
    if length < 1:
        raise ValueError(f"length must be >= 1, got {length}.")
    found, first = np.empty(len(run), int), 0
    for own in members(run).values():
        found[own] = first + np.arange(len(own)) // length
        first = found[own[-1]] + 1
    return found


def correlation_over(sums: Sums) -> Statistic:
    """Return the correlation of predictions and responses as a statistic of blocks.

    Args:
      sums: from `block_sums`.
    """

    def statistic(counts):
        return _correlate(*(counts @ x for x in sums))

    return statistic


def correlation_over_both(sums: Sums) -> Statistic:
    """Return the mean over subjects of their correlations, as a statistic of subjects and blocks.

    A subject whose correlation is undefined is left out.

    Args:
      sums: from `block_sums` of each subject, stacked [s u v]; blocks are the same stimuli.
    """

    def statistic(subjects, blocks):
        r = _correlate(*(np.einsum("qu,suv->sqv", blocks, x, optimize=True) for x in sums))
        defined = ~np.isnan(r)
        total = lambda x: np.einsum("qs,sqv->qv", subjects, x)
        return _ratio(total(np.where(defined, r, 0.0)), total(defined.astype(np.float64)))

    return statistic


def _correlate(products, predicted, recorded):
    return _ratio(products, np.sqrt(predicted) * np.sqrt(recorded))


def _ratio(above, below):
    """Divide; NaN by 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
