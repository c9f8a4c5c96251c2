"""Permutation tests of held-out scores: null distributions of all targets at once.

A null score is the score of responses whose samples were put into another order, while features
and predictions keep theirs. What orders are allowed says what is assumed
(`core/inference/orders.py`). Either every null is fitted anew (`permuted_fit`), as scores of a
cross-validation ask for, or predictions are taken as given (`permuted_correlation`,
`shifted_correlation`), which is for predictions of what was fitted to other data.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.features import Labels, members
from jaxalign.core.folds import Fold
from jaxalign.core.inference import orders as orders_lib
from jaxalign.core.inference import stats
from jaxalign.core.inference.stats import Alternative, Significance
from jaxalign.core.metrics import CONSTANT_TOLERANCE, is_flat
from jaxalign.core.solver import tiles
from jaxalign.core.solver.method import GRID, Execution, Method
from jaxalign.core.solver.problem import Problem

# Where predictions are given: targets at a time at most, and sums over blocks that are held.
TILE, MAX_SUMS = 512, 2**24
# Scores that differ by less are tied: float64 sums, and scores of the float32 solver.
ROUNDING, SOLVER_ROUNDING = 1e-10, 1e-5


# Nulls of given predictions.


def permuted_correlation(
    predicted: Float[np.ndarray, "n v"],
    recorded: Float[np.ndarray, "n v"],
    blocks: Sequence[Int[np.ndarray, " _"]],
    orders: Int[np.ndarray, "q n"],
    *,
    alternative: Alternative = "greater",
    progress: Callable[[Sequence], Iterable] = iter,
) -> Significance:
    """Test the correlation of held-out predictions with responses against permuted responses.

    The statistic is Pearson r within each block, averaged over blocks. The test is for predictions
    that were made without these responses: fitted to another run, session or subject. Those of a
    cross-validation were not, as what predicts one fold was fitted to the others: two samples that
    predict each other count twice, scores spread more than these nulls, and at a level of 5 % the
    test rejected 10 % of responses without any signal (5 folds with a gap; 13 % without one).
    `permuted_fit` is for these.

    Args:
      predicted: predictions.
      recorded: responses.
      blocks: runs or the like, disjoint, within which to correlate.
      orders: permutations of all samples, from `row_orders`, `block_orders` or `shift_orders`.
      alternative: "greater", or "two-sided" in the absolute value.
      progress: wraps the list of tiles of targets.

    Raises:
      ValueError: if shapes differ, blocks share a sample, or an order is no permutation.
    """
    n = len(predicted)
    orders_lib.check_samples(predicted, recorded, range(n))
    label, sizes = _label_blocks(n, blocks)
    orders_lib.check_orders(orders, n)
    everything = np.vstack([np.arange(n), orders]).astype(np.int32)

    def scores(columns):
        p, y, smallest = _prepare(predicted, recorded, label, len(sizes), columns)
        with jax.enable_x64(True):
            return np.asarray(_permuted(p, y, smallest, label, sizes, everything))

    columns = _columns(predicted.shape[1], len(sizes) * len(everything))
    return stats.tally(map(scores, progress(columns)), alternative, ROUNDING)


def shifted_correlation(
    predicted: Float[np.ndarray, "n v"],
    recorded: Float[np.ndarray, "n v"],
    blocks: Sequence[Int[np.ndarray, " _"]],
    run: Labels,
    shifts: Int[np.ndarray, "q r"],
    *,
    alternative: Alternative = "greater",
    progress: Callable[[Sequence], Iterable] = iter,
) -> Significance:
    """Do what `permuted_correlation` does with circular shifts, all at once by Fourier transforms.

    Blocks stay where they are, and responses move through them. With w 1 inside a block and p the
    predictions, centred there, all that r needs at shift l is sum_t p(t) y(t-l), sum_t w(t) y(t-l)
    and sum_t w(t) y(t-l)^2: circular correlations, of which those of several runs add up.

    Args:
      predicted: see `permuted_correlation`.
      recorded: see `permuted_correlation`.
      blocks: see `permuted_correlation`.
      run: run of each sample; samples of a run are in order of time.
      shifts: from `draw_shifts`.
      alternative: see `permuted_correlation`.
      progress: see `permuted_correlation`.

    Raises:
      ValueError: if shapes differ, blocks share a sample, or columns of shifts are not runs.
    """
    orders_lib.check_samples(predicted, recorded, run)
    label, sizes = _label_blocks(len(predicted), blocks)
    runs = members(run)
    orders_lib.check_shifts(runs, shifts)
    lengths = np.array([len(own) for own in runs.values()])
    everything = np.vstack([np.zeros_like(shifts[:1]), shifts]) % lengths

    def scores(columns):
        p, y, smallest = _prepare(predicted, recorded, label, len(sizes), columns)
        sums = np.zeros((3, len(sizes), len(everything), len(columns)))
        for own, lags in zip(runs.values(), everything.T, strict=True):
            here = np.unique(label[own][label[own] >= 0])
            window = (label[own][None] == here[:, None]).astype(np.float64)
            with _fourier():
                sums[:, here] += np.asarray(_shifted(p[own], y[own], window, lags))
        return _mean_r(np, sums, sizes[:, None, None], smallest)

    columns = _columns(predicted.shape[1], len(sizes) * len(everything))
    return stats.tally(map(scores, progress(columns)), alternative, ROUNDING)


@jax.jit
def _permuted(
    p: Float[Array, "n t"],
    y: Float[Array, "n t"],
    smallest: Float[Array, " t"],
    label: Int[Array, " n"],
    sizes: Float[Array, " b"],
    orders: Int[Array, "q n"],
) -> Float[Array, "q t"]:
    # Samples of no block are counted in one more, which is dropped.
    total = lambda x: jax.ops.segment_sum(
        x, jnp.where(label < 0, len(sizes), label), len(sizes) + 1
    )

    def one(order):
        moved = y[order]
        sums = [total(x)[:-1] for x in (p * moved, moved, moved**2)]
        return _mean_r(jnp, sums, sizes[:, None], smallest[None])

    return jax.lax.map(one, orders)


@jax.jit
def _shifted(
    p: Float[Array, "m t"],
    y: Float[Array, "m t"],
    window: Float[Array, "b m"],
    lags: Int[Array, " q"],
) -> Float[Array, "3 b q t"]:
    m = len(p)
    forward = lambda x: jnp.fft.rfft(x, axis=-2)

    def back(x):
        # sum_t a(t) y(t - l) for every l.
        return jnp.fft.irfft(x, m, axis=-2)[:, lags]

    inside, windows = forward(p[None] * window[..., None]), forward(window[..., None])
    y1, y2 = (jnp.conj(forward(x))[None] for x in (y, y**2))
    return jnp.stack([back(inside * y1), back(windows * y1), back(windows * y2)])


def _mean_r(xp, sums, sizes, smallest):
    """Return r from three sums over blocks [b ... t], averaged; predictions have norm 1 in each."""
    products, total, squares = sums
    variance = squares / sizes - (total / sizes) ** 2
    varies = variance > smallest**2
    r = products / xp.sqrt(xp.where(varies, variance * sizes, 1.0))
    return xp.where(varies, r, xp.nan).mean(axis=0)


@contextlib.contextmanager
def _fourier():
    """Run in float64, on the host where the device has no Fourier transform of it."""
    device = jax.devices("cpu")[0] if jax.default_backend() == "tpu" else None
    with jax.enable_x64(True), jax.default_device(device):
        yield


def _prepare(predicted, recorded, label, num_blocks, columns):
    """Return predictions of mean 0 and norm 1 in each block, and centred responses.

    And the standard deviation of responses at and below which they count as constant.
    """
    own = slice(columns.start, columns.stop)
    p = np.zeros((len(label), len(columns)))
    for block in range(num_blocks):
        inside = label == block
        values = predicted[inside, own]
        apart = values - values.mean(axis=0, dtype=np.float64)
        constant = is_flat(values)
        norm = np.sqrt((apart**2).sum(axis=0))
        p[inside] = np.where(constant, np.nan, apart / np.where(constant, 1.0, norm))
    y = recorded[:, own].astype(np.float64)
    smallest = CONSTANT_TOLERANCE * np.abs(y).max(axis=0)
    return p, y - y.mean(axis=0), smallest


def _columns(num_targets, sums_per_target):
    width = min(max(MAX_SUMS // sums_per_target, 1), TILE)
    return [range(a, min(a + width, num_targets)) for a in range(0, num_targets, width)]


# Nulls that are fitted.


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
        rows, own = key
        if rows != slice(None):
            raise ValueError(f"All rows are read at a time, got {rows}.")
        target, order = np.divmod(np.arange(self.shape[1])[own], len(self.orders))
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
      orders: see `permuted_correlation`; shifts by way of `shift_orders`.
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
      alternative: see `permuted_correlation`.
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


def _label_blocks(n, blocks):
    """Return the block of each sample, -1 without one, and the samples in each block."""
    if not len(blocks):
        raise ValueError("blocks must hold at least one, got none.")
    label = np.full(n, -1, np.int32)
    for number, block in enumerate(blocks):
        if len(block) < 2:
            raise ValueError(
                f"Every block must have at least 2 samples, {number} has {len(block)}."
            )
        if len(np.unique(block)) < len(block) or (label[block] >= 0).any():
            raise ValueError(f"blocks must hold each sample once: {number} repeats one.")
        label[block] = number
    return label, np.array([len(block) for block in blocks], np.float64)
