"""Intervals and paired tests over subjects, and significance of many targets at once."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from jaxalign.core.metrics import is_constant, mean_defined

Alternative = Literal["greater", "two-sided"]

# Above this number SciPy's exact distribution of signed ranks gives way to the normal one; with
# tied differences, for which all signs are tried out, above that one.
MAX_EXACT, MAX_EXACT_TIED = 50, 13


class Interval(NamedTuple):
    """A mean, its confidence interval, and the number of values behind it."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Float[np.ndarray, " n"], confidence: float = 0.95) -> Interval:
    """Mean of independent values with Student's t interval; values that are NaN are left out.

    The interval is NaN with fewer than two values.

    Args:
      values: one per subject.
      confidence: coverage.
    """
    values = values[~np.isnan(values)]
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, np.nan, np.nan, 1)
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return Interval(mean, mean - float(half), mean + float(half), n)


def crossed_interval(
    values: Float[np.ndarray, "s k"], confidence: float = 0.95, *, is_correlation: bool = False
) -> Interval:
    """Mean score of subjects who share their stimuli, with an interval for new ones of both.

    Subjects who saw the same stimuli, and folds that train on the same samples, are not
    independent: an interval over either alone is too narrow. The variance is that over subjects,
    which holds all that differs between them, plus that over folds which all subjects share:
    V = V_s + max(V_k - V_sk, 0) with V_s = S_s^2 / s, V_k = c S_k^2, V_sk = c S_sk^2 / s, where S^2
    are mean squares of subjects' means, of folds' means, and of the residuals, and
    c = 1/k + 1/(k-1), for training sets of folds overlap. Student's t has V^2 / (V_s^2/(s-1) +
    V_k^2/(k-1)) degrees of freedom, and at least the fewer of s-1 and k-1.
    It is approximate: 95 % intervals covered the expected score in 93.3 to 98.1 % of experiments
    in 53 simulated settings (6 or 12 subjects, 4 to 10 folds, subjects alike or not, noise shared
    or not), where t over subjects covered it in 34 to 95 %: below 93 % in most of those without
    shared noise, too, as subjects share what stimuli happen to be in the sample. With a single
    subject it is over folds alone (93.8 to 97.7 %), which must then be much longer than the
    autocorrelation.

    Args:
      values: score of each subject and fold of a k-fold cross-validation; subjects with NaN in
        any fold are left out. NaN intervals without a second fold, or without subjects.
      confidence: coverage.
      is_correlation: lay the interval out on the scale of Fisher's z (`fisher_ends`). Of simulated
        correlations about .94 it covered 95.0 % of expected scores, and without 91.5 %, 8.3 % of
        them below its lower end; of those about .44 both covered 97 %.

    Returns:
      The interval, and the number of subjects in it.

    Source: Nadeau and Bengio (2003), Inference for the generalization error, Machine Learning 52,
    for c; Cameron, Gelbach and Miller (2011), J. Bus. Econ. Stat. 29, for the variance of two
    crossed clusters; Satterthwaite (1946), Biometrics 2, for the degrees of freedom.
    """
    values = values[~np.isnan(values).any(axis=1)]
    s, k = values.shape
    if not s:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    error, freedom = _crossed_error(values)
    if np.isnan(error):
        return Interval(mean, np.nan, np.nan, s)
    half = float(stats.t.ppf((1 + confidence) / 2, freedom) * error) if error else 0.0
    low, high = fisher_ends(mean, half) if is_correlation else (mean - half, mean + half)
    return Interval(mean, low, high, s)


def crossed_p(values: Float[np.ndarray, "s k"]) -> float:
    """Return the two-sided p of the hypothesis that a mean of subjects and folds is 0.

    The test that belongs to `crossed_interval`: p < .05 where the 95 % interval leaves 0 out. Of
    two equal models under which 12 subjects shared noise of the stimuli it rejected 1 to 4 % at the
    level of 5 %, where t tests over subjects rejected 31 to 77 %.

    Args:
      values: see `crossed_interval`, such as differences of two models' scores.

    Returns:
      NaN where there is no interval, or all values are the same.
    """
    values = values[~np.isnan(values).any(axis=1)]
    error, freedom = _crossed_error(values) if len(values) else (np.nan, np.nan)
    return float(2 * stats.t.sf(abs(values.mean()) / error, freedom)) if error > 0 else np.nan


def fisher_ends(r: float, half: float) -> tuple[float, float]:
    """Bring an interval r +- half to the scale of Fisher's z, where no end lies beyond 1.

    tanh(artanh(r) +- half / (1 - r^2)), since a small step of r is 1 / (1 - r^2) as large there.

    Args:
      r: a correlation.
      half: half the width of its interval.

    Source: Fisher (1921), Metron 1.
    """
    room = 1 - min(r**2, 1.0)
    if room <= 0 or np.isnan(half):  # the scale ends here
        return (r, r) if half == 0 else (np.nan, np.nan)
    z, step = np.arctanh(r), half / room
    return float(np.tanh(z - step)), float(np.tanh(z + step))


