"""Permutation tests of held-out scores: nulls of all targets at once, every one fitted anew.

A null score is the score of responses whose samples were put into another order, while features
keep theirs. Which orders are allowed says what is assumed (`core/inference/orders.py`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core.folds import Fold
from jaxalign.core.inference import orders as orders_lib
from jaxalign.core.inference import stats
from jaxalign.core.inference.stats import Alternative, Significance
from jaxalign.core.solver import tiles
from jaxalign.core.solver.method import GRID, Execution, Method
from jaxalign.core.solver.problem import Problem

# Scores of the float32 solver that differ by less are tied.
SOLVER_ROUNDING = 1e-5


class Permuted:
    """Responses in every order, as more targets of one solver, made when they are read.

    Column t (1 + q) + i is target t in order i - 1, and as it is for i = 0: all nulls of a target
    are neighbours, so that a pass over columns reads every target once. It has the shape and the
    slices that `cv.nested` asks of responses.
    """

    def __init__(self, Y: Any, orders: Int[np.ndarray, "q n"]):
        """Check that orders are permutations of the samples of Y [n v]."""
        orders_lib.check_orders(orders, Y.shape[0])
        itself = np.arange(Y.shape[0], dtype=np.int32)
        self.Y = Y
        self.orders = np.vstack([itself, orders.astype(np.int32)])
        self.shape = (Y.shape[0], Y.shape[1] * len(self.orders))

    def __getitem__(self, key: tuple[slice, slice]) -> Float[np.ndarray, "n w"]:
        """Return all rows of some columns."""
        rows, columns = key
        if rows != slice(None):
            raise ValueError(f"All rows are read at a time, got {rows}.")
        target, order = np.divmod(np.arange(self.shape[1])[columns], len(self.orders))
        if not len(target):
            return np.empty((self.shape[0], 0), np.float32)
        block = tiles.read(self.Y, range(target[0], target[-1] + 1))
        return block[self.orders[order].T, (target - target[0])[None]]


def permuted_scores(
    X: Any,
    Y: Any,
    folds: Sequence[Fold],
    orders: Int[np.ndarray, "q n"],
    method: Method,
    *,
    execution: Execution = GRID,
) -> Iterator[Float[np.ndarray, "_ _"]]:
    """Score responses as they are, and permuted, all fitted anew.

    Choice of penalties, training and test: every null goes through what the target itself goes
    through (`cv.nested`), on the same factorisations, for X does not change.

    Args:
      X: features [n p].
      Y: responses [n v]; see `cv.nested`.
      folds: see `cv.nested`.
      orders: permutations of all samples, from `core/inference/orders.py`.
      method: penalties, and how they are chosen; without pools.
      execution: how it is computed; tiles are of columns of `Permuted`.

    Returns:
      Iterator of Pearson r averaged over outer folds, [1 + q, t] of some targets each, in the order
      of Y: the first row of responses as they are, then of each order.

    Raises:
      ValueError: see `cv.nested`; or if an order is no permutation.
    """
    permuted = Permuted(Y, orders)
    problem = Problem(X, permuted, folds, method, execution)
    choose = problem.chooser()
    outer = problem.outer()
    problem.forget()

    def scores(targets):
        r, *_ = problem.score(outer, targets, choose(targets).place)
        return np.asarray(r, np.float64)[:, : len(targets)].mean(axis=0)

    stream = map(scores, problem.load())
    return _regroup(stream, len(permuted.orders))


def permuted_fit(
    X: Any,
    Y: Any,
    folds: Sequence[Fold],
    orders: Int[np.ndarray, "q n"],
    method: Method,
    *,
    alternative: Alternative = "greater",
    **options: Any,
) -> Significance:
    """Test held-out scores against those of permuted responses, all fitted anew.

    As every null goes through what the target itself goes through, the test is exact where orders
    are exchangeable, whatever the folds, and with no gap between training and test; only the orders
    can make it approximate. The statistic is Pearson r of each outer fold, averaged over folds.

    Args:
      X: see `permuted_scores`.
      Y: see `permuted_scores`.
      folds: see `permuted_scores`.
      orders: see `permuted_scores`.
      method: see `permuted_scores`.
      alternative: "greater", or "two-sided" in the absolute value.
      **options: of `permuted_scores`.

    Raises:
      ValueError: see `permuted_scores`.
    """
    parts = permuted_scores(X, Y, folds, orders, method, **options)
    return stats.tally(parts, alternative, SOLVER_ROUNDING)


def _regroup(stream: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield [size t] of whole targets, of whose scores the tiles hold parts."""
    left = np.empty(0)
    for part in stream:
        left = np.concatenate([left, part])
        whole = len(left) // size * size
        if whole:
            yield left[:whole].reshape(-1, size).T
            left = left[whole:]
    assert not len(left)
