"""Noise ceilings extrapolated to infinitely many subjects, from subsets of those there are.

The more subjects there are to predict one that is left out, the better they do
(`core/ceilings/subsets.py`). The level that a saturating curve reaches is the ceiling.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from jaxalign.core import metrics
from jaxalign.core.ceilings import saturation
from jaxalign.core.ceilings.ceiling import Ceiling
from jaxalign.core.ceilings.saturation import Family
from jaxalign.core.ceilings.subsets import SubsetScores
from jaxalign.core.inference import resampling
from jaxalign.core.inference.stats import fisher_ends

Undefined = Literal["omit", "zero"]


class Extrapolation(NamedTuple):
    """A ceiling extrapolated over subjects."""

    ceiling: Ceiling  # median over targets: of values, and of the ends of their intervals
    targets: Ceiling  # of each target; `num` is that of scores it rests on
    v0: Float[np.ndarray, "q v"]  # level of the curve fitted to each bootstrap
    tau0: Float[np.ndarray, "q v"]  # its scale, in subjects; NaN where v0 is 0
    num_undefined: int  # scores that were undefined


def extrapolate(
    scores: SubsetScores,
    *,
    family: Family = "exponential",
    undefined: Undefined = "omit",
    num_resamples: int = 100,
    seed: int = 0,
    confidence: float = 0.95,
) -> Extrapolation:
    """Extrapolate the scores of subsets to infinitely many subjects.

    For each target and size of subset the scores (of all subsets and splits) are resampled with
    replacement and averaged; a curve that rises to v0 is fitted to the averages over sizes, and the
    ceiling of the target is the median v0. Draws are those of NumPy's RandomState(seed), begun
    anew for each target, as the published way has them.

    The interval holds the middle of the bootstraps. Scores of subsets that share subjects are not
    independent, as resampling takes them to be, so it says how well the curve is determined, not
    how another group of subjects would do: see `leave_subjects_out` for that.

    Args:
      scores: from `subsets.score`.
      family: "exponential", as published: v0 (1 - exp(-x / tau0)), where x counts all subjects of
        the subset. "reliability": v0 sqrt(x / (x + tau0)), where x counts those that predict; so
        do the correlations with an average rise. The exponential has risen where these still do,
        and its v0 stays below the true ceiling.
      undefined: what becomes of undefined scores. "omit": a subset with one in any split is left
        out for that target; a size without any other, from its curve; a target with fewer than two
        sizes left is NaN, and not counted by the median over targets (Brain-Score of 2023). "zero":
        they count as 0 (Brain-Score of 2026, whose correlation has a small number added to its
        denominator).
      num_resamples: bootstraps.
      seed: of the draws.
      confidence: share of the bootstraps within the interval.

    Raises:
      ValueError: if a number is out of its range.

    Source: Schrimpf et al. (2021), PNAS 118(45), Methods, on the estimation of the ceiling.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be >= 1, got {num_resamples}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}.")
    num_undefined = sum(int(np.isnan(r).sum()) for r in scores.r)
    every = np.ones(len(scores.subsets), bool)
    curve, num = _curves(scores, every, family, undefined, num_resamples, seed)
    value = np.median(curve.v0, axis=0)
    targets = Ceiling(value, *resampling.percentiles(curve.v0, value, confidence), num)
    value, low, high = (
        metrics.median_defined(ends) for ends in (targets.value, targets.low, targets.high)
    )
    ceiling = Ceiling(value, low, high, np.asarray((~np.isnan(targets.value)).sum()))
    return Extrapolation(ceiling, targets, curve.v0, curve.tau0, num_undefined)


def leave_subjects_out(
    scores: SubsetScores,
    *,
    family: Family = "exponential",
    undefined: Undefined = "omit",
    summarize: Callable[[Float[np.ndarray, " v"]], float] | None = None,
    about: float | None = None,
    confidence: float = 0.95,
) -> Ceiling:
    """Extrapolate from the averages themselves, with an interval over subjects.

    Each subject in turn is left out, as a predictor and as one to be predicted, and the ceiling
    (a summary over targets) extrapolated anew. Nothing is regressed for that, since the subsets
    without a subject are there already. The spread of these gives the standard error, and the
    interval is Student's t, on the scale of Fisher's z. Few subjects leave it wide.

    Args:
      scores: from `subsets.score`, with at least 4 subjects.
      family: see `extrapolate`.
      undefined: see `extrapolate`.
      summarize: from ceilings of targets, NaN where undefined, to that of the whole; None: their
        median.
      about: the ceiling that the interval is of; None: that of the averages.
      confidence: coverage of the interval.

    Raises:
      ValueError: with fewer than 4 subjects.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 11.
    """
    s = len(scores.subjects)
    if s < 4:
        raise ValueError(f"An interval over subjects needs at least 4 of them, got {s}.")
    every = np.ones(len(scores.subsets), bool)
    over_targets = metrics.median_defined if summarize is None else summarize
    value, *parts = (
        float(over_targets(_curves(scores, chosen, family, undefined)[0].v0[0]))
        for chosen in (every, *~scores.subsets.T)
    )
    error = math.sqrt((s - 1) * np.var(parts))
    half = float(stats.t.ppf((1 + confidence) / 2, s - 1)) * error
    value = value if about is None else about
    return Ceiling(*map(np.asarray, (value, *fisher_ends(value, half), s)))


