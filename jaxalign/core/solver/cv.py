"""Cross-validation of the ridge: penalties chosen per target, scores on held-out samples."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import mesh as mesh_lib
from jaxalign.core.folds import Fold, Split
from jaxalign.core.solver import ridge, sweep
from jaxalign.core.solver.method import GRID, Execution, Method
from jaxalign.core.solver.problem import LARGEST_ALPHA, Problem, each


class Nested(NamedTuple):
    """Held-out scores; one row per outer fold, one column per target."""

    r: Float[np.ndarray, "k v"]  # Pearson correlation; NaN where undefined
    r2: Float[np.ndarray, "k v"]  # coefficient of determination; NaN where undefined
    alphas: Float[np.ndarray, "k v"]  # penalty chosen on the inner splits
    # Of that penalty there: R2, or mean r; NaN where there was nothing to choose.
    inner_score: Float[np.ndarray, "k v"]
    predicted_norm: Float[np.ndarray, "k v"]  # about the mean of the test set, in units of Y
    recorded_norm: Float[np.ndarray, "k v"]
    num_computed: Int[np.ndarray, "k v"]  # penalties whose inner cost was computed exactly
    num_constant: Int[np.ndarray, " k"]  # features that do not vary over the outer training set
    rank: Int[np.ndarray, " k"]  # directions of the outer training set's features
    condition: Float[np.ndarray, " k"]  # their largest over their least eigenvalue


class Selected(NamedTuple):
    """Penalties chosen by cross-validation."""

    alphas: Float[np.ndarray, " v"]
    score: Float[np.ndarray, " v"]  # of that penalty: R2, or mean r over the splits
    cost: Float[np.ndarray, " v"]  # mean squared error in squared units of the target, or -r
    num_computed: Int[np.ndarray, " v"]  # penalties whose cost was computed exactly


class Fitted(NamedTuple):
    """A ridge fitted to all samples."""

    coef: Float[np.ndarray, "p v"]
    intercept: Float[np.ndarray, " v"]


def nested(
    X: Any,
    Y: Any,
    folds: Sequence[Fold],
    method: Method,
    *,
    execution: Execution = GRID,
) -> Nested:
    """Score a ridge on held-out folds; each target and fold chooses its penalty inside.

    Args:
      X: features [n p].
      Y: responses [n v], one column per target, without NaN; anything with `shape` and slices, so
        that a tensorstore array is read tile by tile.
      folds: outer and inner splits; the inner ones are not looked at if `method.scheme` is not
        "folds", and are not needed where there is one penalty.
      method: penalties, and how they are chosen.
      execution: how it is computed.

    Raises:
      ValueError: if X and Y differ in samples, hold NaN, a penalty is not positive, or the settings
        do not go together.
    """
    problem = Problem(X, Y, folds, method, execution)
    choose = problem.chooser()
    outer = problem.outer()
    problem.forget()
    # Filled tile by tile: of many targets, results are what is held.
    shape = (len(folds), problem.num_targets)
    r, r2, predicted, recorded, alphas, inner_score = (np.empty(shape) for _ in range(6))
    computed = np.empty(shape, int)
    for targets in problem.load():
        choice = choose(targets)
        scores = problem.score(outer, targets, choice.place)
        chosen = problem.alphas[mesh_lib.to_host(choice.place)]
        parts = (*scores, chosen, problem.inner_score(choice), mesh_lib.to_host(choice.count))
        columns = slice(targets.columns.start, targets.columns.stop)
        every = (r, r2, predicted, recorded, alphas, inner_score, computed)
        for whole, part in zip(every, parts, strict=True):
            whole[:, columns] = part[:, : len(targets)]
    constant = np.zeros(len(folds), int)
    for i, fold in enumerate(folds):
        varies = problem.X.varying(fold.outer.train)
        constant[i] = (~varies).sum()
        # All test samples are the same to the fit: how predictions vary would be rounding alone.
        if method.intercept and not problem.X.differ(fold.outer.test, varies):
            r[i] = np.nan
    return Nested(
        r=r,
        r2=r2,
        alphas=alphas,
        inner_score=inner_score,
        predicted_norm=predicted,
        recorded_norm=recorded,
        num_computed=computed,
        num_constant=constant,
        rank=np.asarray(outer.design.rank),
        condition=np.asarray(outer.design.condition),
    )


def select(
    X: Any,
    Y: Any,
    splits: Sequence[Split],
    method: Method,
    *,
    execution: Execution = GRID,
) -> Selected:
    """Choose the penalty of each target by cross-validation over all samples.

    Args:
      X: features [n p].
      Y: responses [n v]; see `nested`.
      splits: training and test samples; not looked at if `method.scheme` is not "folds".
      method: penalties, and how they are chosen.
      execution: how it is computed.

    Raises:
      ValueError: see `nested`.
    """
    if method.scheme == "folds" and not splits:
        raise ValueError("Penalties that are chosen on splits must have inner splits, got none.")
    problem = Problem(X, Y, (_whole(X, splits),), method, execution)
    choose = problem.chooser()
    tiles = []
    for targets in problem.load():
        choice = choose(targets)
        cost = mesh_lib.to_host(choice.cost) * problem.unit(targets)
        parts = (choice.place, problem.inner_score(choice), cost, choice.count)
        tiles.append([mesh_lib.to_host(part)[0, : len(targets)] for part in parts])
    place, score, cost, computed = map(np.concatenate, zip(*tiles, strict=True))
    return Selected(problem.alphas[place], score, cost, computed.astype(int))


def refit(
    X: Any,
    Y: Any,
    alphas: Float[np.ndarray, " v"],
    method: Method,
    *,
    execution: Execution = GRID,
) -> Fitted:
    """Fit all samples, each target with its penalty.

    Args:
      X: features [n p].
      Y: responses [n v]; see `nested`.
      alphas: penalty of each target, positive; 0: least squares of minimum norm.
      method: says whether to standardise (coefficients are returned for the features as given),
        whether there is an intercept, and the cutoff; nothing else of it counts.
      execution: how it is computed; forms other than "primal" and "dual" count as "auto".

    Raises:
      ValueError: if X and Y differ in samples, hold NaN, or a penalty is negative.
    """
    if not (np.isfinite(alphas).all() and (alphas >= 0).all()):
        raise ValueError("alphas must be >= 0 and finite.")
    form = execution.form
    if form not in ("primal", "dual"):
        form = ridge.choose_form(*np.shape(X))
    single = Method((1.0,), method.standardize, intercept=method.intercept)
    problem = Problem(X, Y, (_whole(X, ()),), single, execution._replace(form=form))
    square = 1.0 if method.standardize else problem.units[0] ** 2
    scaled = np.clip(alphas / square, 0.0, LARGEST_ALPHA)
    distinct, place = np.unique(scaled, return_inverse=True)
    settings = ridge.Settings(
        method.standardize,
        False,
        form,
        intercept=method.intercept,
        cutoff=method.cutoff,
        precision=problem.precision,
        least_squares=bool((distinct == 0).any()),
    )
    factorize = functools.partial(ridge.factorize_all, settings=settings, alphas=distinct)
    [(design, features, center)] = each(factorize, [problem.X.whole])
    device = design._replace(unfitted=None)
    coef = np.empty((problem.num_features, problem.num_targets), np.float32)
    constants = np.empty(problem.num_targets)
    for targets in problem.load():
        size, columns = len(targets), slice(targets.columns.start, targets.columns.stop)
        penalties = np.ones(targets.size, np.float32)
        penalties[:size] = scaled[columns]
        slopes = sweep.coefficients(device, features, targets.values, jnp.asarray(penalties))
        slopes = np.asarray(slopes)[:, :size] * targets.peak[:size]
        if design.unfitted is not None:
            of_ones = 1 - design.unfitted[0].T  # [p a]
            slopes = slopes + of_ones[:, place[columns]] * targets.mean[:size]
        coef[:, columns] = slopes / problem.units[:, None]
        constants[columns] = targets.mean[:size] * method.intercept - center @ slopes
    return Fitted(coef, constants)


def _whole(X, splits):
    """Return a fold that trains on all samples, and tests them."""
    every = np.arange(np.shape(X)[0])
    return Fold(Split(every, every), tuple(splits))


def held_out(
    X: Float[np.ndarray, "n p"],
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, "k v"],
    method: Method,
    *,
    execution: Execution = GRID,
) -> Float[np.ndarray, "n v"]:
    """Predict every sample by the fit of the fold that tests it; NaN where none does.

    Args:
      X: features.
      Y: responses.
      folds: outer splits that test no sample twice.
      alphas: penalty of each outer fold and target, as `nested` chose them.
      method: see `refit`.
      execution: see `refit`.

    Raises:
      ValueError: if folds test a sample twice, or as many rows of penalties are not given; see also
        `refit`.
    """
    if len(alphas) != len(folds):
        raise ValueError(
            f"alphas must have one row for each of {len(folds)} folds, got {len(alphas)}."
        )
    tested = np.concatenate([fold.outer.test for fold in folds])
    if len(np.unique(tested)) < len(tested):
        raise ValueError("folds must test no sample twice, for it would have two predictions.")
    predicted = np.full(Y.shape, np.nan)
    for (train, test), chosen in zip((fold.outer for fold in folds), alphas, strict=True):
        fit = refit(X[train], Y[train], chosen, method, execution=execution)
        predicted[test] = X[test] @ fit.coef.astype(np.float64) + fit.intercept
    return predicted


def edges(alphas: Float[np.ndarray, "*k v"], grid: Float[np.ndarray, " a"]) -> tuple[float, float]:
    """Return the shares of choices that fell on the smallest and on the largest penalty.

    Args:
      alphas: penalties chosen.
      grid: what they were chosen from.
    """
    return float(np.mean(alphas == np.min(grid))), float(np.mean(alphas == np.max(grid)))


def widen(grid: Float[np.ndarray, " a"], *, low: bool, high: bool) -> Float[np.ndarray, " b"]:
    """Extend a grid of penalties by half its number, in its own steps, at either end or both.

    Args:
      grid: at least two positive penalties.
      low: extend to smaller ones.
      high: extend to larger ones.

    Raises:
      ValueError: if there are fewer than two, or one is not positive.
    """
    grid = np.sort(np.asarray(grid, np.float64))
    if len(grid) < 2 or grid[0] <= 0:
        raise ValueError(f"A grid to widen must have 2 positive penalties, got {grid.tolist()}.")
    step = (grid[-1] / grid[0]) ** (1 / (len(grid) - 1))
    powers = step ** np.arange(1, len(grid) // 2 + 1)
    parts = [grid[0] / powers[::-1]] * low + [grid] + [grid[-1] * powers] * high
    return np.concatenate(parts)
