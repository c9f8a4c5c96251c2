"""What surprisal adds to regressions of reading times: log-likelihoods, story by story.

In float64 on the host: few predictors, and a random intercept takes sums over participants alone.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize

from jaxalign.core import features, metrics
from jaxalign.core.behavior import surprisal

# Errors of less than this share of the mean square of what is fitted are rounding: then the
# density has no bound, and is undefined.
_PERFECT = 1e-12
# Directions of scaled predictors with a smaller share of the largest singular value are repeats of
# others, and get no weight.
_COLLINEAR = 1e-6


class LogLikelihoods(NamedTuple):
    """Log density of the reading times of each story under two models, in nats."""

    story: list
    num: Int[np.ndarray, " g"]  # observations
    baseline: Float[np.ndarray, " g"]
    full: Float[np.ndarray, " g"]

    @property
    def delta(self) -> Float[np.ndarray, " g"]:
        """Gain of each story per observation, in nats."""
        return (self.full - self.baseline) / self.num


def delta_log_likelihood(found: LogLikelihoods) -> surprisal.Estimate:
    """Gain of the full model over the baseline, in nats per observation, over all stories."""
    gain, num = found.full - found.baseline, found.num
    left_out = (gain.sum() - gain) / (num.sum() - num) if len(num) > 1 else np.empty(0)
    return surprisal.jackknife(float(gain.sum() / num.sum()), left_out, int(num.sum()))


def linear_log_likelihoods(
    y: Float[np.ndarray, " n"],
    baseline: Float[np.ndarray, "n p"],
    full: Float[np.ndarray, "n q"],
    stories: features.Labels,
    *,
    held_out: bool,
) -> LogLikelihoods:
    """Compare two linear regressions with normal errors by the density of what they predict.

    Coefficients and the variance of the errors are those of maximum likelihood.

    Args:
      y: reading times, or their logarithms.
      baseline: predictors without surprisal; an intercept is added.
      full: those and surprisal.
      stories: of each observation.
      held_out: each story's density is under a model fitted to the others; otherwise under one
        fitted to all, and the sum is the likelihood of that fit.

    Raises:
      ValueError: if a value is not finite, there are not more observations to fit than
        coefficients, or only one story, which is held out.
    """
    surprisal.check_finite(y=y, baseline=baseline, full=full)
    words_of = features.members(stories)

    def densities(X):
        found = []
        for train, test in _splits(words_of, len(y), held_out):
            Z = _design(X, train)
            weights = np.linalg.lstsq(Z[train], y[train], rcond=_COLLINEAR)[0]
            variance = _positive(np.mean((y[train] - Z[train] @ weights) ** 2), y[train])
            error = y[test] - Z[test] @ weights
            found.append(float(_normal(error, variance)))
        return np.array(found)

    num = np.array([len(words) for words in words_of.values()])
    return LogLikelihoods(list(words_of), num, densities(baseline), densities(full))


def mixed_log_likelihoods(
    y: Float[np.ndarray, " n"],
    baseline: Float[np.ndarray, "n p"],
    full: Float[np.ndarray, "n q"],
    participants: features.Labels,
    stories: features.Labels,
    *,
    held_out: bool,
) -> LogLikelihoods:
    """Compare two regressions with a random intercept for each participant.

    y = X w + u_participant + error, with u and error normal, fitted by maximum likelihood (not
    REML, whose likelihoods of different predictors cannot be compared).

    Args:
      y: reading times, or their logarithms, one per word and participant.
      baseline: predictors without surprisal; an intercept is added.
      full: those and surprisal.
      participants: of each observation.
      stories: of each observation.
      held_out: each story's density is under a model fitted to the others, given what the
        participants read of those. Otherwise the model is fitted to all, and a story's density is
        given the stories before it, so that their sum is the likelihood of the fit.

    Raises:
      ValueError: as `linear_log_likelihoods`.
    """
    surprisal.check_finite(y=y, baseline=baseline, full=full)
    words_of = features.members(stories)
    code = np.unique(np.asarray(participants), return_inverse=True)[1]

    def densities(X):
        found, before, fit = [], np.empty(0, int), None
        for train, test in _splits(words_of, len(y), held_out):
            if held_out or fit is None:
                Z = _design(X, train)
                fit = _fit_random_intercepts(Z[train], y[train], code[train])
                errors = y - Z @ fit.weights
            known = train if held_out else before
            found.append(_block_log_density(errors, code, known, test, fit))
            before = np.r_[before, test]
        return np.array(found)

    num = np.array([len(words) for words in words_of.values()])
    return LogLikelihoods(list(words_of), num, densities(baseline), densities(full))


class _Fit(NamedTuple):
    weights: Float[np.ndarray, " q"]
    variance: float  # of the errors
    ratio: float  # variance of the intercepts, in units of that of the errors


def _fit_random_intercepts(X, y, code) -> _Fit:
    """Maximise the likelihood of y = X w + u[code] + error.

    With c_j = ratio / (1 + n_j ratio), the inverse covariance of participant j's times is I - c_j
    1 1' in units of the errors' variance, so that sums over each participant are all it takes, and
    for a given ratio weights and variance follow in closed form. The ratio is found on a grid of
    its logarithm, then by bounded search between the neighbours of the best; 0 is on the grid.
    """
    n = len(y)
    num = np.bincount(code)
    present = num > 0
    num = num[present]
    index = np.cumsum(present)[code] - 1
    Xy = np.c_[X, y]
    sums = np.zeros((len(num), Xy.shape[1]))
    np.add.at(sums, index, Xy)
    products = Xy.T @ Xy

    def profile(ratio):
        shrink = ratio / (1 + num * ratio)
        left = products - (sums * shrink[:, None]).T @ sums
        weights = np.linalg.lstsq(left[:-1, :-1], left[:-1, -1], rcond=_COLLINEAR**2)[0]
        variance = _positive((left[-1, -1] - weights @ left[:-1, -1]) / n, y)
        log_likelihood = -0.5 * (
            n * (np.log(2 * np.pi * variance) + 1) + np.log1p(num * ratio).sum()
        )
        return log_likelihood, _Fit(weights, variance, ratio)

    grid = np.r_[-np.inf, np.linspace(-14, 7, 43)]  # of the logarithm
    heights = np.array([profile(np.exp(x))[0] for x in grid])
    if not np.isfinite(heights).all():
        return profile(0.0)[1]
    best = int(heights.argmax())
    if best == 0:
        return profile(0.0)[1]
    low, high = grid[max(best - 1, 1)], grid[min(best + 1, len(grid) - 1)]
    found: Any = optimize.minimize_scalar(
        lambda x: -profile(np.exp(x))[0],
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return profile(float(np.exp(found.x)))[1]


def _block_log_density(errors, code, known, test, fit: _Fit) -> float:
    """Log density of one story's errors, given the errors that are known of the participants.

    What is known of participant j leaves an intercept of mean ratio sum / (1 + n_j ratio) and
    variance ratio / (1 + n_j ratio), in units of the errors' variance.
    """
    size = code.max() + 1
    scale = 1 + fit.ratio * np.bincount(code[known], minlength=size)
    mean = fit.ratio * np.bincount(code[known], weights=errors[known], minlength=size) / scale
    spread = fit.ratio / scale
    rest = errors[test] - mean[code[test]]
    num = np.bincount(code[test], minlength=size)
    total = np.bincount(code[test], weights=rest, minlength=size)
    shared = (spread / (1 + num * spread) * total**2).sum() / fit.variance
    return float(_normal(rest, fit.variance) + 0.5 * shared - 0.5 * np.log1p(num * spread).sum())


def _positive(variance, y) -> float:
    return float(variance) if variance > _PERFECT * np.mean(y**2) else float("nan")


def _normal(error, variance) -> float:
    """Log density of independent errors."""
    return -0.5 * (len(error) * np.log(2 * np.pi * variance) + (error**2).sum() / variance)


def _design(X, train):
    """Return an intercept, and the predictors scaled by the training observations."""
    if len(train) <= X.shape[1] + 1:
        raise ValueError(
            f"{X.shape[1]} predictors and an intercept need more observations, got {len(train)}."
        )
    centre = X[train].mean(axis=0)
    scale = np.where(metrics.is_constant(X[train]), np.inf, X[train].std(axis=0))
    return np.c_[np.ones(len(X)), (X - centre) / scale]


def _splits(words_of, n, held_out):
    """Yield what to fit to and what to predict, story by story."""
    if held_out and len(words_of) < 2:
        raise ValueError("Holding out stories takes at least two, got 1.")
    every = np.arange(n)
    for words in words_of.values():
        yield (np.setdiff1d(every, words) if held_out else every), words