def _crossed_error(values: Float[np.ndarray, "s k"]) -> tuple[float, float]:
    """Return the standard error of the mean and its degrees of freedom; NaN with one fold."""
    s, k = values.shape
    if k < 2:
        return np.nan, np.nan
    mean = float(values.mean())
    subjects, folds = values.mean(axis=1), values.mean(axis=0)
    overlap = 1 / k + 1 / (k - 1)
    of_subjects, of_both, least = 0.0, 0.0, k - 1
    of_folds = overlap * folds.var(ddof=1)
    if s > 1:
        rest = values - subjects[:, None] - folds[None] + mean
        of_subjects = subjects.var(ddof=1) / s
        of_both = overlap * (rest**2).sum() / ((s - 1) * (k - 1)) / s
        least = min(s - 1, k - 1)
    # Where folds vary by no more than the noise of single subjects does, which is in V_s already,
    # taking the larger of V_s and V_k covered 98 to 99 %.
    variance = of_subjects + max(of_folds - of_both, 0.0)
    if variance == 0:
        return 0.0, float(least)
    freedom = variance**2 / (of_subjects**2 / max(s - 1, 1) + of_folds**2 / (k - 1))
    return float(np.sqrt(variance)), float(max(freedom, least))


class Paired(NamedTuple):
    """How two models differ over the subjects who have a score for both."""

    difference: Interval  # of the first minus the second, with Student's t interval
    t: float
    p_t: float
    d_z: float  # mean difference in units of the standard deviation of differences
    w: float  # Wilcoxon's sum of the ranks of positive differences
    p_wilcoxon: float
    rank_biserial: float  # (ranks of positive - ranks of negative differences) / all ranks
    is_exact: bool  # p_wilcoxon; else it is of the normal approximation


def paired(
    first: Float[np.ndarray, " s"],
    second: Float[np.ndarray, " s"],
    *,
    confidence: float = 0.95,
) -> Paired:
    """Compare the scores of two models in the same subjects.

    The t test assumes that differences are normal; Wilcoxon's that they are symmetric about their
    median, 0 under the null hypothesis. Its p is exact for up to 50 subjects, or 13 if differences
    tie; differences of 0 are left out of it. All are undefined where differences do not vary,
    but for Wilcoxon's, which needs one that is not 0. With n subjects its least two-sided p is
    2^(1-n): none below .05 with fewer than 6.

    Args:
      first: scores of one model, a subject each; subjects with NaN in either are left out.
      second: scores of the other, of the same subjects in the same order.
      confidence: of the interval.

    Source: SciPy's `ttest_1samp` and `wilcoxon`; Cohen (1988), Statistical Power Analysis, section
    2.3.5, for d_z; Kerby (2014), Comprehensive Psychology 3, for the rank-biserial correlation.
    """
    d = first - second
    d = d[~np.isnan(d)]
    t = p_t = d_z = np.nan
    if len(d) > 1 and not is_constant(d):
        t, p_t = map(float, stats.ttest_1samp(d, 0))
        d_z = float(d.mean() / d.std(ddof=1))
    return Paired(mean_interval(d, confidence), t, p_t, d_z, *_wilcoxon(d))


def _wilcoxon(d):
    d = d[d != 0]
    n = len(d)
    if not n:
        return np.nan, np.nan, np.nan, False
    ranks = stats.rankdata(np.abs(d))
    w = float(ranks[d > 0].sum())
    is_tied = len(np.unique(ranks)) < n
    is_exact = n <= (MAX_EXACT_TIED if is_tied else MAX_EXACT)
    if is_tied and is_exact:
        return w, _exact_signs(w, ranks), float(2 * w / ranks.sum() - 1), is_exact
    method: Any = "exact" if is_exact else "auto"
    found: Any = stats.wilcoxon(d, method=method)
    return w, float(found.pvalue), float(2 * w / ranks.sum() - 1), is_exact


def _exact_signs(w: float, ranks: Float[np.ndarray, " n"]) -> float:
    """Two-sided p of the sum of positive ranks among those of all signs, as SciPy permutes them.

    SciPy asks for its statistic once per order of signs, which takes seconds for 13 of them.
    """
    n = len(ranks)
    sums = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1) @ ranks
    above, below = float((sums >= w - 1e-9).mean()), float((sums <= w + 1e-9).mean())
    return min(1.0, 2 * min(above, below))


