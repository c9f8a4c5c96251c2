"""Closed-form ridge: factorise a training set once, then every penalty is a division.

A factorisation does not depend on targets, is computed in float64, and is used in float32. With w
the rotated targets of a training set, s its spectrum and L the rotated features of test samples,
predictions are L (w / (s + alpha)), and alpha may differ between targets.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int

from jaxalign.core.solver.columns import Columns, Matrix, feature_scale, on_host

Form = Literal["primal", "dual"]

# Operations of an eigenproblem, in cubes of its size.
EIGENPROBLEM = 9

# Directions whose eigenvalue is below this fraction of the largest are dropped. The centred kernel
# of R samples has rank R - 1 at most, and rounding leaves the rest near 2e-16 times a few. At
# penalty 0 what remains is the minimum-norm least-squares solution.
CUTOFF = 1e-14


class Design(NamedTuple):
    """A training set and its test sets, in the basis of the training features."""

    spectrum: Float[Array, "*b r"]  # eigenvalues of the centred kernel or covariance
    basis: Float[Array, "*b r c"]  # rotates targets (columns: training samples) or their products
    loadings: Float[Array, "m T r"]  # rotated features of the test samples (or their Gram [r r])
    mean_loading: Float[Array, "m r"]  # their mean, if `loadings` are centred; else 0
    rank: Int[Array, "*b"]  # directions that are kept
    condition: Float[Array, "*b"]  # largest over smallest eigenvalue kept
    # Without an intercept: what a fit at each penalty leaves of a target that is 1 throughout;
    # in float64 until designs are stacked.
    unfitted: Any = None  # [m a T]


def stack(designs: list[Design]) -> Design:
    """Stack training sets, and concatenate their test sets.

    Args:
      designs: of training sets and test sets of common lengths.
    """
    of_tests = ("loadings", "mean_loading")
    xp = np if isinstance(designs[0].spectrum, np.ndarray) else jnp
    parts = {name: [getattr(design, name) for design in designs] for name in Design._fields}
    unfitted = parts.pop("unfitted")
    if unfitted[0] is not None:
        unfitted = np.concatenate([np.asarray(x, np.float32) for x in unfitted])
    stacked = {
        name: jax.device_put(xp.concatenate(part) if name in of_tests else xp.stack(part))
        for name, part in parts.items()
    }
    return Design(**stacked, unfitted=None if unfitted[0] is None else jax.device_put(unfitted))


def choose_form(num_train: int, num_features: int, *, shared: bool = False) -> Form:
    """Return which of the two equal forms takes less arithmetic.

    Args:
      num_train: training samples.
      num_features: features.
      shared: whether the kernel of all samples is there already.
    """
    R, p = num_train, num_features
    eigenproblem = lambda size: EIGENPROBLEM * size**3
    primal = eigenproblem(p) + 4 * R * p**2
    dual = eigenproblem(R) + (0 if shared else 2 * R**2 * p)
    return "primal" if primal < dual else "dual"


def _float64(function: Callable[..., Any], static: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Run a function of (xp, *arrays) in float64: NumPy on a host, compiled on an accelerator."""
    compiled = jax.jit(functools.partial(function, jnp), static_argnames=static)

    @functools.wraps(function)
    def run(*args, **options):
        if on_host():
            return function(np, *jax.tree.map(np.asarray, args), **options)
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            return compiled(*jax.tree.map(jnp.asarray, args), **options)

    return run


class Kernel(NamedTuple):
    """Inner products of samples."""

    products: Matrix  # [n n]
    squares: Float64[np.ndarray, " n"] | Float64[Array, " n"]  # of the features of each sample


def kernel(X: Matrix | Columns, *, intercept: bool = True) -> Kernel:
    """Inner products of all samples, which dual factorisations share.

    Args:
      X: features of all samples [n p], in float64, or as columns that are read block by block.
      intercept: take products about the common mean, which keeps their digits.
    """
    found = None
    for block in _columns(X).blocks():
        found = _kernel(block, found, intercept=intercept)
    assert found is not None
    return found


