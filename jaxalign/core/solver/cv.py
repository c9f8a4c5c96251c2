"""Cross-validation of the ridge: penalties chosen per target, scores on held-out samples."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from jaxalign.core.folds import Fold, Split
from jaxalign.core.solver import ridge, sweep
from jaxalign.core.solver.problem import DEFAULT, Form, Method, Problem, Scheme, each
from jaxalign.core.solver.search import Criterion, Search


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
    num_computed: Int[np.ndarray, " v"]
    curve: Float[np.ndarray, "a v"] | None  # cost of every penalty, where asked for


class Fitted(NamedTuple):
    """A ridge fitted to all samples."""

    coef: Float[np.ndarray, "p v"]
    intercept: Float[np.ndarray, " v"]


def nested(
    X: Any,
    Y: Any,
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, " a"],
    *,
    standardize: bool = True,
    search: Search = "grid",
    criterion: Criterion = "squared_error",
    scheme: Scheme = "folds",
    pool: Int[np.ndarray, " v"] | None = None,
    form: Form = "auto",
    intercept: bool = True,
    cutoff: float = ridge.CUTOFF,
    tile: int | None = None,
    mesh: Mesh | None = None,
    progress: Callable[[Sequence], Iterable] = iter,
) -> Nested:
    """Score a ridge on held-out folds; each target and fold chooses its own penalty inside.

    The penalty is the one with the least cost, averaged over the inner splits; of equal ones the
    largest. Means and scales come from training rows alone.

    Args:
      X: features [n p].
      Y: responses [n v], one column per target, without NaN; anything with `shape` and slices, so
        that a tensorstore array is read tile by tile.
      folds: outer and inner splits; the inner ones are not looked at if `scheme` is not "folds",
        and are not needed where there is one penalty.
      alphas: penalties to choose from, positive; a single 0 is least squares.
      standardize: scale features to unit variance over each training set. Kernels of training sets
        are then no parts of one kernel, and are computed for each.
      search: "grid" computes the cost of every penalty, "adaptive" only of those that could be best
        (`core/solver/search.py`). With a correlation, a pool, no inner splits, or few directions
        (`MIN_DIRECTIONS`), all are computed.
      criterion: mean squared error on inner test samples, the same over the variance of the target
        in each inner test set, or the negative of Pearson r.
      scheme: "folds" takes the inner splits; "loo" leaves out single samples of each outer training
        set, in closed form; "gcv" is generalised cross-validation.
      pool: a group (0, 1, ...) for each target; targets of a group choose one penalty, that of the
        least average cost, squared errors in the units of Y. None: each target for itself.
      form: "primal" and "dual" factorise training samples, "sums" works on sums over blocks of
        samples that train and test together; "auto" takes what should cost least.
      intercept: leave a constant free of penalty; if not, neither side is centred.
      cutoff: fraction of the largest eigenvalue below which a direction is dropped.
      tile: targets at a time on each device; None: what suits the device.
      mesh: devices that divide the targets among them; None: one device.
      progress: wraps the list of tiles, `tqdm.tqdm` for instance.

    Raises:
      ValueError: if X and Y differ in samples, hold NaN, a penalty is not positive, or the options
        do not go together.
    """
    method = Method(standardize, search, criterion, scheme, form, intercept, cutoff)
    problem = Problem(X, Y, folds, alphas, method, tile, mesh)
    chooser = problem.chooser(pool, progress)
    outer = problem.outer()
    k, v = len(folds), problem.num_targets
    r, r2, predicted, recorded, chosen, inner_score = (np.empty((k, v)) for _ in range(6))
    computed = np.empty((k, v), int)
    for tile_ in progress(problem.columns()):
        targets = problem.load(tile_)
        choice = chooser(targets)
        scores = problem.score(outer, targets, choice.place)
        own = slice(tile_.start, tile_.stop)
        at = np.asarray(choice.place)[:, : len(tile_)]
        for found, x in zip((r, r2, predicted, recorded), scores, strict=True):
            found[:, own] = x[:, : len(tile_)]
        chosen[:, own] = problem.alphas[at]
        inner_score[:, own] = problem.inner_score(choice)[:, : len(tile_)]
        computed[:, own] = np.asarray(choice.count)[:, : len(tile_)]
    varying = [ridge.varying(problem.X, fold.outer.train) for fold in folds]
    constant = np.array([(~own).sum() for own in varying])
    for i, (own, fold) in enumerate(zip(varying, folds, strict=True)):
        # All test samples are the same to the fit: how predictions vary would be rounding alone.
        test = np.asarray(problem.X)[fold.outer.test][:, own]
        if intercept and not (test != test[:1]).any():
            r[i] = np.nan
    rank, condition = (np.asarray(x) for x in (outer.design.rank, outer.design.condition))
    return Nested(
        r, r2, chosen, inner_score, predicted, recorded, computed, constant, rank, condition
    )


def select(
    X: Any,
    Y: Any,
    splits: Sequence[Split],
    alphas: Float[np.ndarray, " a"],
    *,
    method: Method = DEFAULT,
    pool: Int[np.ndarray, " v"] | None = None,
    keep_curves: bool = False,
    tile: int | None = None,
    mesh: Mesh | None = None,
    progress: Callable[[Sequence], Iterable] = iter,
) -> Selected:
    """Choose the penalty of each target by cross-validation over all samples.

    Args:
      X: features [n p].
      Y: responses [n v]; see `nested`.
      splits: training and test samples; not looked at if `method.scheme` is not "folds".
      alphas: penalties to choose from.
      method: see `nested`.
      pool: see `nested`.
      keep_curves: return the cost of every penalty, which computes all of them.
      tile: see `nested`.
      mesh: see `nested`.
      progress: see `nested`.

    Raises:
      ValueError: see `nested`.
    """
    every = np.arange(np.shape(X)[0])
    if keep_curves:
        method = method._replace(search="grid")
    problem = Problem(X, Y, (Fold(Split(every, every), tuple(splits)),), alphas, method, tile, mesh)
    inner = problem.inner()
    chooser = problem.chooser(pool, progress, inner=inner)
    v = problem.num_targets
    place, computed = np.empty((2, v), int)
    score, cost = np.empty((2, v))
    curve = np.empty((len(problem.alphas), v)) if keep_curves else None
    for tile_ in progress(problem.columns()):
        targets = problem.load(tile_)
        choice = chooser(targets)
        own = slice(tile_.start, tile_.stop)
        place[own], score[own], computed[own] = (
            np.asarray(x)[0, : len(tile_)]
            for x in (choice.place, problem.inner_score(choice), choice.count)
        )
        cost[own] = (np.asarray(choice.cost)[0] * problem.unit(targets))[: len(tile_)]
        if curve is not None:
            costs = np.asarray(problem.curves(inner, targets)[0])[0] * problem.unit(targets)
            curve[:, own] = costs[:, : len(tile_)]
    return Selected(problem.alphas[place], score, cost, computed, curve)


def refit(
    X: Any,
    Y: Any,
    alphas: Float[np.ndarray, " v"],
    *,
    standardize: bool = False,
    form: Literal["auto", "primal", "dual"] = "auto",
    intercept: bool = True,
    cutoff: float = ridge.CUTOFF,
    tile: int | None = None,
    progress: Callable[[Sequence], Iterable] = iter,
) -> Fitted:
    """Fit all samples, each target with its penalty.

    Args:
      X: features [n p].
      Y: responses [n v]; see `nested`.
      alphas: penalty of each target, positive; 0: least squares of minimum norm.
      standardize: penalise coefficients of features of unit variance; those returned are of the
        features as given.
      form: see `nested`.
      intercept: see `nested`.
      cutoff: see `nested`.
      tile: see `nested`.
      progress: see `nested`.

    Raises:
      ValueError: if X and Y differ in samples, hold NaN, or a penalty is negative.
    """
    method = Method(standardize=standardize, form=form, intercept=intercept, cutoff=cutoff)
    every = np.arange(np.shape(X)[0])
    problem = Problem(X, Y, (Fold(Split(every, every), ()),), np.ones(1), method, tile, None)
    if not (np.isfinite(alphas).all() and (alphas >= 0).all()):
        raise ValueError("alphas must be >= 0 and finite.")
    if form == "auto":
        form = ridge.choose_form(problem.num_samples, problem.num_features)
    factorize = functools.partial(
        ridge.factorize_all, standardize=standardize, form=form, intercept=intercept, cutoff=cutoff
    )
    [(design, features, center)] = each(factorize, [problem.X])
    coef = np.empty((problem.num_features, problem.num_targets), np.float32)
    constants = np.empty(problem.num_targets)
    for tile_ in progress(problem.columns()):
        targets = problem.load(tile_)
        own = slice(tile_.start, tile_.stop)
        penalties = np.ones(targets.size)
        penalties[: len(tile_)] = alphas[own]
        slopes = sweep.coefficients(design, features, targets.values, jnp.float32(penalties))
        slopes = np.asarray(slopes)[:, : len(tile_)] * targets.peak[: len(tile_)]
        coef[:, own] = slopes
        constants[own] = targets.mean[: len(tile_)] - center @ slopes
    return Fitted(coef, constants)


def held_out(
    X: Float[np.ndarray, "n p"],
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, "k v"],
    *,
    standardize: bool = True,
    form: Literal["auto", "primal", "dual"] = "auto",
    intercept: bool = True,
    cutoff: float = ridge.CUTOFF,
    tile: int | None = None,
) -> Float[np.ndarray, "n v"]:
    """Predict every sample by the fit of the fold that tests it; NaN where none does.

    Args:
      X: features.
      Y: responses.
      folds: outer splits that test no sample twice.
      alphas: penalty of each outer fold and target, as `nested` chose them.
      standardize: see `nested`.
      form: see `nested`.
      intercept: see `nested`.
      cutoff: see `nested`.
      tile: see `nested`.

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
    settings: Any = {"form": form, "intercept": intercept, "cutoff": cutoff, "tile": tile}
    for (train, test), own in zip((fold.outer for fold in folds), alphas, strict=True):
        fit = refit(X[train], Y[train], own, standardize=standardize, **settings)
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
