"""Associations between properties of few models: correlations, partial ones, mixed slopes.

Samples are models: few, and not independent where they share a family or a base. So every
coefficient has its number of samples, and is NaN where it is undefined.
"""

import functools
import itertools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import stats as scipy_stats

from jaxalign.core.inference.resampling import check_confidence
from jaxalign.core.metrics import is_constant

# Up to this number all orders of the ranks are tried out: 8! = 40,320.
MAX_EXACT_RANKS = 8
# Shares of a variable's variance, and of residual variance between groups, that are rounding.
_NOTHING_LEFT, _NO_VARIANCE = 1e-12, 1e-6


class Association(NamedTuple):
    """A coefficient with its interval and two-sided p-value; NaN where undefined."""

    value: float
    low: float
    high: float
    p: float
    n: int  # samples in which every variable is defined
    reason: str = ""  # why it is undefined


Measure = Callable[..., Association]


def pearson(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " _"], *, confidence: float = 0.95
) -> Association:
    """Correlate two variables: Pearson's r, Fisher's z interval, p of the t distribution.

    Args:
      x: one variable; samples that are NaN in either are left out.
      y: the other.
      confidence: coverage.

    Returns:
      r, undefined with fewer than 3 samples or without variance; its interval, with fewer than 4.

    Raises:
      ValueError: if shapes differ or `confidence` is out of range.

    Source: Fisher (1921), Metron 1; SciPy's `pearsonr`.
    """
    x, y = _paired(x, y, confidence)
    if reason := _why_undefined(x, y):
        return _undefined(len(x), reason)
    found: Any = scipy_stats.pearsonr(x, y)
    ends = _fisher(float(found.statistic), len(x) - 3, 1.0, confidence)
    return Association(float(found.statistic), *ends, float(found.pvalue), len(x))


def of_r(r: float, n: int, *, confidence: float = 0.95) -> Association:
    """Return the interval and p of a Pearson correlation that was published.

    Args:
      r: the correlation.
      n: samples that it is of.
      confidence: coverage.

    Raises:
      ValueError: if r is no correlation or `confidence` is out of range.
    """
    check_confidence(confidence)
    if not abs(r) <= 1:
        raise ValueError(f"r must lie in [-1, 1], got {r}.")
    if n < 3:
        return _undefined(n, f"{n} samples, of at least 3")
    return Association(r, *_fisher(r, n - 3, 1.0, confidence), _p_of_r(r, n - 2), n)


def spearman(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " _"], *, confidence: float = 0.95
) -> Association:
    """Correlate the ranks of two variables.

    Up to 8 samples p is exact: all orders are tried, and no two-sided p is below 2 / n!. For more
    samples it is of the t distribution, which gives perfect orders of few samples a p near 0.
    The interval is tanh(artanh(r) +- z sqrt((1 + r^2 / 2) / (n - 3))).

    Args:
      x: one variable; samples that are NaN in either are left out.
      y: the other.
      confidence: coverage.

    Returns:
      The coefficient, undefined with fewer than 3 samples or without variance; its interval, with
      fewer than 4.

    Raises:
      ValueError: if shapes differ or `confidence` is out of range.

    Source: Bonett and Wright (2000), Psychometrika 65, for the interval; SciPy's `spearmanr`.
    """
    x, y = _paired(x, y, confidence)
    if reason := _why_undefined(x, y):
        return _undefined(len(x), reason)
    n = len(x)
    found: Any = scipy_stats.spearmanr(x, y)
    r, p = float(found.statistic), float(found.pvalue)
    if n <= MAX_EXACT_RANKS:
        p = _exact_p(scipy_stats.rankdata(x), scipy_stats.rankdata(y))
    low, high = _fisher(r, n - 3, 1 + r**2 / 2, confidence)
    return Association(r, low, high, p, n)


