"""Scikit-learn estimators of the solver: they work in pipelines, with `clone`, and on any arrays.

`X` and `Y` may be NumPy or JAX arrays, or PyTorch tensors. Results are NumPy arrays.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxalign.core import folds as folds_lib
from jaxalign.core import leaks
from jaxalign.core.folds import CV, Fold
from jaxalign.core.metrics import is_constant
from jaxalign.core.solver import banded as banded_lib
from jaxalign.core.solver import cv as cv_lib
from jaxalign.core.solver.method import Execution, Method
from jaxalign.data.labels import refuse_missing

# Share of the targets at an end of the grid that is worth a warning.
EDGE = 0.05

SCORING = {"neg_mean_squared_error": "squared_error", "pearson_r": "correlation"}


# Settings as fields, as scikit-learn wants them: stored as they are, and checked when fitted.
_estimator = dataclasses.dataclass(repr=False, eq=False)


class GridEdgeWarning(UserWarning):
    """Targets chose the smallest or the largest penalty, so a better one may lie beyond."""


class _Ridge(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """What all estimators share: how they read arrays, choose penalties and predict."""

    def _method(self, grid, **settings) -> Method:
        if self.scoring not in SCORING:
            raise ValueError(f"scoring must be one of {', '.join(SCORING)}, got {self.scoring!r}.")
        return Method(
            grid,
            standardize=self.standardize,
            criterion=SCORING[self.scoring],
            intercept=self.fit_intercept,
            **settings,
        )

    @property
    def _execution(self) -> Execution:
        return Execution(search=self.search, form=self.form)

    def _read(self, X, Y) -> tuple[np.ndarray, Any]:
        """Check both sides; a tensorstore array of targets is left where it is."""
        X = _to_numpy(X)
        if hasattr(Y, "read"):
            self._is_row = False
            return validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2), Y
        X, Y = validate_data(
            self,
            X,
            _to_numpy(Y),
            dtype=(np.float64, np.float32),
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2,
        )
        self._is_row = Y.ndim == 1
        Y = Y[:, None] if self._is_row else Y
        return X, Y if Y.dtype == np.float32 else Y.astype(np.float64)

    def _groups(self, num_targets) -> Int[np.ndarray, " v"] | None:
        if self.alpha_per_target is True:
            return None
        if self.alpha_per_target is False:
            return np.zeros(num_targets, int)
        labels = _labels("alpha_per_target", self.alpha_per_target, "target")
        return np.unique(labels, return_inverse=True)[1]

    def _shape(self, x):
        """Bring a result [..., v] to the shape of the targets that were given."""
        return x[..., 0] if self._is_row else x

    def _choose(self, choose: Callable[[np.ndarray], Any], Y) -> Any:
        """Choose penalties; widen the grid while more than a few choices lie at an end of it.

        Constant targets do not count: for them any penalty is as good.

        Args:
          choose: takes a grid and returns a result with `alphas`.
          Y: targets.
        """
        constant = _constant(Y)
        self.num_constant_targets_ = int(constant.sum())
        if self.widen_grid < 0:
            raise ValueError(f"widen_grid must be >= 0, got {self.widen_grid}.")
        grid = np.sort(np.asarray(self.alphas, np.float64).reshape(-1))
        low = high = False
        for left in range(self.widen_grid, -1, -1):
            result = choose(grid)
            shares = (0.0, 0.0)
            if len(grid) > 1 and not constant.all():
                shares = cv_lib.edges(result.alphas[..., ~constant], grid)
            low, high = (share > EDGE for share in shares)
            if left and (low or high):
                grid = cv_lib.widen(grid, low=low, high=high)
        self.alphas_ = grid
        self.edge_shares_ = shares
        if low or high:
            warnings.warn(
                f"{shares[0]:.0%} of the choices are the smallest penalty ({grid[0]:.3g}) and "
                f"{shares[1]:.0%} the largest ({grid[-1]:.3g}): widen the grid (widen_grid=2 does "
                "so by itself), unless these targets are noise, for which any large penalty does.",
                GridEdgeWarning,
                stacklevel=3,
            )
        return result

    def _fit_all(self, X, Y, alphas):
        """Fit all samples with a penalty for each target."""
        self._keep(cv_lib.refit(X, Y, alphas, self._method(self.alphas_)))

    def _keep(self, fitted):
        # In scikit-learn targets are rows.
        self.coef_ = fitted.coef[:, 0] if self._is_row else fitted.coef.T
        self.intercept_ = self._shape(fitted.intercept) if self.fit_intercept else 0.0

    def _features(self, X):
        """Check features that are to be predicted from."""
        check_is_fitted(self, "coef_")
        return validate_data(self, _to_numpy(X), dtype=(np.float64, np.float32), reset=False)

    def _predict(self, X):
        return self._features(X) @ self.coef_.T + self.intercept_


def _labels(name: str, given: Any, entry: str) -> Any:
    """Return labels as an array, of which none may be missing; None where there are none."""
    if given is None:
        return None
    labels = np.asarray(given)
    if labels.ndim == 1:
        refuse_missing(name, labels, entry)
    return labels


def _to_numpy(x: Any) -> Any:
    """Take over an array of another library, without a copy where memory allows."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        return x
    if hasattr(x, "detach"):  # a tensor that needs gradients is not handed out
        x = x.detach()
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError):  # on an accelerator
        return np.asarray(jnp.from_dlpack(x))