@functools.partial(_float64, static=("intercept",))
def _kernel(xp, X, before, *, intercept):
    squares = xp.einsum("np,np->n", X, X)
    if intercept:
        X = X - X.mean(axis=0)[None]
    return _sum(Kernel(X @ X.T, squares), before)


def _columns(X: Matrix | Columns) -> Columns:
    return X if isinstance(X, Columns) else Columns(X)


def _sum(block, before):
    """Add what earlier blocks of features gave to what the last one gave."""
    if before is None:
        return block
    # In place, where arrays are NumPy's.
    return type(block)(*map(operator.iadd, block, before))


class Rows(NamedTuple):
    """A training set and the m test sets that it predicts, padded to common lengths."""

    train: Int[np.ndarray, " R"]
    train_mask: Bool[np.ndarray, " R"]  # False for the padding
    tests: Int[np.ndarray, "m T"]
    tests_mask: Bool[np.ndarray, "m T"]


class Settings(NamedTuple):
    """How a training set is factorised.

    Attributes:
      standardize: scale each feature to unit variance over the training set.
      center: take the mean over each test set out of its loadings, and keep it apart.
      form: see `choose_form`.
      intercept: leave a constant free of penalty; if not, features are not centred.
      cutoff: fraction of the largest eigenvalue below which a direction is dropped.
      precision: relative rounding of features (`metrics.precision`); directions that it could have
        made are dropped too.
      least_squares: whether there is no penalty, and small directions count in full.
    """

    standardize: bool
    center: bool
    form: Form = "primal"
    intercept: bool = True
    cutoff: float = CUTOFF
    precision: float = 0.0
    least_squares: bool = False


def factorize(
    X: Matrix | Columns,
    rows: Rows,
    settings: Settings,
    *,
    shared: Kernel | None = None,
    alphas: Float[np.ndarray, " a"] | None = None,
) -> Design:
    """Centre, scale and rotate the features of one training set, in float64.

    Primal: ZᵀZ = Q S Qᵀ, basis = (Z Q)ᵀ, loadings = Z_test Q. Dual: ZZᵀ = Q S Qᵀ, basis = Qᵀ,
    loadings = Z_test Zᵀ Q. Z holds the training rows, centred by their mean and, on request,
    divided by their standard deviation; no other row is looked at. The dual form takes features
    block by block, the others all at once.

    Args:
      X: features of all samples [n p], in float64 or as columns.
      rows: samples to train and to test on.
      settings: see there.
      shared: what `kernel` returns for X; saves the dual form, unless it standardises or there
        is no penalty, the products of features.
      alphas: penalties, which are needed where there is no intercept and targets have a mean.

    Source: Saunders et al. (1998), Ridge regression in dual variables, section 2.
    """
    columns, is_dual = _columns(X), settings.form == "dual"
    penalties = None if settings.intercept else alphas
    if settings.least_squares:  # a singular value decomposition may be needed
        parts = jax.tree.map(np.asarray, (columns.whole, rows, penalties))
        return _factorize_whole(*parts, settings=settings)
    found = None
    if is_dual and shared is not None and not settings.standardize:
        found = _from_kernel(shared, rows, settings=settings)
    else:
        for block in columns.blocks() if is_dual else [columns.whole]:
            found = _from_features(block, rows, found, settings=settings)
    return _rotate(found, rows, penalties, settings=settings)


def factorize_all(
    X: Matrix, settings: Settings, *, alphas: Float[np.ndarray, " a"] | None = None
) -> tuple[Design, Float[Array, "p r"], Float64[np.ndarray, " p"]]:
    """Factorise all samples, to fit and not to test.

    Args:
      X: features [n p], float64.
      settings: see there; test sets, of which there are none, need no centring.
      alphas: see `factorize`; `unfitted` is then 1 less the slopes of a target of ones.

    Returns:
      The design, without test samples; a matrix that maps its directions to features, so that
      slopes are matrix @ (w / (spectrum + alpha)); and the means of the features, or zeros.
    """
    X = np.asarray(X)
    n, p = X.shape
    mean = X.mean(axis=0) if settings.intercept else np.zeros(p)
    # The prediction for a sample that differs from the mean by 1 in one feature is that slope.
    rows = Rows(np.arange(n), np.ones(n, bool), n + np.arange(p)[None], np.ones((1, p), bool))
    design = factorize(np.concatenate([X, mean + np.eye(p)]), rows, settings, alphas=alphas)
    ones = None if design.unfitted is None else np.asarray(design.unfitted)
    design = Design(*map(jax.device_put, design._replace(unfitted=None)))
    return design._replace(unfitted=ones), design.loadings[0], mean