def partial(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " _"],
    covariates: Float[np.ndarray, "_ c"],
    *,
    confidence: float = 0.95,
) -> Association:
    """Correlate two variables after regressing covariates out of both.

    r of the residuals of both; t = r sqrt(f / (1 - r^2)) with f = n - 2 - rank of the covariates,
    and Fisher's z interval with variance 1 / (f - 1).

    Args:
      x: one variable; samples that are NaN anywhere are left out.
      y: the other.
      covariates: columns, such as of `indicators`; a constant is always among them.
      confidence: coverage.

    Returns:
      The coefficient, undefined without degrees of freedom, or where covariates leave nothing of a
      variable; its interval, with f < 2.

    Raises:
      ValueError: if shapes differ or `confidence` is out of range.

    Source: Fisher (1924), Metron 3.
    """
    if covariates.ndim != 2 or len(covariates) != len(x):
        raise ValueError(
            f"covariates must have one row per sample: {len(x)}, got shape {covariates.shape}."
        )
    x = np.where(np.isnan(covariates).any(axis=1), np.nan, x)
    x, y, covariates = _paired(x, y, confidence, covariates)
    n = len(x)
    if n < 3:
        return _undefined(n, f"{n} samples, of at least 3")
    # Centred and scaled columns: the rank is of what they vary, whatever their units.
    C = covariates - covariates.mean(axis=0)
    C = C / np.where(is_constant(covariates), 1.0, np.linalg.norm(C, axis=0))
    C = np.where(is_constant(covariates), 0.0, C)
    u, singular, _ = np.linalg.svd(C, full_matrices=False)
    basis = u[:, singular > 1e-9]  # [n r]
    freedom = n - 2 - basis.shape[1]
    if freedom < 1:
        return _undefined(n, f"{n} samples leave {basis.shape[1]} covariates no degree of freedom")
    rest = []
    for v in (x, y):
        centred = v - v.mean()
        left = centred - basis @ (basis.T @ centred)
        if is_constant(v) or left @ left <= _NOTHING_LEFT * (centred @ centred):
            return _undefined(n, "covariates leave nothing of a variable")
        rest.append(left)
    r = float(
        np.clip(rest[0] @ rest[1] / np.sqrt((rest[0] @ rest[0]) * (rest[1] @ rest[1])), -1, 1)
    )
    return Association(r, *_fisher(r, freedom - 1, 1.0, confidence), _p_of_r(r, freedom), n)


def indicators(labels: Shaped[np.ndarray, " n"]) -> Float[np.ndarray, "n g"]:
    """Code groups as columns of 0 and 1, of all groups but the first.

    Args:
      labels: group of each sample.
    """
    names = list(dict.fromkeys(labels.tolist()))
    if len(names) < 2:
        return np.empty((len(labels), 0))
    return np.stack([labels == name for name in names[1:]], axis=1).astype(np.float64)


def leave_one_group_out(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    *,
    measure: Measure = pearson,
    confidence: float = 0.95,
) -> dict[str, Association]:
    """Measure an association without each group.

    Args:
      x: one variable.
      y: the other.
      groups: group of each sample.
      measure: `pearson` or `spearman`.
      confidence: coverage.

    Returns:
      The association without it, for each group, in order of appearance.
    """
    names = dict.fromkeys(groups.tolist())
    without = {name: groups != name for name in names}
    return {
        str(name): measure(x[kept], y[kept], confidence=confidence)
        for name, kept in without.items()
    }


def mixed_slope(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    *,
    confidence: float = 0.95,
) -> Association:
    """Fit y = a + b x + a random intercept of each group, both variables standardised.

    REML; b is in standard deviations of y per standard deviation of x (over all samples), with
    Wald's interval and p of the t distribution with n - groups - 1 degrees of freedom: what groups
    and slope leave of n samples. Of 17 samples in three families, x and y unrelated within and
    between, it rejects 5.6 % at the level of 5 %, and the normal distribution 10 %. The standard
    error is statsmodels': of the
    curvature of the restricted likelihood in the coefficients and the variances together, so it is
    at least that given the variances, which lme4 and nlme report, and far larger where few groups
    leave the variance between them open. With few groups both are rough. A fit that did not
    converge, or found no variance between groups (which is ordinary regression, without the
    groups), is undefined, and `reason` says so.

    Args:
      x: predictor; samples that are NaN in either variable are left out.
      y: outcome.
      groups: group of each sample.
      confidence: coverage.

    Raises:
      ValueError: if shapes differ or `confidence` is out of range.

    Source: Laird and Ware (1982), Biometrics 38; statsmodels' `MixedLM`.
    """
    x, y, groups = _paired(x, y, confidence, groups)
    n, num_groups = len(x), len(set(groups.tolist()))
    reason = _why_undefined(x, y)
    if not reason and num_groups < 2:
        reason = f"{num_groups} group, of at least 2"
    if not reason and n < num_groups + 2:
        reason = f"{n} samples of {num_groups} groups leave no degree of freedom"
    if reason:
        return _undefined(n, reason)
    slope, error, reason = _fit_mixed(x, y, groups)
    if reason:
        return _undefined(n, reason)
    freedom = n - num_groups - 1
    half = float(scipy_stats.t.ppf((1 + confidence) / 2, freedom)) * error
    p = float(2 * scipy_stats.t.sf(abs(slope) / error, freedom))
    return Association(slope, slope - half, slope + half, p, n)


