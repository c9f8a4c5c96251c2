"""Banded ridge: a penalty for each feature band and target.

With weights gamma of the bands, on the simplex, the model is the ordinary ridge with penalty alpha
on features scaled by sqrt(gamma): for unscaled features the penalty of a band is alpha / gamma.
Every target chooses gamma and alpha by cross-validation. For a given gamma all targets share the
factorisations of the training sets, so weights are tried one after another, and for each of them
`core/solver/cv.py` chooses among the alphas.

Source: la Tour et al. (2022), Feature-space selection with banded ridge regression, NeuroImage 264,
for the model and the random search over the simplex.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import metrics
from jaxalign.core.folds import Fold, Split
from jaxalign.core.solver import cv, partition, tiles
from jaxalign.core.solver.columns import feature_scale, units
from jaxalign.core.solver.method import ADAPTIVE, Execution, Method
from jaxalign.core.solver.problem import each

# A cost must be lower by this fraction to replace that of weights tried before: less is rounding.
TOLERANCE = 1e-5
# First step of the refinement, in natural logarithms of a weight, and the weight from which bands
# with less (or nothing) move up.
STEP, FLOOR = np.log(4), 1e-3
# Targets at a time where predictions of each band are held.
CHUNK = 4096


class Features(NamedTuple):
    """Features, each in one band."""

    X: Float[np.ndarray, "n p"]
    bands: Int[np.ndarray, " p"]  # label of the band, 0, 1, ..., of each column of X


# Weights that are drawn, and rounds that refine them, unless a budget says otherwise.
NUM_DRAWS, ROUNDS = 20, 4


class Budget(NamedTuple):
    """How many weights are tried; each costs the factorisations of all training sets, and a sweep.

    Equal weights and each band alone are always tried first, in addition to those counted here. A
    round of the refinement tries at most `groups` times twice the number of bands.

    With 3 bands (10, 150 and 700 features), 600 samples and 600 targets of mixed bands, the mean
    inner R2 was .2037 without draws or refinement, .2361 with 60 draws and .2375 with 100; with the
    refinement, .2380 after 49 weights in all and .2383 after the 72 of the defaults.
    """

    seed: int  # of the draws, which are the same for all training sets
    num_draws: int = NUM_DRAWS  # from the Dirichlet distributions
    concentrations: tuple[float, ...] = (0.1, 1.0)  # of these, in turn; below 1: sparse weights
    rounds: int = ROUNDS  # of the refinement
    groups: int = 4  # weights that each round moves from, those of the most targets


class Banded(NamedTuple):
    """What each target has chosen."""

    weights: Float[np.ndarray, "g v"]  # gamma, sums to 1 over bands
    alphas: Float[np.ndarray, " v"]
    penalties: Float[np.ndarray, "g v"]  # alpha / gamma, infinite for a band without weight
    cost: Float[np.ndarray, " v"]  # mean squared error in squared units of the target, or -r
    score: Float[np.ndarray, " v"]  # R2, or mean r over the splits; NaN for a constant target
    num_tried: int  # weights


class Nested(NamedTuple):
    """Held-out scores; one row per outer fold, one column per target.

    r2 is the sum of `partition.product_measure` over bands, and `offset`.
    """

    r: Float[np.ndarray, "k v"]  # Pearson correlation; NaN where undefined
    r2: Float[np.ndarray, "k v"]  # coefficient of determination; NaN where undefined
    product_measure: Float[np.ndarray, "k g v"]  # of each band
    offset: Float[np.ndarray, "k v"]  # R2 lost to a wrong mean over the test set, <= 0
    weights: Float[np.ndarray, "k g v"]  # chosen on the inner splits
    alphas: Float[np.ndarray, "k v"]
    inner_score: Float[np.ndarray, "k v"]  # of these there: R2, or mean r


def search(
    features: Features,
    Y: Any,
    splits: Sequence[Split],
    method: Method,
    budget: Budget,
    *,
    execution: Execution = ADAPTIVE,
) -> Banded:
    """Choose weights of the bands and a penalty for each target, by cross-validation.

    First a random search: equal weights, each band alone, and draws on the simplex. Then
    coordinate moves: the weights that most targets hold are taken up and down in each band by a
    step in log weight, and scaled back to sum to 1. All targets try what is tried for any of them,
    and change only for the better. The step halves for those that stay. Of equal costs (to
    `TOLERANCE`), the weights that were tried first are kept; for given weights, the largest
    penalty.

    With `budget.rounds` above 0, which weights a target tries therefore depends on all targets (its
    costs do not). Moving each group of targets alone took 755 weights to a mean inner R2 of .2359;
    sharing took 49 weights to .2380.

    Args:
      features: features and their bands.
      Y: responses [n v], one column per target, without NaN; may be a tensorstore array. All are
        held in memory, in float32.
      splits: training and test samples; not looked at if `method.scheme` is not "folds".
      method: penalties, and how they are chosen. Scaling each training set to unit variance would
        undo the weights, so `standardize` takes scales from all samples, once; they hold no
        responses.
      budget: how many weights are tried.
      execution: how it is computed; `progress` wraps the list of weights to be tried, at first and
        in each round.

    Raises:
      ValueError: if features, bands and Y do not fit each other, hold NaN, a band has no column, an
        alpha or a concentration is not positive, or the budget is negative.
    """
    num_bands = _check(features, Y, method.alphas)
    if method.scheme == "folds" and not splits:
        raise ValueError("splits must hold at least one split, got none.")
    space = _space(features, num_bands, slice(None), standardize=method.standardize)
    return _search(
        space, _responses(Y), splits, method._replace(standardize=False), budget, execution
    )


def refit(
    features: Features,
    Y: Any,
    weights: Float[np.ndarray, "g v"],
    alphas: Float[np.ndarray, " v"],
    method: Method,
    *,
    execution: Execution = ADAPTIVE,
) -> cv.Fitted:
    """Fit all samples, each target with its weights and penalty.

    Args:
      features: features and their bands.
      Y: responses [n v]; see `search`.
      weights: of each band and target, at least 0; `Banded.weights`.
      alphas: penalty of each target, positive; `Banded.alphas`.
      method: says whether to standardise; coefficients are returned for the features as given.
      execution: how it is computed; `progress` wraps the list of distinct weights, each of which is
        a factorisation.

    Raises:
      ValueError: see `search`; also if weights are negative or not of these bands and targets.
    """
    num_bands = _check(features, Y, alphas)
    if weights.shape != (num_bands, Y.shape[1]) or alphas.shape != (Y.shape[1],):
        raise ValueError(
            f"weights and alphas must be of {num_bands} bands and {Y.shape[1]} targets, got "
            f"{weights.shape} and {alphas.shape}."
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("weights must be >= 0 and finite.")
    space = _space(features, num_bands, slice(None), standardize=method.standardize)
    Y = _load(Y)
    coef = np.empty((len(features.bands), Y.shape[1]), np.float32)
    intercept = np.empty(Y.shape[1])
    for columns, part in _fits(space, Y, weights, alphas, method, execution):
        for b, axes in enumerate(space.axes):
            slopes = part.coef[space.bands == b]
            slopes = slopes if axes is None else axes.astype(np.float32) @ slopes
            in_band = features.bands == b
            coef[np.ix_(in_band, columns)] = slopes * space.scale[in_band, None]
        # The intercept that was fitted is that of features with a mean of 0.
        intercept[columns] = part.intercept - space.mean @ coef[:, columns]
    return cv.Fitted(coef, intercept)


def predict_bands(features: Features, coef: Float[np.ndarray, "p v"]) -> Float[np.ndarray, "g n v"]:
    """Return what each band adds to the prediction, X_b coef_b; their sum lacks the intercept.

    Args:
      features: of any samples, and their bands.
      coef: from `refit`.

    Raises:
      ValueError: if a band has no column, or labels do not fit X.
    """
    X, bands = features
    num_bands = _num_bands(bands, X.shape[1])
    mean = X.mean(axis=0, dtype=np.float64)
    parts = np.empty((num_bands, len(X), coef.shape[1]))
    for b in range(num_bands):
        in_band = bands == b
        # Only deviations are multiplied in float32, in which a large mean would cost digits, and
        # large or small units would leave the range.
        deviations = X[:, in_band] - mean[in_band]
        unit = units(deviations, each=False, intercept=False)
        slopes = (coef[in_band] * unit[:, None]).astype(np.float32)
        parts[b] = (deviations / unit).astype(np.float32) @ slopes + mean[in_band] @ coef[in_band]
    return parts


def nested(
    features: Features,
    Y: Any,
    folds: Sequence[Fold],
    method: Method,
    budget: Budget,
    *,
    execution: Execution = ADAPTIVE,
) -> Nested:
    """Score banded ridge on held-out folds; each target and fold chooses its penalties inside.

    Args:
      features: features and their bands.
      Y: responses [n v]; see `search`.
      folds: outer and inner splits.
      method: see `search`; `standardize` takes scales from the outer training set.
      budget: how many weights are tried in each fold.
      execution: see `search`; `progress` is called once more for each round of each fold.

    Raises:
      ValueError: see `search`.
    """
    num_bands = _check(features, Y, method.alphas)
    if not folds:
        raise ValueError("folds must hold at least one fold, got none.")
    if method.scheme == "folds" and not all(fold.inner for fold in folds):
        raise ValueError("Every outer fold must have inner splits.")
    Y = _load(Y)
    scaled, quiet = method._replace(standardize=False), execution._replace(progress=iter)
    k, v = len(folds), Y.shape[1]
    r, r2, offset, chosen, inner_score = (np.empty((k, v)) for _ in range(5))
    split, weights = np.empty((2, k, num_bands, v))
    for i, (outer, inner) in enumerate(folds):
        space = _space(features, num_bands, outer.train, standardize=method.standardize)
        Y_train, Y_test = Y[outer.train], Y[outer.test]
        train = space._replace(Z=space.Z[outer.train])
        if method.scheme == "folds":  # splits count all samples; some may test outside of `outer`
            found = _search(space, _responses(Y), inner, scaled, budget, execution)
        else:
            found = _search(train, _responses(Y_train), inner, scaled, budget, execution)
        weights[i], chosen[i], inner_score[i] = found.weights, found.alphas, found.score
        varies = ~(metrics.is_constant(Y_train) | metrics.is_constant(Y_test))
        test = Features(space.Z[outer.test], space.bands)
        for columns, fit in _fits(train, Y_train, found.weights, found.alphas, method, quiet):
            scores = _score(test, fit, Y_test[:, columns], varies[columns])
            r[i, columns], r2[i, columns], offset[i, columns], split[i][:, columns] = scores
    return Nested(r, r2, split, offset, weights, chosen, inner_score)


class _Space(NamedTuple):
    """Features in which a band has no more columns than there are samples.

    Within a band the ridge does not depend on the axes, so further columns can be rotated away:
    X_b = Z_b Q_b', with Q_b [p_b n] orthonormal.
    """

    Z: Float[np.ndarray, "n c"]
    bands: Int[np.ndarray, " c"]
    axes: list[Float[np.ndarray, "_ _"] | None]  # Q of each band, None where it is not rotated
    mean: Float[np.ndarray, " p"]
    scale: Float[np.ndarray, " p"]


def _space(features, num_bands, train, *, standardize):
    X, bands = np.asarray(features.X, np.float64), features.bands
    mean, largest = X[train].mean(axis=0), np.abs(X[train]).max(axis=0)
    # Without scaling, constant features stay: centred, they are 0.
    scale = np.ones(len(mean))
    if standardize:
        # Squares of very small or large units would leave the range even of float64.
        unit = units(X[train], each=True, intercept=True)
        variance = (X[train] / unit).var(axis=0)
        scale = feature_scale(np, largest / unit, variance, standardize) / unit
    X = (X - mean) * scale
    columns, axes = [], []
    for b in range(num_bands):
        block = X[:, bands == b]
        Q = None
        if block.shape[1] > len(block):
            Q, triangle = np.linalg.qr(block.T)
            block = triangle.T
        columns.append(block)
        axes.append(Q)
    label = np.repeat(np.arange(num_bands), [block.shape[1] for block in columns])
    return _Space(np.hstack(columns), label, axes, mean, scale)


def _search(space, Y, splits, method, budget, execution):
    num_bands, inside = len(space.axes), execution._replace(progress=iter)
    tried: list[np.ndarray] = []
    steps: list[float] = []
    known: set[tuple] = set()
    best = np.full((3, Y.shape[1]), np.nan)
    place = np.zeros(Y.shape[1], int)

    def attempt(moves):
        """Try weights that were not tried before; targets with a lower cost take them."""
        nonlocal best
        new = {key: move for key, move in ((_key(m[0]), m) for m in moves) if key not in known}
        for key, (gamma, step) in execution.progress(list(new.items())):
            known.add(key)
            tried.append(gamma)
            steps.append(step)
            scaled = space.Z * np.sqrt(gamma)[space.bands]
            result = cv.select(scaled, Y, splits, method, execution=inside)
            result = np.stack([result.cost, result.alphas, result.score])
            gains = result[0] < best[0] - TOLERANCE * np.abs(best[0])
            gains |= len(tried) == 1
            best = np.where(gains[None], result, best)
            place[gains] = len(tried) - 1

    attempt([(gamma, STEP) for gamma in _candidates(num_bands, budget)])
    for _ in range(budget.rounds if num_bands > 1 else 0):
        holders = np.bincount(place, minlength=len(tried))
        largest = np.argsort(-holders, kind="stable")[: budget.groups]
        moves = []
        for at in largest[holders[largest] > 0]:
            moves += [(gamma, steps[at]) for gamma in _neighbours(tried[at], steps[at])]
            steps[at] /= 2
        attempt(moves)
    weights = np.stack(tried, axis=1)[:, place]
    cost, chosen, score = best
    penalties = np.divide(chosen, weights, out=np.full(weights.shape, np.inf), where=weights > 0)
    return Banded(weights, chosen, penalties, cost, score, len(tried))


def _candidates(num_bands, budget):
    """Return equal weights, each band alone, and draws."""
    if min(budget.num_draws, budget.rounds, budget.groups) < 0:
        raise ValueError(f"budget must not be negative, got {budget}.")
    if not budget.concentrations or not all(
        np.isfinite(c) and c > 0 for c in budget.concentrations
    ):
        raise ValueError(
            f"budget.concentrations must be positive, got {list(budget.concentrations)}."
        )
    rng = np.random.default_rng(budget.seed)
    turns = itertools.islice(itertools.cycle(budget.concentrations), budget.num_draws)
    draws = [rng.dirichlet(np.full(num_bands, c)) for c in turns]
    return [np.full(num_bands, 1 / num_bands), *np.eye(num_bands), *draws]


def _neighbours(gamma, step):
    """Return weights with one band moved up or down; bands below the floor only move up."""
    moved = []
    for b in range(len(gamma)):
        for sign in (1, -1):
            if sign < 0 and gamma[b] < FLOOR:
                continue
            other = gamma.copy()
            other[b] = max(gamma[b], FLOOR) * np.exp(sign * step)
            moved.append(other / other.sum())
    return moved


def _key(gamma):
    return tuple(np.round(gamma, 9) + 0.0)


def _fits(space, Y, weights, alphas, method, execution):
    """Yield the columns of targets that share weights, and their fit, in columns of Z."""
    distinct, place = np.unique(weights, axis=1, return_inverse=True)
    order = np.argsort(place.reshape(-1), kind="stable")
    members = np.split(order, np.cumsum(np.bincount(place.reshape(-1)))[:-1])
    groups = list(zip(distinct.T, members, strict=True))
    unscaled, inside = method._replace(standardize=False), Execution(tile=execution.tile)

    def fit(group):
        gamma, columns = group
        size = len(columns)
        root = np.sqrt(gamma)[space.bands]
        # Groups are filled with zeros to a few sizes, since each size is compiled.
        responses = np.zeros((len(Y), _padded(size)), Y.dtype)
        responses[:, :size] = Y[:, columns]
        penalties = np.ones(_padded(size))
        penalties[:size] = alphas[columns]
        fitted = cv.refit(space.Z * root, responses, penalties, unscaled, execution=inside)
        coef = fitted.coef[:, :size] * root[:, None].astype(np.float32)
        return cv.Fitted(coef, fitted.intercept[:size])

    fits = each(fit, groups, execution.progress)
    for (_, columns), fitted in zip(groups, fits, strict=True):
        yield columns, fitted


def _padded(size):
    return max(16, 1 << (size - 1).bit_length()) if size <= 1024 else -(-size // 1024) * 1024


def _score(features, fit, Y, varies):
    """Return r, R2, the part of R2 that is lost to the offset, and the product measure."""
    parts = []
    for start in range(0, Y.shape[1], CHUNK):
        some = slice(start, start + CHUNK)
        y = Y[:, some].astype(np.float64)
        contributions = predict_bands(features, fit.coef[:, some])
        defined = varies[some]
        split = np.where(defined, partition.product_measure(contributions, y), np.nan)
        r = np.where(defined, partition.correlation_split(contributions, y).sum(axis=0), np.nan)
        shift = contributions.sum(axis=0).mean(axis=0) + fit.intercept[some] - y.mean(axis=0)
        square = np.where(defined, ((y - y.mean(axis=0)) ** 2).sum(axis=0), np.nan)
        offset = -len(y) * shift**2 / square
        parts.append((r, split.sum(axis=0) + offset, offset, split))
    return tuple(np.concatenate(x, axis=-1) for x in zip(*parts, strict=True))


def _load(Y):
    """Read responses, and check them."""
    whole = tiles.read(Y, range(Y.shape[1]))
    if not np.isfinite(whole).all():
        raise ValueError("Y must be finite: it holds NaN or infinity.")
    return whole


def _responses(Y):
    """Return responses about their means, in float32; constant ones are exactly 0."""
    Y = _load(Y)
    mean = Y.mean(axis=0, dtype=np.float64)
    constant = metrics.is_constant(Y)
    return np.where(constant, 0, Y - mean.astype(Y.dtype)).astype(np.float32)


def _check(features, Y, alphas):
    """Return the number of bands."""
    X, bands = features
    if Y.shape[0] != len(X):
        raise ValueError(
            f"Y must have one row per sample of X: X has {len(X)}, Y has {Y.shape[0]}."
        )
    if not Y.shape[1]:
        raise ValueError("Y must have at least one target, got none.")
    if not np.isfinite(X).all():
        raise ValueError("X must be finite: it holds NaN or infinity.")
    alphas = np.asarray(alphas)
    if not len(alphas) or not (np.isfinite(alphas).all() and (alphas > 0).all()):
        raise ValueError(f"alphas must be positive and finite, got {alphas.tolist()}.")
    return _num_bands(bands, X.shape[1])


def _num_bands(bands, num_features):
    if bands.shape != (num_features,):
        raise ValueError(
            f"bands must hold a label for each column of X: X has {num_features}, bands "
            f"{bands.shape}."
        )
    if not num_features:
        raise ValueError("X must have at least one column, for there to be a band.")
    if not np.issubdtype(bands.dtype, np.integer):
        raise ValueError(f"bands must be integers, got {bands.dtype}.")
    if bands.min() < 0:
        raise ValueError(f"bands must be labelled 0, 1, ..., got {bands.min()}.")
    counts = np.bincount(bands)
    if not counts.all():
        raise ValueError(
            f"bands must be labelled 0..{len(counts) - 1}, each on at least one column; "
            f"{np.flatnonzero(counts == 0).tolist()} have none."
        )
    return len(counts)