class _Products(NamedTuple):
    """What a factorisation is made of: sums over features in the dual form."""

    gram: Any  # of the training set [c c]
    cross: Any  # of all test samples with what `gram` is of [m*T c]
    energy: Any  # sum of the squared features of the training set


def _factorize_whole(X, rows, alphas, *, settings):
    """Factorise a training set with NumPy; what is too small for products is not lost."""
    found, Z, Z_tests = _products(np, X, rows, settings)
    left = Z if settings.form == "primal" else None
    return _rotate_with(np, (found, left), rows, alphas, settings=settings, features=(Z, Z_tests))


def _products(xp, X, rows, settings):
    """Return products of some features, and those of training and test samples themselves."""
    train, train_mask, tests, _ = rows
    standardize, _, form, intercept = settings[:4]
    keep = train_mask.astype(X.dtype)[:, None]
    count = keep.sum()
    X_train = X[train]
    mean = (X_train * keep).sum(axis=0) / count
    variance = (((X_train - mean[None]) * keep) ** 2).sum(axis=0) / count
    largest = xp.abs(X_train * keep).max(axis=0)
    scale = feature_scale(xp, largest, variance, standardize, intercept)
    energy = ((X_train * keep * scale[None]) ** 2).sum()
    origin = mean if intercept else xp.zeros_like(mean)
    Z = (X_train - origin[None]) * keep * scale[None]
    Z_tests = (X[tests.reshape(-1)] - origin[None]) * scale[None]
    if form == "primal":
        return _Products(Z.T @ Z, Z_tests, energy), Z, Z_tests
    return _Products(Z @ Z.T, Z_tests @ Z.T, energy), Z, Z_tests


@functools.partial(_float64, static=("settings",))
def _from_features(xp, X, rows, before, *, settings):
    found, Z, _ = _products(xp, X, rows, settings)
    if settings.form == "primal":
        return found, Z
    return _sum(found, None if before is None else before[0]), None


@functools.partial(_float64, static=("settings",))
def _from_kernel(xp, shared, rows, *, settings):
    train, train_mask, tests, _ = rows
    products, squares = shared
    keep = train_mask.astype(products.dtype)[:, None]
    count = keep.sum()
    # Products of every sample with the training mean [n 1], and of that mean with itself.
    to_origin = (products[:, train] @ keep) / count * float(settings.intercept)
    square = (to_origin[train] * keep).sum() / count

    def between(a):
        some = products[a[:, None], train[None]]
        return (some - (to_origin[a] - square) - to_origin[train].T) * keep.T

    energy = (squares[train] * keep[:, 0]).sum()
    return _Products(between(train) * keep, between(tests.reshape(-1)), energy), None


