"""Cross-validation of the ridge: penalties chosen per target, scores on held-out samples."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxalign.core import ridge, sweep
from jaxalign.core.folds import Fold, Split
from jaxalign.core.metrics import CONSTANT_TOLERANCE
from jaxalign.core.search import Criterion, Search

Form = Literal["auto", "primal", "dual", "sums"]
Scheme = Literal["folds", "loo", "gcv"]

# Targets per tile on each device: what training sets rotate stays in the last cache of a CPU.
# Accelerators want more.
CPU_TILE, TILE = 1024, 8192
# After its first round the adaptive search takes this share of a tile's targets at a time.
REFINED = 8
# With fewer directions than this the adaptive search gives way to the grid.
MIN_DIRECTIONS = 100
# Blocks of samples that always train and test together; with more of them sums do not pay.
MAX_BLOCKS = 64
# Factorisations at a time on CPU; each holds several matrices of its size.
MAX_WORKERS = 8
# Products that the adaptive search computes per target, for the cost model alone.
EXPECTED_PRODUCTS = 1.5


class Nested(NamedTuple):
    """Held-out scores; one row per outer fold, one column per target."""

    r: Float[np.ndarray, "k v"]  # Pearson correlation; NaN where undefined
    r2: Float[np.ndarray, "k v"]  # coefficient of determination; NaN where undefined
    alphas: Float[np.ndarray, "k v"]  # penalty chosen on the inner splits
    inner_score: Float[np.ndarray, "k v"]  # of that penalty there: R2, or mean r
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


class Method(NamedTuple):
    """How penalties are chosen; `nested` says what each means."""

    standardize: bool = True
    search: Search = "grid"
    criterion: Criterion = "squared_error"
    scheme: Scheme = "folds"
    form: Form = "auto"
    intercept: bool = True
    cutoff: float = ridge.CUTOFF


DEFAULT = Method()


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
      folds: outer and inner splits; the inner ones are not looked at if `scheme` is not "folds".
      alphas: penalties to choose from, positive; a single 0 is least squares.
      standardize: scale features to unit variance over each training set. Kernels of training sets
        are then no parts of one kernel, and are computed for each.
      search: "grid" computes the cost of every penalty, "adaptive" only of those that could be best
        (`core/search.py`). With a correlation, a pool, no inner splits, or few directions
        (`MIN_DIRECTIONS`), all are computed.
      criterion: mean squared error on inner test samples, or the negative of Pearson r.
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
    problem = _Problem(X, Y, folds, alphas, method, tile, mesh)
    chooser = problem.chooser(problem.inner(), pool, progress)
    outer = problem.outer()
    k, v = len(folds), problem.num_targets
    r, r2, chosen, inner_score = (np.empty((k, v)) for _ in range(4))
    computed = np.empty((k, v), int)
    for tile_ in progress(problem.tiles()):
        targets = problem.load(tile_)
        choice = chooser(targets)
        scores = problem.score(outer, targets, choice.place)
        own = slice(tile_.start, tile_.stop)
        at = np.asarray(choice.place)[:, : len(tile_)]
        r[:, own], r2[:, own] = (np.asarray(x)[:, : len(tile_)] for x in scores)
        chosen[:, own] = problem.alphas[at]
        inner_score[:, own] = problem.inner_score(choice)[:, : len(tile_)]
        computed[:, own] = np.asarray(choice.count)[:, : len(tile_)]
    constant = np.array([ridge.num_constant(problem.X, fold.outer.train) for fold in folds])
    rank, condition = (np.asarray(x) for x in (outer.design.rank, outer.design.condition))
    return Nested(r, r2, chosen, inner_score, computed, constant, rank, condition)


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
    problem = _Problem(
        X, Y, (Fold(Split(every, every), tuple(splits)),), alphas, method, tile, mesh
    )
    inner = problem.inner()
    chooser = problem.chooser(inner, pool, progress)
    v = problem.num_targets
    place, computed = np.empty((2, v), int)
    score, cost = np.empty((2, v))
    curve = np.empty((len(problem.alphas), v)) if keep_curves else None
    for tile_ in progress(problem.tiles()):
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
    method = Method(standardize=standardize, form=form, intercept=intercept)
    every = np.arange(np.shape(X)[0])
    problem = _Problem(X, Y, (Fold(Split(every, every), ()),), np.ones(1), method, tile, None)
    if not (np.isfinite(alphas).all() and (alphas >= 0).all()):
        raise ValueError("alphas must be >= 0 and finite.")
    if form == "auto":
        form = ridge.choose_form(problem.num_samples, problem.num_features)
    factorize = functools.partial(
        ridge.factorize_all, standardize=standardize, form=form, intercept=intercept, cutoff=cutoff
    )
    [(design, features, center)] = _each(factorize, [problem.X])
    coef = np.empty((problem.num_features, problem.num_targets), np.float32)
    constants = np.empty(problem.num_targets)
    for tile_ in progress(problem.tiles()):
        targets = problem.load(tile_)
        own = slice(tile_.start, tile_.stop)
        penalties = np.ones(targets.size)
        penalties[: len(tile_)] = alphas[own]
        slopes = sweep.coefficients(design, features, targets.values, jnp.float32(penalties))
        slopes = np.asarray(slopes)[:, : len(tile_)] * targets.peak[: len(tile_)]
        coef[:, own] = slopes
        constants[own] = targets.mean[: len(tile_)] - center @ slopes
    return Fitted(coef, constants)


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


class _Tile(NamedTuple):
    """Targets on the device, centred and with 1 as their largest value."""

    values: Float[Array, "n t"]
    mean: Float[np.ndarray, " t"]
    peak: Float[np.ndarray, " t"]
    smallest: Float[np.ndarray, " t"]  # standard deviation of what counts as constant
    columns: range

    @property
    def size(self) -> int:
        """Number of targets, padding included."""
        return self.values.shape[1]

    def __len__(self) -> int:
        """Number of targets, without padding."""
        return len(self.columns)


class _Problem:
    """Checked data, and what is made of them once for all targets."""

    def __init__(self, X, Y, folds, alphas, method, tile, mesh):
        X = np.asarray(X)
        n, p = X.shape
        if Y.shape[0] != n:
            raise ValueError(f"Y must have one row per sample of X: X has {n}, Y has {Y.shape[0]}.")
        if not np.isfinite(X).all():
            raise ValueError("X must be finite: it holds NaN or infinity.")
        if not folds:
            raise ValueError("folds must hold at least one fold, got none.")
        inner = [] if method.scheme != "folds" else [x for fold in folds for x in fold.inner]
        for split in (*(fold.outer for fold in folds), *inner):
            if len(split.train) < 2:
                raise ValueError(
                    f"Every split must train on at least 2 samples, got {len(split.train)}."
                )
            if not len(split.test):
                raise ValueError("Every split must have samples to test on, got none.")
        alphas = np.sort(np.asarray(alphas, np.float64))
        least_squares = len(alphas) == 1 and alphas[0] == 0
        if not len(alphas) or not (
            np.isfinite(alphas).all() and ((alphas > 0).all() or least_squares)
        ):
            raise ValueError(f"alphas must be positive (or 0 alone), got {alphas.tolist()}.")
        if method.scheme == "gcv" and method.criterion == "correlation":
            raise ValueError("scheme 'gcv' is defined for squared errors, not for a correlation.")
        if method.form == "sums" and (method.scheme != "folds" or not method.intercept):
            raise ValueError(
                "form 'sums' goes with scheme 'folds' and an intercept, "
                f"got {method.scheme!r} and {method.intercept}."
            )
        self.X = ridge.to_float64(X)
        self.Y = Y
        self.num_samples, self.num_features = n, p
        self.num_targets = Y.shape[1]
        self.folds = folds
        self.alphas = alphas
        self.grid = jax.device_put(alphas.astype(np.float32))
        self.method = method
        self.mesh = mesh
        self.width = self._tile(tile)
        self.blocks = _blocks(n, self._splits())
        self.form = self._form() if method.form == "auto" else method.form
        self.sums = self.layout = self.kernel = None
        if self.form == "sums":
            self.sums, coordinates = ridge.statistics(
                self.X, self.blocks, standardize=method.standardize
            )
            self.layout = sweep.Layout(
                tuple(map(jax.device_put, self.blocks)),
                coordinates,
                jax.device_put(np.asarray(self.sums.offset, np.float32)),
                jax.device_put(np.asarray(self.sums.count, np.float32)),
            )

    def _splits(self):
        inner = [split for fold in self.folds for split in fold.inner]
        return [fold.outer for fold in self.folds] + (
            inner if self.method.scheme == "folds" else []
        )

    def _tile(self, tile):
        devices = self._devices
        default = CPU_TILE if jax.default_backend() == "cpu" else TILE
        width = default if tile is None else tile
        if width < 1:
            raise ValueError(f"tile must be >= 1, got {width}.")
        # Tiles of one size, so that the last is not mostly padding.
        number = -(-self.num_targets // (width * devices))
        even = -(-self.num_targets // number)
        return -(-even // (16 * devices)) * 16 * devices

    @property
    def _devices(self):
        return 1 if self.mesh is None else self.mesh.size

    def _form(self):
        """Return the form with the least arithmetic, float64 at twice the price.

        "auto" stands for the smaller eigenproblem of each kind of training set.
        """
        splits = self._splits()
        n, p, v = self.num_samples, self.num_features, self.num_targets
        grid = self.method.search == "grid" or self.method.scheme != "folds"
        products = len(self.alphas) if grid else EXPECTED_PRODUCTS
        R = max(len(split.train) for split in splits)
        T = max(len(split.test) for split in splits)
        sets = len({split.train.tobytes() for split in splits})
        tests = len(splits)
        r = min(R, p)
        rows = sets * 2 * (2 * R * p * r + 9 * r**3)
        rows += v * (sets * 2 * R * r + tests * (1 + products) * 2 * T * r)
        sums = 2 * (2 * n * p * p + 9 * sets * p**3 + 4 * tests * p**3) + v * 2 * n * p
        sums += v * (sets * 2 * p * p + tests * (1 + products) * 2 * p * p)
        by_folds = self.method.scheme == "folds" and self.method.intercept
        if not by_folds or len(self.blocks) > MAX_BLOCKS or p >= R:
            return "auto"
        return "sums" if sums < rows else "auto"

    # Training sets.

    def inner(self) -> sweep.Inner:
        """Factorise each distinct inner training set once, for all that are tested on it."""
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
        flat = [use for own in uses.values() for use in own]
        sets = self._factorize(
            [(own[0][0].train, [split.test for split, _, _ in own]) for own in uses.values()],
            center=self.method.criterion == "correlation",
        )
        _, owner, share = zip(*flat, strict=True)
        return sweep.Inner(
            sets,
            jax.device_put(np.array(owner, np.int32)),
            jax.device_put(np.array(share, np.float32)),
        )

    def outer(self) -> sweep.Sets:
        """Factorise the outer training sets."""
        return self._factorize(
            [(fold.outer.train, [fold.outer.test]) for fold in self.folds], center=True
        )

    @property
    def _adaptive(self):
        # The bound is of q, in which a correlation is not linear: there it missed the best penalty
        # of up to .7 % of the targets. With few directions q is far from Gaussian (up to .5 %), and
        # the grid costs little.
        longest = max(
            len(split.train) for fold in self.folds for split in (fold.outer, *fold.inner)
        )
        by_bound = self.method.criterion == "squared_error" and self.method.scheme == "folds"
        by_bound &= min(longest, self.num_features) >= MIN_DIRECTIONS
        return by_bound and self.method.search == "adaptive" and len(self.alphas) > 1

    def _factorize(self, sets, *, center):
        """Factorise training sets for their test sets, all of one length for one compilation."""
        settings = {
            "standardize": self.method.standardize,
            "center": center,
            "cutoff": self.method.cutoff,
        }
        source = np.repeat(np.arange(len(sets), dtype=np.int32), [len(tests) for _, tests in sets])
        if self.sums is not None and self.layout is not None:
            within = lambda indices: np.array([np.isin(b[0], indices) for b in self.blocks])
            parts = [(within(train), np.stack([*map(within, tests)])) for train, tests in sets]
            factorize = functools.partial(ridge.factorize_statistics, self.sums, **settings)
            train, tests = zip(*parts, strict=True)
            members = sweep.Blocks(
                jax.device_put(np.float32(np.stack(train))),
                jax.device_put(np.float32(np.concatenate(tests))),
                self.layout.count,
            )
        else:
            longest_train = max(len(train) for train, _ in sets)
            longest_test = max(len(test) for _, tests in sets for test in tests)
            form = self.form
            if form == "auto":
                shared = not self.method.standardize and len(sets) > 1
                form = ridge.choose_form(longest_train, self.num_features, shared=shared)
            if form == "dual" and not self.method.standardize and self.kernel is None:
                self.kernel = ridge.kernel(self.X, intercept=self.method.intercept)
            parts = []
            for train, tests in sets:
                padded = [_pad(test, longest_test) for test in tests]
                parts.append(
                    (*_pad(train, longest_train), *map(np.stack, zip(*padded, strict=True)))
                )
            factorize = functools.partial(
                ridge.factorize,
                self.X,
                form=form,
                shared=self.kernel,
                intercept=self.method.intercept,
                **settings,
            )
            train, train_mask, tests, tests_mask = zip(*parts, strict=True)
            members = sweep.Rows(
                *map(jax.device_put, map(np.stack, (train, train_mask))),
                *map(jax.device_put, map(np.concatenate, (tests, tests_mask))),
            )
        designs = _each(lambda part: factorize(*part), parts)
        intercept = jax.device_put(np.float32(self.method.intercept))
        return sweep.Sets(ridge.stack(designs), members, jax.device_put(source), intercept)

    # Targets.

    def tiles(self) -> list[range]:
        """Return the columns of each tile."""
        starts = range(0, self.num_targets, self.width)
        return [range(a, min(a + self.width, self.num_targets)) for a in starts]

    def load(self, columns: range) -> _Tile:
        """Read targets, and bring them to a baseline and a unit that float32 can hold.

        Scores do not depend on these. Zeros fill the last tile.
        """
        block = self.Y[:, columns.start : columns.stop]
        if hasattr(block, "read"):  # a tensorstore array
            block = block.read().result()
        block = np.asarray(block)
        if block.dtype != np.float32:
            block = block.astype(np.float64)
        fill = self.width - len(columns)
        if block.dtype == np.float32:
            values, mean, peak, largest = sweep.normalize(
                jax.device_put(np.pad(block, ((0, 0), (0, fill))) if fill else block),
                intercept=self.method.intercept,
            )
            mean, peak, largest = (np.asarray(x, np.float64) for x in (mean, peak, largest))
        else:
            block = np.pad(block, ((0, 0), (0, fill)))
            values, mean, peak, largest = _normalize(block, self.method.intercept)
        if not np.isfinite(largest).all():
            raise ValueError(
                "Y must be finite: it holds NaN or infinity in columns "
                f"{columns.start}..{columns.stop - 1}."
            )
        smallest = (CONSTANT_TOLERANCE * largest / peak).astype(np.float32)
        return _Tile(values, mean, peak, smallest, columns)

    def unit(self, targets: _Tile) -> Float[np.ndarray, " t"]:
        """Return what costs are to be multiplied by, to be in the units of Y."""
        is_error = self.method.criterion == "squared_error"
        return targets.peak**2 if is_error else np.ones(targets.size)

    def _run(self, function, shared, targets, *others, ranks=(2,), **static):
        """Run a function of `core/sweep.py` on a tile, divided over the devices of the mesh.

        Targets are the last axis of `others` and of each result; `ranks` are those of the results.
        """
        run = _divided(function, self.mesh, len(others), ranks, tuple(sorted(static.items())))
        return run(self.layout, shared, targets.values, *others)

    def curves(self, inner: sweep.Inner, targets: _Tile):
        """Return the cost of every penalty [k a t], and the cost without features [k t]."""
        method = self.method
        if method.scheme == "folds":
            function, static = sweep.curves, {}
        else:
            function = sweep.in_sample_curves
            static = {"scheme": method.scheme}
        static |= {"criterion": method.criterion, "num_folds": len(self.folds)}
        return self._run(function, (inner, self.grid), targets, ranks=(3, 2), **static)

    def chooser(self, inner: sweep.Inner, pool, progress) -> Callable[[_Tile], sweep.Choice]:
        """Return what chooses the penalties of a tile; with a pool, all targets are read for it."""
        if pool is not None:
            return self._pooled(inner, pool, progress)
        if not self._adaptive:
            return lambda targets: sweep.best(*self.curves(inner, targets))
        capacity = max(-(-self.width // self._devices // REFINED), 16)
        covariance = sweep.prior(inner, self.grid, num_folds=len(self.folds))
        return lambda targets: self._run(
            sweep.choose,
            (inner, covariance, self.grid),
            targets,
            ranks=(2, 2, 2, 2),
            capacity=capacity,
        )

    def _pooled(self, inner, pool, progress):
        pool = np.asarray(pool)
        if pool.shape != (self.num_targets,) or pool.min() < 0:
            raise ValueError(
                f"pool must hold a group >= 0 for each of {self.num_targets} targets, got "
                f"{pool.shape}."
            )
        shape = (pool.max() + 1, len(self.folds), len(self.alphas))
        total, nothing = np.zeros(shape), np.zeros(shape[:2])
        for columns in progress(self.tiles()):
            targets = self.load(columns)
            group, own = pool[columns.start : columns.stop], slice(len(columns))
            costs, null = (np.asarray(x, np.float64) for x in self.curves(inner, targets))
            unit = self.unit(targets)[own]
            np.add.at(total, group, np.moveaxis(costs[..., own] * unit, -1, 0))
            np.add.at(nothing, group, (null[..., own] * unit).T)
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

    def score(self, outer: sweep.Sets, targets: _Tile, place: Int[Array, "k t"]):
        """Return r and R2 [k t] of held-out samples."""
        smallest = jax.device_put(targets.smallest[None])
        shared = (outer, self.grid)
        return self._run(sweep.score, shared, targets, place, smallest, ranks=(2, 2))

    def inner_score(self, choice: sweep.Choice) -> Float[np.ndarray, "k t"]:
        """Return R2 or r on the inner test samples; R2 is NaN where there is nothing to explain."""
        cost, null = (np.asarray(x, np.float64) for x in (choice.cost, choice.null))
        if self.method.criterion == "correlation":
            return -cost
        return 1 - np.divide(cost, null, out=np.full(cost.shape, np.nan), where=null > 0)


def _normalize(block, intercept):
    """Do what `sweep.normalize` does, in float64."""
    largest = np.abs(block).max(axis=0)
    block = np.where(np.isfinite(largest), block, 0.0)  # refused, but not by a warning of NumPy's
    mean = block.mean(axis=0) if intercept else np.zeros(block.shape[1])
    block = block - mean
    peak = np.abs(block).max(axis=0)
    varies = peak > 64 * np.finfo(np.float64).eps * np.nan_to_num(largest)
    peak = np.where(varies, peak, 1.0)
    values = np.where(varies, block / peak, 0.0)
    return jax.device_put(values.astype(np.float32)), mean, peak, largest


@functools.cache
def _divided(function, mesh, num_others, ranks, static):
    def run(layout, shared, values, *others):
        return function(shared, sweep.tile(layout, values), *others, **dict(static))

    if mesh is None:
        return run
    last = lambda rank: PartitionSpec(*(None,) * (rank - 1), mesh.axis_names)
    specs = (PartitionSpec(), PartitionSpec(), *(last(2),) * (1 + num_others))
    results: Any = tuple(map(last, ranks))
    if function is sweep.choose:
        results = sweep.Choice(*results)
    return jax.jit(
        jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=results, check_vma=False)
    )


def _each(function, items):
    """Call a function on each item; on CPU, on as many at a time as there are cores.

    An eigenproblem gains little from a second thread of LAPACK, and loses much where cores are
    shared with others, for threads wait for each other. Several problems at once do not.
    """
    if jax.default_backend() != "cpu":
        return [function(item) for item in items]
    workers = min(os.cpu_count() or 1, MAX_WORKERS)
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):
        return list(pool.map(function, items))


def _blocks(num_samples, splits):
    """Divide the samples that are used into sets that always train and test together."""
    sides = {side.tobytes(): side for split in splits for side in split}
    member = np.zeros((num_samples, len(sides)), bool)
    for column, side in enumerate(sides.values()):
        member[side, column] = True
    _, label = np.unique(np.packbits(member, axis=1), axis=0, return_inverse=True)
    used = member.any(axis=1)
    return tuple(np.flatnonzero(label == x) for x in np.unique(label[used]))


def _pad(indices, length):
    mask = np.arange(length) < len(indices)
    padded = np.zeros(length, np.int32)
    padded[: len(indices)] = indices
    return padded, mask