def resample_subjects(
    values: Float[np.ndarray, " v"],
    columns: Sequence[Int[np.ndarray, " _"]],
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    num_resamples: int = 1000,
) -> Ceiling:
    """Take the median over the targets of all subjects, with an interval over those predicted.

    Percentile bootstrap of subjects with all of their targets. Who predicts them is taken as given,
    which matters less the more there are: of few subjects `leave_subjects_out` says more, and needs
    every subset.

    Args:
      values: ceiling of each target; NaN is left out.
      columns: targets of each subject.
      rng: draws.
      confidence: coverage of the interval.
      num_resamples: bootstraps.

    Raises:
      ValueError: if a number is out of its range.
    """
    resampling.check(confidence, num_resamples)
    parts = [values[columns_of][~np.isnan(values[columns_of])] for columns_of in columns]
    parts = [part for part in parts if len(part)]
    value = metrics.median_defined(values)
    if len(parts) < 2:
        return Ceiling(value, np.asarray(np.nan), np.asarray(np.nan), np.asarray(len(parts)))
    drawn = rng.integers(len(parts), size=(num_resamples, len(parts)))
    medians = np.array([np.median(np.concatenate([parts[i] for i in row])) for row in drawn])
    low, high = resampling.percentiles(medians, value, confidence)
    return Ceiling(value, low, high, np.asarray(len(parts)))


def averages(scores: SubsetScores) -> Float[np.ndarray, "v k"]:
    """Average each target's scores over the subsets of each size and their splits.

    Subsets with an undefined score are left out for that target; NaN where none is left. The sizes
    are `np.unique(scores.subsets.sum(axis=1))`.

    Args:
      scores: from `subsets.score`.
    """
    sizes = scores.subsets.sum(axis=1)
    found = np.full((sum(map(len, scores.columns)), len(np.unique(sizes))), np.nan)
    for i, (r, columns) in enumerate(zip(scores.r, scores.columns, strict=True)):
        size_of = sizes[scores.subsets[:, i]]
        means = r.astype(np.float64).mean(axis=1)
        for place, k in enumerate(np.unique(sizes)):
            found[columns, place] = metrics.mean_defined(means[size_of == k], axis=0)
    return found


def of_targets(scores: SubsetScores, keep: Bool[np.ndarray, " v"]) -> SubsetScores:
    """Return the scores of some targets, predicted from all as they are; subjects stay.

    Args:
      scores: from `subsets.score`.
      keep: which.

    Raises:
      ValueError: if there is not one entry per target.
    """
    if len(keep) != sum(map(len, scores.columns)):
        raise ValueError(
            f"keep must have one entry per target: {sum(map(len, scores.columns))}, got "
            f"{len(keep)}."
        )
    place = np.cumsum(keep) - 1
    return scores._replace(
        r=tuple(r[:, :, keep[held]] for r, held in zip(scores.r, scores.columns, strict=True)),
        columns=tuple(place[held[keep[held]]] for held in scores.columns),
    )


def _patterns(
    r: Float[np.ndarray, "c k v"],
) -> Iterable[tuple[Int[np.ndarray, " t"], Bool[np.ndarray, " c"]]]:
    """Yield targets that are defined in the same subsets, and which subsets these are."""
    if not len(r):
        yield np.arange(r.shape[2]), np.zeros(0, bool)
        return
    defined = ~np.isnan(r).any(axis=1)  # [c v]
    kept, pattern = np.unique(defined, axis=1, return_inverse=True)
    for number in range(kept.shape[1]):
        yield np.flatnonzero(pattern.reshape(-1) == number), kept[:, number]


def _curves(scores, chosen, family, undefined, num_resamples=None, seed=0):
    """Fit curves [q v] to averages over some of the subsets, and count the scores behind them.

    Without resamples there is one curve, of the averages themselves.
    """
    sizes = scores.subsets.sum(axis=1)
    x = np.unique(sizes[chosen])
    v = sum(map(len, scores.columns))
    averages = np.full((num_resamples or 1, v, len(x)), np.nan)
    num = np.zeros(v, int)
    for i, (r, columns) in enumerate(zip(scores.r, scores.columns, strict=True)):
        held = scores.subsets[:, i]
        mine, size_of = chosen[held], sizes[held]
        r = np.nan_to_num(r[mine], nan=0.0) if undefined == "zero" else r[mine]
        for targets, kept in _patterns(r):
            values = r[kept][:, :, targets].astype(np.float64)
            parts = [values[size_of[mine][kept] == k].reshape(-1, len(targets)) for k in x]
            weights = _weights(tuple(map(len, parts)), num_resamples, seed)
            for place, (weight, part) in enumerate(zip(weights, parts, strict=True)):
                if len(part):  # else there is no average of this size
                    averages[:, columns[targets], place] = weight @ part
            num[columns[targets]] = sum(map(len, parts))
    count = x if family == "exponential" else x - 1
    return saturation.fit(count.astype(np.float64), averages, family=family), num


@functools.lru_cache(maxsize=8)
def _weights(sizes, num_resamples, seed):
    """Return what averages so many scores [q scores], all alike or as each resample has them."""
    if num_resamples is None:
        return [np.full((1, size), 1 / max(size, 1)) for size in sizes]
    draw = np.random.RandomState(seed)
    weights = [np.zeros((num_resamples, size)) for size in sizes]
    for q in range(num_resamples):
        for weight in weights:
            size = weight.shape[1]
            if size:
                weight[q] = np.bincount(draw.choice(size, size), minlength=size) / size
    return weights