def _rotate_with(xp, found, rows, alphas, *, settings, features=None):
    """Return the design of a training set.

    Args:
      xp: numpy, or jax.numpy.
      found: from `_from_kernel` or `_from_features`: products, and in the primal form features of
        the training set.
      rows: samples.
      alphas: see `factorize`.
      settings: see there.
      features: of training and test samples, where directions may be too small for products.
    """
    (gram, cross, energy), left = found
    _, train_mask, tests, tests_mask = rows
    keep = train_mask.astype(gram.dtype)[:, None]
    rounding = settings.precision**2 * energy
    spectrum, Q, kept = _directions(xp, gram, settings.cutoff, rounding)
    if features is not None:
        Z, Z_tests = features
        most = min(int(keep.sum()) - settings.intercept, Z.shape[1])
        if int(kept.sum()) < most:
            spectrum, Q, kept = _small_directions(Z, len(Q), settings.cutoff, rounding)
            cross, left = Z_tests, Z
    # With L = cross Q and basis = (left Q)ᵀ, the means of test sets can be subtracted before.
    counted = tests_mask.astype(gram.dtype)[..., None]  # [m T 1]
    cross = cross.reshape(*tests.shape, -1) * counted
    means = xp.zeros((len(tests), 1, cross.shape[-1]), gram.dtype)
    if settings.center:
        means = cross.sum(axis=1, keepdims=True) / counted.sum(axis=1, keepdims=True)
        cross = (cross - means) * counted
    basis = (Q if left is None else left @ Q).T
    unfitted = None
    if alphas is not None:
        ones = (basis @ keep).T / (spectrum[None] + alphas[:, None])  # [a r]
        unfitted = (counted * (1 - (cross + means) @ Q @ ones.T)).swapaxes(1, 2)
    design = _narrow(xp, spectrum, kept, basis, cross @ Q, means[:, 0] @ Q)
    return design._replace(unfitted=unfitted)


_rotate = _float64(_rotate_with, static=("settings",))


def _directions(xp, gram, cutoff, rounding):
    """Return eigenvalues, eigenvectors without those that are dropped, and which are kept."""
    spectrum, Q = xp.linalg.eigh(gram)
    return _kept(xp, spectrum, Q, xp.maximum(cutoff * spectrum[-1], rounding))


def _small_directions(Z, size, cutoff, rounding):
    """Do what `_directions` does of ZᵀZ, for directions too small for products to hold.

    The directions are those of the features in any form; zeros fill up to `size` of them.
    """
    _, values, right = np.linalg.svd(Z, full_matrices=False)
    spectrum, Q = np.zeros(size), np.zeros((Z.shape[1], size))
    spectrum[size - len(values) :] = values[::-1] ** 2
    Q[:, size - len(values) :] = right[::-1].T
    if cutoff <= CUTOFF:
        cutoff = (max(Z.shape) * np.finfo(np.float64).eps) ** 2
    return _kept(np, spectrum, Q, max(cutoff * spectrum[-1], rounding))


def _kept(xp, spectrum, Q, least):
    largest = spectrum[-1]
    kept = spectrum > xp.maximum(least, 0.0)
    # What is dropped must not divide by zero.
    harmless = xp.where(largest > 0, largest, 1.0)
    return xp.where(kept, spectrum, harmless), Q * kept.astype(Q.dtype)[None], kept


def _narrow(xp, spectrum, kept, basis, loadings, means):
    least = xp.where(kept, spectrum, xp.inf).min()
    condition = xp.where(kept.any(), spectrum.max() / least, xp.nan)
    spectrum, basis, loadings, means, condition = (
        x.astype(xp.float32) for x in (spectrum, basis, loadings, means, condition)
    )
    return Design(spectrum, basis, loadings, means, kept.sum(), condition)


class Statistics(NamedTuple):
    """Sums over blocks of samples, from which the products of any union of blocks follow."""

    count: Any  # [F]
    mean: Any  # [F p]
    scatter: Any  # [F p p], about the mean of the block
    largest: Any  # [F p], magnitude of each feature
    axes: Any  # [p p]; deviations of features are coordinates @ axes
    offset: Any  # [F p], coordinates of the block means


