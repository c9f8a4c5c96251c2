"""One cross-validation: its checks, its factorisations, and what runs on each tile of targets."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from jaxtyping import Array, Float, Int

from jaxalign.core import mesh as mesh_lib
from jaxalign.core.folds import Fold, Split
from jaxalign.core.solver import columns as columns_lib
from jaxalign.core.solver import division, ridge, squares, sweep, tiles
from jaxalign.core.solver import search as search_lib
from jaxalign.core.solver.columns import Columns
from jaxalign.core.solver.method import Execution, Form, Method
from jaxalign.core.solver.outline import Outline
from jaxalign.core.solver.samples import CLOSE
from jaxalign.core.solver.search import Search
from jaxalign.core.solver.sets import Blocks, Rows, Sets
from jaxalign.core.solver.tiles import Tile

# After its first round the adaptive search takes this share of a tile's targets at a time.
REFINED = 8
# Factorisations at a time on CPU, and the bytes that they may hold; one may hold more.
MAX_WORKERS, MOST_BYTES = 8, 2**33
# Penalties in float32, in units in which features have a size of 1.
LEAST_ALPHA, LARGEST_ALPHA = 1e-30, 1e30


class Problem:
    """Checked data, and what is computed from them once for all targets."""

    def __init__(
        self,
        X: Any,
        Y: Any,
        folds: Sequence[Fold],
        method: Method,
        execution: Execution,
    ):
        """Check everything, and choose a form; see `cv.nested` for what each argument means."""
        columns = Columns(X)
        alphas = np.sort(np.asarray(method.alphas, np.float64))
        _check_data(columns, Y, folds, method.scheme)
        _check_method(alphas, method, execution)
        n, p = columns.shape
        self.precision = columns.precision
        intercept = method.intercept
        self.units = columns_lib.units(columns.given, each=method.standardize, intercept=intercept)
        self.X = Columns(columns.given, self.units)
        self.Y = Y
        self.num_samples, self.num_features = n, p
        self.num_targets = Y.shape[1]
        self.folds = folds
        self.alphas = alphas
        # Of features that are scaled, penalties do not depend on their units.
        square = 1.0 if method.standardize else self.units[0] ** 2
        self.scaled = np.where(
            alphas > 0, np.clip(alphas / square, LEAST_ALPHA, LARGEST_ALPHA), 0.0
        )
        self.grid = jax.device_put(self.scaled.astype(np.float32))
        self.method, self.execution = method, execution
        self.outline = Outline(
            num_samples=n,
            num_features=p,
            num_targets=Y.shape[1],
            folds=folds,
            method=method,
            execution=execution,
        )
        self.width = self.outline.tile
        self.blocks = self.outline.blocks
        self.form = self.outline.form
        self.sums = self.layout = self.kernel = self.family = None
        if self.form == "sums":
            self.sums, coordinates = ridge.statistics(
                self.X.whole, self.blocks, standardize=method.standardize
            )
            self.layout = tiles.Layout(
                tuple(map(jax.device_put, self.blocks)),
                coordinates,
                jax.device_put(np.asarray(self.sums.offset, np.float32)),
                jax.device_put(np.asarray(self.sums.count, np.float32)),
            )

    # Training sets.

    def inner(self) -> sweep.Inner:
        """Factorise each distinct inner training set once, for all of its test sets."""
        uses: dict[bytes, list[tuple[Split, int, float]]] = {}
        for i, fold in enumerate(self.folds):
            if self.method.scheme == "folds":
                if not fold.inner:
                    raise ValueError(f"Outer fold {i} must have inner splits, got none.")
                for split in fold.inner:
                    use = (split, i, 1 / len(fold.inner))
                    uses.setdefault(split.train.tobytes(), []).append(use)
            else:
                itself = Split(fold.outer.train, fold.outer.train)
                uses.setdefault(itself.train.tobytes(), []).append((itself, i, 1.0))
        flat = [use for same in uses.values() for use in same]
        sets = self._factorize(
            [(same[0][0].train, [split.test for split, _, _ in same]) for same in uses.values()],
            center=self.method.criterion == "correlation",
        )
        _, owner, share = zip(*flat, strict=True)
        return sweep.Inner(
            sets,
            jax.device_put(np.array(owner, np.int32)),
            jax.device_put(np.array(share, np.float32)),
        )

    def outer(self) -> Sets:
        """Factorise the outer training sets."""
        return self._factorize(
            [(fold.outer.train, [fold.outer.test]) for fold in self.folds], center=True
        )

    def forget(self) -> None:
        """Let go of what only factorisations need, once all training sets are factorised."""
        self.kernel = None
        self.X.forget()

    def _factorize(self, sets, *, center):
        """Factorise training sets for their test sets, padded to one length to compile once."""
        settings = ridge.Settings(
            self.method.standardize,
            center,
            intercept=self.method.intercept,
            cutoff=self.method.cutoff,
            precision=self.precision,
            least_squares=bool((self.alphas == 0).any()),
        )
        form, longest = self.form, 0
        source = np.repeat(np.arange(len(sets), dtype=np.int32), [len(tests) for _, tests in sets])
        if self.sums is not None and self.layout is not None:
            within = lambda indices: np.array([np.isin(b[0], indices) for b in self.blocks])
            parts = [
                ridge.Members(within(train), np.stack([*map(within, tests)]))
                for train, tests in sets
            ]
            factorize = functools.partial(ridge.factorize_statistics, self.sums, settings=settings)
            train, tests = zip(*parts, strict=True)
            members = Blocks(
                jax.device_put(np.float32(np.stack(train))),
                jax.device_put(np.float32(np.concatenate(tests))),
                self.layout.count,
            )
        else:
            longest = max(len(train) for train, _ in sets)
            longest_test = max(len(test) for _, tests in sets for test in tests)
            if form == "auto":
                shared = not self.method.standardize and len(sets) > 1
                form = ridge.choose_form(longest, self.num_features, shared=shared)
            if form == "dual" and not self.method.standardize and self.kernel is None:
                self.kernel = ridge.kernel(self.X, intercept=self.method.intercept)
            parts = []
            for train, tests in sets:
                padded = [_pad(test, longest_test) for test in tests]
                tests = map(np.stack, zip(*padded, strict=True))
                parts.append(ridge.Rows(*_pad(train, longest), *tests))
            if form == "primal" or self.X.is_one_block:
                _ = self.X.whole  # once, before threads ask for it
            factorize = functools.partial(
                ridge.factorize,
                self.X,
                settings=settings._replace(form=form),
                shared=self.kernel,
                alphas=self.scaled,
            )
            train, train_mask, tests, tests_mask = zip(*parts, strict=True)
            members = Rows(
                *map(jax.device_put, map(np.stack, (train, train_mask))),
                *map(jax.device_put, map(np.concatenate, (tests, tests_mask))),
            )
        size = longest if form == "dual" else self.num_features
        designs = list(each(factorize, parts, most=workers(size)))
        intercept = jax.device_put(np.float32(self.method.intercept))
        return Sets(ridge.stack(designs), members, jax.device_put(source), intercept)

    # Targets.

    def load(self) -> Iterator[Tile]:
        """Read all targets, tile by tile; each is read while the one before it is computed."""
        starts = range(0, self.num_targets, self.width)
        columns = [range(a, min(a + self.width, self.num_targets)) for a in starts]
        # The thread reads and does nothing else: what devices do has one order in all processes.
        with concurrent.futures.ThreadPoolExecutor(1) as reader:
            read = lambda i: reader.submit(tiles.read, self.Y, columns[i])
            ahead = read(0)
            for i, some in enumerate(self.execution.progress(columns)):
                block = ahead.result()
                if i + 1 < len(columns):
                    ahead = read(i + 1)
                yield tiles.load(
                    block, some, self.width, self._targets, intercept=self.method.intercept
                )

    def _targets(self, values, offset):
        return division.formed(self.execution.mesh, self.layout is None)(
            self.layout, values, offset
        )

    def unit(self, targets: Tile) -> Float[np.ndarray, " t"]:
        """Return the factor that brings costs to the units of Y."""
        is_error = self.method.criterion == "squared_error"
        return targets.peak**2 if is_error else np.ones(targets.size)

    def _run(self, function, shared, targets, *others, ranks=(2,), **static):
        """Run a function of `core/solver/sweep.py` on a tile, divided over the devices of the mesh.

        Targets are the last axis of `others` and of each result; `ranks` are the results' ranks.
        """
        run = division.divided(
            function,
            self.execution.mesh,
            (self.layout is None, len(others)),
            ranks,
            tuple(sorted(static.items())),
        )
        return run(shared, targets.targets, *others)

    def curves(self, inner: sweep.Inner, targets: Tile):
        """Return the cost of every penalty [k a t], and the cost without features [k t]."""
        if self.method.scheme == "folds":
            costs, null = self._of_folds(inner, targets)
            close = self._close(inner, costs, null)
            if close is not None:
                instead, _ = self._of_folds(_without_squares(inner), targets)
                costs = jnp.where(close[:, None], instead, costs)
            return costs, null
        return self._run(
            sweep.in_sample_curves,
            (inner, self.grid),
            targets,
            ranks=(3, 2),
            criterion=self.method.criterion,
            num_folds=len(self.folds),
            scheme=self.method.scheme,
        )

    def _of_folds(self, inner, targets):
        static = {"criterion": self.method.criterion, "num_folds": len(self.folds)}
        shared = (inner, self.grid, self._family(inner))
        return self._run(sweep.curves, shared, targets, ranks=(3, 2), **static)

    def _close(self, inner, costs, null):
        """Return which fits are so close that y'y - 2 b + q loses its digits; None if none is."""
        if inner.sets.squares is None or self.method.criterion == "correlation":
            return None
        close = costs.min(axis=1) < CLOSE * null
        return close if mesh_lib.to_host(close).any() else None

    def _family(self, inner):
        if inner.sets.squares is not None:
            return None
        if self.family is None:
            spectrum = np.asarray(inner.sets.design.spectrum)
            self.family = jax.device_put(search_lib.family(spectrum, self.scaled))
        return self.family

    def chooser(self) -> Callable[[Tile], sweep.Choice]:
        """Return a function that chooses the penalties of a tile; pools read all targets before.

        A single penalty needs no inner splits.
        """
        without = self.method.scheme == "folds" and not any(f.inner for f in self.folds)
        if without and len(self.alphas) == 1:
            return self._only()
        inner = self.inner()
        if self.outline.at_once:
            inner = inner._replace(sets=squares.prepare(inner.sets))
        if self.method.pool is not None:
            return self._pooled(inner, np.asarray(self.method.pool))
        if not self.outline.may_bound:
            return lambda targets: sweep.best(*self.curves(inner, targets))
        if inner.sets.squares is None:
            return functools.partial(self._search, inner)

        def at_once(targets):
            costs, null = self._of_folds(inner, targets)
            choice = sweep.best(costs, null)
            close = self._close(inner, costs, null)
            if close is None:
                return choice
            instead = self._search(_without_squares(inner), targets)
            return jax.tree.map(lambda new, old: jnp.where(close, new, old), instead, choice)

        return at_once

    def _search(self, inner, targets):
        return self._run(
            sweep.choose,
            (inner, self.grid),
            targets,
            ranks=(2, 2, 2, 2),
            capacity=max(-(-self.width // self.outline.num_devices // REFINED), 16),
            num_folds=len(self.folds),
        )

    def _only(self):
        """Return a function that takes the only penalty for every target."""
        k = len(self.folds)

        def of_tile(targets):
            unknown = np.full((k, targets.size), np.nan, np.float32)
            place = np.zeros((k, targets.size), np.int32)
            return sweep.Choice(*map(jax.device_put, (place, unknown, unknown, place)))

        return of_tile

    def _pooled(self, inner, pool):
        """Return a function that takes the penalty of each target's group, chosen beforehand."""
        if pool.shape != (self.num_targets,) or pool.min() < 0:
            raise ValueError(
                f"pool must hold a group >= 0 for each of {self.num_targets} targets, got "
                f"{pool.shape}."
            )
        shape = (pool.max() + 1, len(self.folds), len(self.alphas))
        total, nothing = np.zeros(shape), np.zeros(shape[:2])
        for targets in self.load():
            columns = targets.columns
            group, filled = pool[columns.start : columns.stop], slice(len(columns))
            costs, null = (
                mesh_lib.to_host(x).astype(np.float64) for x in self.curves(inner, targets)
            )
            unit = self.unit(targets)[filled]
            np.add.at(total, group, np.moveaxis(costs[..., filled] * unit, -1, 0))
            np.add.at(nothing, group, (null[..., filled] * unit).T)
        sizes = np.maximum(np.bincount(pool, minlength=shape[0]), 1)
        chosen = sweep.best(
            jax.device_put(np.float32(np.moveaxis(total / sizes[:, None, None], 0, -1))),
            jax.device_put(np.float32((nothing / sizes[:, None]).T)),
        )

        def of_tile(targets):
            columns = targets.columns
            group = np.zeros(targets.size, int)
            group[: len(columns)] = pool[columns.start : columns.stop]
            return sweep.Choice(*(x[:, group] for x in chosen))

        return of_tile

    def score(self, outer: Sets, targets: Tile, place: Int[Array, "k t"]):
        """Return r, R2 and the norms of predictions and responses [k t] on held-out samples.

        Norms are in the units of Y.
        """
        smallest = jax.device_put(targets.smallest[None])
        shared = (outer, self.grid)
        found = self._run(sweep.score, shared, targets, place, smallest, ranks=(2, 2, 2, 2))
        r, r2, predicted, recorded = map(mesh_lib.to_host, found)
        return r, r2, predicted * targets.peak, recorded * targets.peak

    def inner_score(self, choice: sweep.Choice) -> Float[np.ndarray, "k t"]:
        """Return R2 or r on the inner test samples; R2 is NaN where there is nothing to explain."""
        cost, null = (mesh_lib.to_host(x).astype(np.float64) for x in (choice.cost, choice.null))
        if self.method.criterion == "correlation":
            return -cost
        if self.method.criterion == "relative_error":
            return 1 - cost
        return 1 - np.divide(cost, null, out=np.full(cost.shape, np.nan), where=null > 0)


def _without_squares(inner):
    return inner._replace(sets=inner.sets._replace(squares=None))


def _check_data(X, Y, folds, scheme):
    n, _ = X.shape
    if Y.shape[0] != n:
        raise ValueError(f"Y must have one row per sample of X: X has {n}, Y has {Y.shape[0]}.")
    if not Y.shape[1]:
        raise ValueError("Y must have at least one target, got none.")
    if not X.is_finite():
        raise ValueError("X must be finite: it holds NaN or infinity.")
    if not folds:
        raise ValueError("folds must hold at least one fold, got none.")
    inner = [] if scheme != "folds" else [x for fold in folds for x in fold.inner]
    for split in (*(fold.outer for fold in folds), *inner):
        if len(split.train) < 2:
            raise ValueError(
                f"Every split must train on at least 2 samples, got {len(split.train)}."
            )
        if not len(split.test):
            raise ValueError("Every split must have samples to test on, got none.")
        for side in split:
            if side.min() < 0 or side.max() >= n:
                raise ValueError(
                    f"Indices of splits must lie in 0..{n - 1}, got {side.min()}..{side.max()}."
                )


def _check_method(alphas, method, execution):
    for name, known in (("search", Search), ("form", Form)):
        value = getattr(execution, name)
        if value not in get_args(known):
            raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}.")
    least_squares = len(alphas) == 1 and alphas[0] == 0
    if not len(alphas) or not (np.isfinite(alphas).all() and ((alphas > 0).all() or least_squares)):
        raise ValueError(f"alphas must be positive (or 0 alone), got {alphas.tolist()}.")
    if method.scheme == "gcv" and method.criterion == "correlation":
        raise ValueError("scheme 'gcv' is defined for squared errors, not for a correlation.")
    if method.scheme != "folds" and method.criterion == "relative_error":
        raise ValueError(
            "criterion 'relative_error' is of a test set's variance, so it goes with scheme "
            f"'folds', got {method.scheme!r}."
        )
    if execution.form == "sums" and (method.scheme != "folds" or not method.intercept):
        raise ValueError(
            "form 'sums' goes with scheme 'folds' and an intercept, "
            f"got {method.scheme!r} and {method.intercept}."
        )


def workers(size: int) -> int:
    """Return how many factorisations of matrices of this size may be computed at a time."""
    # The matrix, its eigenvectors and LAPACK's work.
    return max(min(MAX_WORKERS, MOST_BYTES // (32 * size**2)), 1)


def each(
    function: Callable[[Any], Any],
    items: Sequence,
    progress: Callable[[Sequence], Iterable] = iter,
    *,
    most: int = MAX_WORKERS,
) -> Iterator:
    """Call a function with each item, and yield the results; on CPU, one item per core at a time.

    An eigenproblem gains little from a second thread of LAPACK, and loses much where cores are
    shared with others, since threads wait for each other: it took 4 to 9 times as long. Several
    problems at once, with one thread each, do not.

    Args:
      function: may hold several matrices of the size of a factorisation.
      items: arguments of the calls.
      progress: wraps the items.
      most: items at a time; a single one has all threads.
    """
    if jax.default_backend() != "cpu" or most == 1:
        yield from map(function, progress(items))
        return
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, most)) as pool,
    ):
        try:
            for _, result in zip(progress(items), pool.map(function, items), strict=True):
                yield result
        except BaseException:  # such as Ctrl-C, which is not to wait for what nobody will take
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _pad(indices, length):
    mask = np.arange(length) < len(indices)
    padded = np.zeros(length, np.int32)
    padded[: len(indices)] = indices
    return padded, mask