def _constant(Y: Any) -> np.ndarray:
    """Which targets do not vary; of targets on disk none is looked at."""
    if not isinstance(Y, np.ndarray):
        return np.zeros(Y.shape[1], bool)
    return is_constant(Y)


@_estimator
class RidgeCV(_Ridge):
    """Ridge regression with the penalty chosen by cross-validation, for each target by default.

    Minimises ||y - X w - b||^2 + alpha ||w||^2, for all penalties from one factorisation of each
    training set. Stands in for `sklearn.linear_model.RidgeCV` and `himalaya.ridge.RidgeCV`.

    Args:
      alphas: penalties to choose from, positive.
      cv: None leaves out single samples, in closed form; "gcv" is generalised cross-validation;
        else a number of contiguous blocks, a scikit-learn splitter, or pairs of indices.
      fit_intercept: leave a constant free of penalty, by the means of each training set.
      standardize: scale features to unit variance over each training set.
      scoring: "neg_mean_squared_error" or "pearson_r", averaged over splits.
      search: "grid" computes the error of every penalty; "adaptive", for squared errors, splits
        and a penalty per target, only of those that could be best where that costs less; "bound"
        always (see `jaxalign.core.solver.method.Execution`).
      alpha_per_target: True; False for one penalty; or a label for each target, and one penalty
        for each label.
      widen_grid: how often to extend the grid where more than 5 % of the choices lie at an end.
      form: "primal", "dual", "sums" or "auto" (`jaxalign.core.solver.method`).

    Attributes:
      best_alphas_: penalty of each target [v]. Of penalties that do equally well, the largest.
      alpha_: the same, or a number if there is one target or one penalty.
      cv_scores_: score of that penalty, averaged over the splits [v]; for squared errors R2
        against the mean of the training samples.
      best_score_: their mean.
      coef_: slopes [v p], or [p] for a row of targets.
      intercept_: constants [v], or a number.
      alphas_: penalties that were tried; more than `alphas` if the grid was widened.
      edge_shares_: shares of targets, constant ones aside, at the lower and upper end of the grid.
      num_constant_targets_: targets that do not vary.
    """

    alphas: Any = (0.1, 1.0, 10.0)
    _: dataclasses.KW_ONLY
    cv: CV | Literal["gcv"] | None = None
    fit_intercept: bool = True
    standardize: bool = False
    scoring: str = "neg_mean_squared_error"
    search: str = "grid"
    alpha_per_target: Any = True
    widen_grid: int = 0
    form: str = "auto"

    def fit(self, X: Any, y: Any, groups: Any = None) -> "RidgeCV":
        """Choose penalties and fit all samples.

        Args:
          X: features [n p].
          y: targets [n v] or [n].
          groups: label of each sample, for splitters that ask for it.

        Raises:
          ValueError: if shapes differ, a value is not finite, or a setting is not allowed.
        """
        X, Y = self._read(X, y)
        splits, scheme = (), self.cv
        if self.cv is None:
            scheme = "loo"
        elif not isinstance(self.cv, str):
            scheme = "folds"
            groups = _labels("groups", groups, "sample")
            splits = folds_lib.splits(self.cv, len(X), groups=groups)
        elif self.cv != "gcv":
            raise ValueError(f"cv must be None, 'gcv', a number or a splitter, got {self.cv!r}.")
        settings = {"scheme": scheme, "pool": self._groups(Y.shape[1])}
        result = self._choose(
            lambda grid: cv_lib.select(
                X, Y, splits, self._method(grid, **settings), execution=self._execution
            ),
            Y,
        )
        self.best_alphas_ = result.alphas
        self.alpha_ = (
            result.alphas[0] if self._is_row or self.alpha_per_target is False else result.alphas
        )
        self.cv_scores_ = result.score
        self.best_score_ = float(result.score.mean())
        self._fit_all(X, Y, result.alphas)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict targets [n v] or [n] from features [n p]."""
        return self._predict(X)


def _refits(estimator: "NestedRidgeCV") -> bool:
    return estimator.refit


@_estimator
class NestedRidgeCV(_Ridge):
    """Held-out scores of a ridge whose penalties are chosen inside each training set.

    Args:
      alphas: penalties to choose from, positive.
      outer_cv: a number of contiguous blocks, a scikit-learn splitter, or pairs of indices.
      inner_cv: splits each outer training set: a number or a splitter, which is given
        `groups[train]`. None takes the other outer test sets, so that training sets serve two
        outer folds at once; outer test sets must then not share samples.
      search: "adaptive", "grid" or "bound"; see `RidgeCV`.
      fit_intercept: see `RidgeCV`.
      standardize: see `RidgeCV`.
      scoring: what chooses penalties; see `RidgeCV`.
      alpha_per_target: see `RidgeCV`.
      widen_grid: see `RidgeCV`.
      form: see `RidgeCV`.
      refit: also choose penalties on the outer splits and fit all samples, for `predict`.

    Attributes:
      scores_: Pearson r on each outer test set [k v]; NaN where undefined.
      r2_scores_: coefficient of determination [k v].
      best_alphas_: penalty of each outer fold and target [k v], values of the grid.
      num_constant_features_, rank_, condition_: of the features of each outer training set [k]:
        how many do not vary, how many directions they span, the largest over the least eigenvalue.
      alphas_, edge_shares_, num_constant_targets_: see `RidgeCV`.
      coef_, intercept_: with `refit`; see `RidgeCV`.
    """

    alphas: Any = (0.1, 1.0, 10.0)
    _: dataclasses.KW_ONLY
    outer_cv: CV = 5
    inner_cv: CV | None = None
    search: str = "adaptive"
    fit_intercept: bool = True
    standardize: bool = False
    scoring: str = "neg_mean_squared_error"
    alpha_per_target: Any = True
    widen_grid: int = 0
    form: str = "auto"
    refit: bool = False

    def _folds(self, num_samples, groups) -> tuple[Fold, ...]:
        groups = _labels("groups", groups, "sample")
        if self.inner_cv is not None:
            return folds_lib.nest(self.outer_cv, self.inner_cv, num_samples, groups=groups)
        return folds_lib.cross(folds_lib.splits(self.outer_cv, num_samples, groups=groups))

    def fit(self, X: Any, Y: Any, groups: Any = None) -> "NestedRidgeCV":
        """Score all outer folds.

        Args:
          X: features [n p].
          Y: targets [n v] or [n]; a tensorstore array is read tile by tile.
          groups: label of each sample, for splitters that ask for it.

        Raises:
          ValueError: if shapes differ, a value is not finite, or a setting is not allowed.
        """
        X, Y = self._read(X, Y)
        folds = self._folds(len(X), groups)
        found = leaks.count(folds, leaks.same_rows(X))
        if found.num_repeated:
            warnings.warn(
                f"Features of {found} equal those of a sample that is trained on, as if stimuli "
                "were presented again: then responses can be looked up. Take for outer_cv a "
                "splitter of groups, and give groups that say what each sample presents.",
                leaks.RepeatedStimuliWarning,
                stacklevel=2,
            )
        pool, execution = self._groups(Y.shape[1]), self._execution
        result = self._choose(
            lambda grid: cv_lib.nested(
                X, Y, folds, self._method(grid, pool=pool), execution=execution
            ),
            Y,
        )
        self.scores_ = result.r
        self.r2_scores_ = result.r2
        self.best_alphas_ = result.alphas
        self.num_constant_features_ = result.num_constant
        self.rank_ = result.rank
        self.condition_ = result.condition
        if self.refit:
            splits, method = [fold.outer for fold in folds], self._method(self.alphas_, pool=pool)
            chosen = cv_lib.select(X, Y, splits, method, execution=execution)
            self._fit_all(X, Y, chosen.alphas)
        return self

    @available_if(_refits)
    def predict(self, X: Any) -> np.ndarray:
        """Predict targets [n v] or [n] from features [n p]; there if `refit`."""
        return self._predict(X)


@_estimator
class BandedRidgeCV(_Ridge):
    """Ridge regression with a penalty for each band of features and each target.

    Weights of the bands come from draws on the simplex and moves from the best of them
    (`jaxalign.core.solver.banded`), each with every penalty of the grid.

    Args:
      alphas: penalties to choose from, positive; that of a band is alpha / weight.
      bands: label of the band of each feature [p], integers or names; None: a single band.
      cv: a number of contiguous blocks, a scikit-learn splitter, or pairs of indices.
      num_draws: random weights that are tried.
      concentrations: of the Dirichlet distributions of the draws; below 1 favours few bands.
      num_rounds: rounds of the refinement.
      search: see `RidgeCV`.
      standardize: scale features to unit variance first, over all samples.
      scoring: see `RidgeCV`.
      widen_grid: see `RidgeCV`.
      form: see `RidgeCV`.
      random_state: seed of the draws.

    Attributes:
      band_labels_: the bands, in the order of what follows [g].
      weights_: of each band and target, 1 in sum [g v].
      best_alphas_: penalty of each target [v].
      penalties_: of each band and target, infinite where a band has no weight [g v].
      cv_scores_: see `RidgeCV`.
      coef_, intercept_, alphas_, edge_shares_, num_constant_targets_: see `RidgeCV`.
    """

    fit_intercept = True
    alpha_per_target = True

    alphas: Any = (0.1, 1.0, 10.0)
    _: dataclasses.KW_ONLY
    bands: Any = None
    cv: CV = 5
    num_draws: int = 20
    concentrations: tuple[float, ...] = (0.1, 1.0)
    num_rounds: int = 4
    search: str = "adaptive"
    standardize: bool = False
    scoring: str = "neg_mean_squared_error"
    widen_grid: int = 0
    form: str = "auto"
    random_state: int = 0

    def fit(self, X: Any, y: Any, groups: Any = None) -> "BandedRidgeCV":
        """Choose weights and penalties, and fit all samples.

        Args:
          X: features [n p].
          y: targets [n v] or [n].
          groups: label of each sample, for splitters that ask for it.

        Raises:
          ValueError: if shapes differ, a value is not finite, or a setting is not allowed.
        """
        X, Y = self._read(X, y)
        names = np.zeros(X.shape[1], int) if self.bands is None else np.asarray(self.bands)
        if names.shape != (X.shape[1],):
            raise ValueError(
                f"bands must have a label for each of {X.shape[1]} features, got {names.shape}."
            )
        refuse_missing("bands", names, "feature")
        self.band_labels_, bands = np.unique(names, return_inverse=True)
        groups = _labels("groups", groups, "sample")
        splits = folds_lib.splits(self.cv, len(X), groups=groups)
        budget = banded_lib.Budget(
            self.random_state, self.num_draws, tuple(self.concentrations), self.num_rounds
        )
        features = banded_lib.Features(X, bands)
        result = self._choose(
            lambda grid: banded_lib.search(
                features, Y, splits, self._method(grid), budget, execution=self._execution
            ),
            Y,
        )
        self.weights_ = self._shape(result.weights)
        self.best_alphas_ = result.alphas
        self.penalties_ = self._shape(result.penalties)
        self.cv_scores_ = result.score
        method = self._method(self.alphas_)
        fitted = banded_lib.refit(features, Y, result.weights, result.alphas, method)
        self._bands = bands
        self._keep(fitted)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict targets [n v] or [n] from features [n p]."""
        return self._predict(X)

    def predict_bands(self, X: Any) -> np.ndarray:
        """Return what each band adds to the prediction [g n v] or [g n]; without the intercept."""
        X = self._features(X)
        coef = self.coef_[:, None] if self._is_row else self.coef_.T
        return self._shape(banded_lib.predict_bands(banded_lib.Features(X, self._bands), coef))