def statistics(
    X: Matrix, blocks: tuple[Int[np.ndarray, " _"], ...], *, standardize: bool
) -> tuple[Statistics, tuple[Float[Array, "_ p"], ...]]:
    """Sum products of features within blocks.

    Products with targets are later taken in float32, so samples are also given in coordinates along
    the principal axes of all samples. Otherwise, where variances of features differ much, small
    directions would be lost in the rounding of large ones. A ridge does not depend on the axes, so
    no information of test samples gets into the training.

    Args:
      X: features of all samples [n p], float64.
      blocks: indices of the samples of each block.
      standardize: whether `factorize_statistics` will; the axes are then those of scaled features.

    Returns:
      The sums, and the coordinates of each block's samples, about their mean.
    """
    parts = zip(*(_block(X[block]) for block in blocks), strict=True)
    count, mean, scatter, largest = (_stack(part) for part in parts)
    axes, inverse, offset = _axes(count, mean, scatter, largest, standardize=standardize)
    coordinates = tuple(
        jax.device_put(_turn(X[block], mean[f], inverse)) for f, block in enumerate(blocks)
    )
    return Statistics(count, mean, scatter, largest, axes, offset), coordinates


def _stack(parts):
    if on_host():
        return np.stack(parts)
    with jax.enable_x64(True):
        return jnp.stack(parts)


@_float64
def _block(xp, rows):
    mean = rows.mean(axis=0)
    deviations = rows - mean[None]
    count, largest = xp.asarray(len(rows), rows.dtype), xp.abs(rows).max(axis=0)
    return count, mean, deviations.T @ deviations, largest


@functools.partial(_float64, static=("standardize",))
def _axes(xp, count, mean, scatter, largest, *, standardize):
    center, total = _pool(xp, xp.ones_like(count), count, mean, scatter)
    variance = xp.diagonal(total) / count.sum()
    scale = feature_scale(xp, largest.max(axis=0), variance, standardize)
    _, Q = xp.linalg.eigh(total * scale[:, None] * scale[None])
    inverse = Q * scale[:, None]
    axes = Q.T / xp.where(scale > 0, scale, 1.0)[None]
    return axes, inverse, (mean - center[None]) @ inverse


@_float64
def _turn(xp, rows, mean, inverse):
    return ((rows - mean[None]) @ inverse).astype(xp.float32)


def _pool(xp, members, count, mean, scatter, about=None):
    """Return the mean of a union of blocks, and its scatter about that mean or another point."""
    members = members.astype(mean.dtype)
    count = count * members
    center = (count @ mean) / count.sum()
    apart = mean - (center if about is None else about)[None]
    return center, xp.tensordot(members, scatter, axes=1) + (apart.T * count[None]) @ apart


class Members(NamedTuple):
    """Which blocks are trained on, and which make up each of m test sets."""

    train: Bool[np.ndarray, " F"]
    tests: Bool[np.ndarray, "m F"]


def factorize_statistics(sums: Statistics, members: Members, settings: Settings) -> Design:
    """Do what `factorize` does in its primal form with an intercept, from sums alone.

    The basis rotates products of targets with the coordinates of samples, and loadings are Gram
    matrices [r r] of the test sets, so samples do not enter any more.

    Args:
      sums: from `statistics`, with the same `standardize`.
      members: see there.
      settings: see there.
    """
    return _factorize_statistics(sums, members, settings=settings)


@functools.partial(_float64, static=("settings",))
def _factorize_statistics(xp, sums, members, *, settings):
    blocks = (sums.count, sums.mean, sums.scatter)
    origin, gram = _pool(xp, members.train, *blocks)
    trained = members.train.astype(sums.count.dtype)
    size, largest = (sums.count * trained).sum(), (sums.largest * trained[:, None]).max(axis=0)
    scale = feature_scale(xp, largest, xp.diagonal(gram) / size, settings.standardize)
    gram = gram * scale[:, None] * scale[None]
    energy = xp.diagonal(gram).sum() + size * ((origin * scale) ** 2).sum()
    rounding = settings.precision**2 * energy
    spectrum, Q, kept = _directions(xp, gram, settings.cutoff, rounding)
    Q = Q * scale[:, None]
    grams, means = [], []
    for test in members.tests:
        mean, gram = _pool(xp, test, *blocks, None if settings.center else origin)
        grams.append(Q.T @ gram @ Q)
        means.append((mean - origin) @ Q if settings.center else xp.zeros_like(spectrum))
    basis = (sums.axes @ Q).T
    return _narrow(xp, spectrum, kept, basis, xp.stack(grams), xp.stack(means))