def _fit_mixed(x, y, groups) -> tuple[float, float, str]:
    """Return the slope, its standard error, and why there is none."""
    # It takes a second to import, and half of the package does without it.
    from statsmodels.regression import mixed_linear_model

    standardise = lambda v: (v - v.mean()) / v.std(ddof=1)
    X = np.stack([np.ones(len(x)), standardise(x)], axis=1)
    model = mixed_linear_model.MixedLM(standardise(y), X, groups=groups)
    try:
        # What statsmodels warns of (no convergence, the edge of the parameters) is asked for below.
        # Nelder and Mead's search: of 80 fits to published scores, BFGS, its default, stopped 4
        # times short of the likelihood's maximum and said that it had converged, and L-BFGS
        # ran off to an infinite likelihood in 21.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = model.fit(reml=True, method="nm", maxiter=2000, xtol=1e-8, ftol=1e-10)
            slope, error, between = float(fit.params[1]), float(fit.bse[1]), float(fit.cov_re[0, 0])
    except (np.linalg.LinAlgError, ValueError) as found:
        return np.nan, np.nan, f"singular: {str(found).splitlines()[0]}"
    if not fit.converged:
        return np.nan, np.nan, "the fit did not converge"
    if not between > _NO_VARIANCE * float(fit.scale):
        return np.nan, np.nan, "singular: no variance between groups beyond the residuals'"
    if not np.isfinite(error) or error <= 0:
        return np.nan, np.nan, "singular: the slope has no standard error"
    return slope, error, ""


def _paired(x, y, confidence, *others):
    """Check, and leave out samples without both x and y, also of the others."""
    if x.shape != y.shape:
        raise ValueError(f"x and y must be equally many: {len(x)} and {len(y)}.")
    check_confidence(confidence)
    known = ~(np.isnan(x) | np.isnan(y))
    return x[known].astype(np.float64), y[known].astype(np.float64), *(z[known] for z in others)


def _why_undefined(x, y) -> str:
    if len(x) < 3:
        return f"{len(x)} samples, of at least 3"
    if is_constant(x) or is_constant(y):
        return "a variable does not vary"
    return ""


def _undefined(n: int, reason: str) -> Association:
    return Association(np.nan, np.nan, np.nan, np.nan, n, reason)


def _fisher(r: float, freedom: int, spread: float, confidence: float) -> tuple[float, float]:
    """Interval on the scale of artanh with variance spread / freedom; NaN without any."""
    if freedom < 1:
        return np.nan, np.nan
    if abs(r) >= 1 - 1e-15:  # the scale ends here
        return r, r
    half = scipy_stats.norm.ppf((1 + confidence) / 2) * np.sqrt(spread / freedom)
    return float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half))


def _p_of_r(r: float, freedom: int) -> float:
    with np.errstate(divide="ignore"):
        t = np.abs(r) * np.sqrt(freedom / np.float64(1 - r**2))
    return float(2 * scipy_stats.t.sf(t, freedom))


def _exact_p(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Share of orders of the ranks whose correlation is at least as large, either sign."""
    x, y = x - x.mean(), y - y.mean()
    products = y[_orders(len(y))] @ x
    return float((np.abs(products) >= abs(x @ y) - 1e-9).mean())


@functools.cache
def _orders(n: int) -> Int[np.ndarray, "q n"]:
    return np.array(list(itertools.permutations(range(n))))