def benjamini_hochberg(p: Float[np.ndarray, "*v"]) -> Float[np.ndarray, "*v"]:
    """Return p-values adjusted to control the false discovery rate over all of them.

    Rejecting those <= q keeps the expected share of false ones among the rejected to q if tests
    are independent or positively dependent (Benjamini and Yekutieli 2001). NaN stay NaN and are
    not counted.

    Args:
      p: of targets, ROIs or pairs of models.

    Source: Benjamini and Hochberg (1995), J. R. Stat. Soc. B 57; SciPy's `false_discovery_control`.
    """
    defined = ~np.isnan(p)
    adjusted = np.full(p.shape, np.nan)
    if defined.any():
        adjusted[defined] = stats.false_discovery_control(p[defined], method="bh")
    return adjusted


def holm(p: Float[np.ndarray, " v"]) -> Float[np.ndarray, " v"]:
    """Return p-values adjusted so that any false rejection at q is no more likely than q.

    That holds however tests depend on each other, as those of pairs that share a model do. NaN stay
    NaN and are not counted.

    Args:
      p: such as of pairs of models.

    Source: Holm (1979), Scandinavian Journal of Statistics 6.
    """
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]  # NaN come last
    adjusted = np.full(p.shape, np.nan)
    left = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(left * p[order]), 1.0)
    return adjusted


class Significance(NamedTuple):
    """Scores and what they are among their nulls; NaN where a score is undefined."""

    statistic: Float[np.ndarray, " v"]
    p: Float[np.ndarray, " v"]  # of each target by itself
    p_max: Float[np.ndarray, " v"]  # corrected over targets, by the largest null of any of them
    null_mean: Float[np.ndarray, " v"]
    null_sd: Float[np.ndarray, " v"]
    num_undefined: Int[np.ndarray, " v"]  # nulls without a score, which count against the target
    largest: Float[np.ndarray, " q"]  # the largest null of any target; -inf where none is defined


def compare(
    statistic: Float[np.ndarray, " v"],
    nulls: Float[np.ndarray, "q v"],
    *,
    alternative: Alternative = "greater",
    rounding: float = 0.0,
) -> Significance:
    """Compare statistics with their nulls.

    p = (1 + number of nulls at least as large) / (1 + q), for the target itself is one of the
    orders: never 0, and its least value is 1 / (1 + q). A null that is undefined counts as large.
    `p_max` counts the nulls whose largest over all targets is at least as large; it controls the
    probability of any false rejection over targets under every dependence between them, since all
    share their orders. Targets whose statistic is NaN have no p and take no part.

    Args:
      statistic: of each target.
      nulls: of each order and target.
      alternative: "greater", or "two-sided" in the absolute value.
      rounding: differences up to this are ties, which count as large.

    Raises:
      ValueError: if there is no null.

    Source: Phipson and Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9(1), on the 1; Nichols and
    Holmes (2002), Hum. Brain Mapp. 15, on the maximum.
    """
    if not len(nulls):
        raise ValueError("nulls must hold at least one per target, got none.")
    return tally([np.vstack([statistic[None], nulls])], alternative, rounding)


def tally(
    parts: Iterable[Float[np.ndarray, "_ _"]], alternative: Alternative, rounding: float
) -> Significance:
    """Compare statistics with their nulls as `compare` does, part by part of the targets.

    Args:
      parts: of some targets each, the statistic in the first row, its nulls below.
      alternative: see `compare`.
      rounding: see `compare`.
    """
    columns, largest = [], np.empty(0)
    for part in parts:
        score, nulls = part[0], part[1:]
        size, null_size = (np.abs(x) if alternative == "two-sided" else x for x in (score, nulls))
        undefined = np.isnan(nulls)
        known = ~undefined & ~np.isnan(score)[None]
        at_least = (undefined | (null_size >= size - rounding)).sum(axis=0)
        top = np.where(known, null_size, -np.inf).max(axis=1, initial=-np.inf)
        largest = np.maximum(largest, top) if len(largest) else top
        mean = mean_defined(nulls, axis=0)
        spread = np.sqrt(mean_defined((nulls - mean) ** 2, axis=0))
        columns.append((score, size, at_least, mean, spread, undefined.sum(axis=0)))
    score, size, at_least, mean, spread, undefined = map(np.concatenate, zip(*columns, strict=True))
    q = len(largest)
    above = q - np.searchsorted(np.sort(largest), size - rounding)
    p, p_max = ((1 + count) / (1 + q) for count in (at_least, np.maximum(above, at_least)))
    p, p_max, mean, spread = (
        np.where(np.isnan(score), np.nan, x) for x in (p, p_max, mean, spread)
    )
    return Significance(score, p, p_max, mean, spread, undefined, largest)
