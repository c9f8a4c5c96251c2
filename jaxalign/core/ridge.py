"""Closed-form ridge: factorise a training set once, then every penalty is a division.

A factorisation knows no targets, is computed in float64, and is used in float32. With w the rotated
targets of a training set, s its spectrum and L the rotated features of samples that it has not
seen, the predictions for these are L (w / (s + alpha)), and alpha may differ between targets.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int

Form = Literal["primal", "dual"]

# A feature counts as constant when its training spread is below this fraction of the typical
# spread, or of its own mean. Scaling such a feature to unit variance would turn rounding into a
# signal (all-MiniLM-L6-v2 has output units near 1e-33 on ordinary sentences).
CONSTANT_TOLERANCE = 1e-6

# Directions whose eigenvalue is below this fraction of the largest are dropped. The centred kernel
# of R samples has rank R - 1 at most, and rounding leaves the rest near R times 2e-16. At penalty 0
# what remains is the minimum-norm least-squares solution.
CUTOFF = 1e-12


class Design(NamedTuple):
    """A training set, and the sets of samples it is tested on, in the basis of its features."""

    spectrum: Float[Array, "*b r"]  # eigenvalues of the centred kernel or covariance
    basis: Float[Array, "*b r c"]  # rotates targets (columns: training samples) or their products
    loadings: Float[Array, "m T r"]  # rotated features of the test samples (or their Gram [r r])
    mean_loading: Float[Array, "m r"]  # their mean, if `loadings` are centred; else 0
    num_constant: Int[Array, "*b"]  # features that do not vary over the training set
    rank: Int[Array, "*b"]  # directions that are kept
    condition: Float[Array, "*b"]  # largest over smallest eigenvalue kept


@jax.jit
def stack(designs: list[Design]) -> Design:
    """Stack training sets; their test sets follow one another.

    Args:
      designs: of training sets and test sets of common lengths.
    """
    of_tests = ("loadings", "mean_loading")
    parts = {name: [getattr(design, name) for design in designs] for name in Design._fields}
    return Design(
        **{
            name: jnp.concatenate(part) if name in of_tests else jnp.stack(part)
            for name, part in parts.items()
        }
    )


def choose_form(num_train: int, num_features: int) -> Form:
    """Return which of the two equal forms has the smaller eigenproblem."""
    return "primal" if num_features < num_train else "dual"


def kernel(X: Float[np.ndarray, "n p"] | Float64[Array, "n p"]) -> Float64[Array, "n n"]:
    """Inner products of all samples, about their common mean; which dual factorisations share.

    Args:
      X: features of all samples.
    """
    with jax.enable_x64(True):
        return _kernel(jnp.asarray(X, jnp.float64))


@jax.jit
@jax.default_matmul_precision("highest")
def _kernel(X):
    X = X - X.mean(axis=0)[None]
    return X @ X.T


def factorize(
    X: Float[np.ndarray, "n p"] | Float64[Array, "n p"],
    train: Int[np.ndarray, " R"],
    train_mask: Bool[np.ndarray, " R"],
    tests: Int[np.ndarray, "m T"],
    tests_mask: Bool[np.ndarray, "m T"],
    *,
    standardize: bool,
    form: Form,
    center: bool,
    shared: Float64[Array, "n n"] | None = None,
    cutoff: float = CUTOFF,
) -> Design:
    """Centre, scale and rotate the features of one training set, in float64.

    Primal: ZᵀZ = Q S Qᵀ, basis = (Z Q)ᵀ, loadings = Z_test Q. Dual: ZZᵀ = Q S Qᵀ, basis = Qᵀ,
    loadings = Z_test Zᵀ Q. Z holds the training rows, centred by their own mean and, on request,
    divided by their own standard deviation; no other row is looked at.

    Args:
      X: features of all samples.
      train: indices of the training samples, padded to a common length.
      train_mask: False for the padding.
      tests: indices of the samples of each of m test sets, padded.
      tests_mask: False for the padding.
      standardize: scale each feature to unit variance over the training set.
      form: see `choose_form`.
      center: take the mean over each test set out of its loadings, and keep it apart.
      shared: what `kernel` returns for X; spares the dual form, unless it standardises, the
        products of features.
      cutoff: fraction of the largest eigenvalue below which a direction is dropped.

    Source: Saunders et al. (1998), Ridge regression in dual variables, section 2.
    """
    with jax.enable_x64(True):
        gram, cross, left, num_constant = _products(
            jnp.asarray(X, jnp.float64),
            shared if form == "dual" and not standardize else None,
            *map(jnp.asarray, (train, train_mask, tests, tests_mask)),
            standardize=standardize,
            form=form,
            center=center,
        )
        spectrum, Q = _eigh(gram)
        return _rotate(spectrum, Q, cross, left, num_constant, cutoff=cutoff)


def factorize_all(
    X: Float[np.ndarray, "n p"] | Float64[Array, "n p"],
    *,
    standardize: bool,
    form: Form,
    cutoff: float = CUTOFF,
) -> tuple[Design, Float[Array, "p r"], Float64[np.ndarray, " p"]]:
    """Factorise all samples, to fit and not to test.

    Args:
      X: features.
      standardize: see `factorize`.
      form: see `factorize`.
      cutoff: see `factorize`.

    Returns:
      The design, whose loadings are of no sample; what takes its directions to features, so that
      slopes are features @ (w / (spectrum + alpha)); and the means of the features.
    """
    n, p = X.shape
    with jax.enable_x64(True):
        X = jnp.asarray(X, jnp.float64)
        mean = X.mean(axis=0)
        # A sample that is apart from the mean in one feature alone has its slope for prediction.
        probes = jnp.concatenate([X, mean[None] + jnp.eye(p)])
        every = np.arange(n)
        design = factorize(
            probes,
            every,
            np.ones(n, bool),
            n + np.arange(p)[None],
            np.ones((1, p), bool),
            standardize=standardize,
            form=form,
            center=False,
            cutoff=cutoff,
        )
    return design, design.loadings[0], np.asarray(mean)


@jax.jit(static_argnames=("standardize", "form", "center"))
@jax.default_matmul_precision("highest")
def _products(X, shared, train, train_mask, tests, tests_mask, *, standardize, form, center):
    """Return what is left to multiply by Q: the Gram matrix, loadings = cross Q, basis = left Q."""
    keep = train_mask.astype(X.dtype)[:, None]
    count = keep.sum()
    rows = X[train]
    mean = (rows * keep).sum(axis=0) / count
    deviations = (rows - mean[None]) * keep
    scale, num_constant = _scale(mean, (deviations**2).sum(axis=0) / count, standardize)
    flat = tests.reshape(-1)
    if shared is not None:
        to_mean = (shared[:, train] @ keep) / count  # [n 1]: every sample with the training mean
        square = (to_mean[train] * keep).sum() / count
        between = lambda a: shared[a][:, train] - to_mean[a] - to_mean[train].T + square
        gram = between(train) * keep * keep.T
        cross, left = between(flat) * keep.T, None
    else:
        Z = deviations * scale[None]
        Z_tests = (X[flat] - mean[None]) * scale[None]
        if form == "primal":
            gram, cross, left = Z.T @ Z, Z_tests, Z
        else:
            gram, cross, left = Z @ Z.T, Z_tests @ Z.T, None
    counted = tests_mask.astype(X.dtype)[..., None]  # [m T 1]
    cross = cross.reshape(*tests.shape, -1) * counted
    means = jnp.zeros((len(tests), 1, cross.shape[-1]), X.dtype)
    if center:
        means = cross.sum(axis=1, keepdims=True) / counted.sum(axis=1, keepdims=True)
        cross = (cross - means) * counted
    return gram, (cross, means), left, num_constant


def _scale(mean, variance, standardize):
    """Return what features are multiplied by (0: a constant one), and how many are constant."""
    sd = jnp.sqrt(variance)
    # The median does not follow a few features of another order of magnitude.
    typical = jnp.nanmedian(jnp.where(sd > 0, sd, jnp.nan))
    typical = jnp.where(jnp.isnan(typical), 0.0, typical)
    constant = sd <= CONSTANT_TOLERANCE * jnp.maximum(jnp.abs(mean), typical)
    scale = jnp.where(constant, 0.0, 1 / jnp.where(constant, 1.0, sd) if standardize else 1.0)
    return scale, constant.sum()


def _eigh(gram):
    """Eigenvalues and vectors, by NumPy where arrays are on the host anyway.

    NumPy's LAPACK takes two thirds of the time of the one that jaxlib calls.
    """
    if jax.default_backend() == "cpu":
        return tuple(map(jnp.asarray, np.linalg.eigh(np.asarray(gram))))
    return jnp.linalg.eigh(gram)


def _kept(spectrum, cutoff):
    """Return which directions are kept, and the spectrum, harmless where they are not."""
    largest = spectrum[-1]
    kept = spectrum > jnp.maximum(cutoff * largest, 0.0)
    return kept, jnp.where(kept, spectrum, jnp.where(largest > 0, largest, 1.0))


@jax.jit
@jax.default_matmul_precision("highest")
def _rotate(spectrum, Q, cross, left, num_constant, *, cutoff):
    kept, spectrum = _kept(spectrum, cutoff)
    Q = Q * kept.astype(Q.dtype)[None]
    basis = (Q if left is None else left @ Q).T
    loadings, means = (part @ Q for part in cross)
    return _narrow(spectrum, kept, basis, loadings, means[:, 0], num_constant)


def _narrow(spectrum, kept, basis, loadings, means, num_constant):
    least = jnp.where(kept, spectrum, jnp.inf).min()
    condition = jnp.where(kept.any(), spectrum.max() / least, jnp.nan)
    spectrum, basis, loadings, means, condition = (
        x.astype(jnp.float32) for x in (spectrum, basis, loadings, means, condition)
    )
    return Design(spectrum, basis, loadings, means, num_constant, kept.sum(), condition)


class Statistics(NamedTuple):
    """Sums over blocks of samples, from which the products of any union of blocks follow."""

    count: Float64[Array, " F"]
    mean: Float64[Array, "F p"]
    scatter: Float64[Array, "F p p"]  # about the mean of the block
    axes: Float64[Array, "p p"]  # deviations of features are coordinates @ axes
    coordinates: tuple[Float[Array, "_ p"], ...]  # of each block's samples, about their mean
    offset: Float64[Array, "F p"]  # coordinates of the block means


def statistics(
    X: Float[np.ndarray, "n p"] | Float64[Array, "n p"],
    blocks: tuple[Int[np.ndarray, " _"], ...],
    *,
    standardize: bool,
) -> Statistics:
    """Sum products of features within blocks, each of which is read once for that.

    Products with targets are to be taken in float32, so samples are also given in coordinates that
    make this harmless: the principal axes of all samples. Where features differ much in variance,
    the small directions would else drown in the rounding of the large. A ridge does not depend on
    the axes, so nothing of the test samples gets into the training.

    Args:
      X: features of all samples.
      blocks: indices of the samples of each block.
      standardize: whether `factorize_statistics` will; the axes are then those of scaled features.
    """
    with jax.enable_x64(True):
        X = jnp.asarray(X, jnp.float64)
        count, mean, scatter = map(
            jnp.stack, zip(*(_block(X[jnp.asarray(block)]) for block in blocks), strict=True)
        )
        center, total = _pool(jnp.ones_like(count), count, mean, scatter)
        scale, _ = _scale(center, jnp.diagonal(total) / count.sum(), standardize)
        _, Q = _eigh(total * scale[:, None] * scale[None])
        axes = Q * scale[:, None]
        turn = lambda block, mean: ((X[jnp.asarray(block)] - mean[None]) @ axes).astype(jnp.float32)
        coordinates = tuple(turn(block, mean[f]) for f, block in enumerate(blocks))
        return Statistics(
            count,
            mean,
            scatter,
            Q.T / jnp.where(scale > 0, scale, 1.0)[None],
            coordinates,
            (mean - center[None]) @ axes,
        )


@jax.jit
@jax.default_matmul_precision("highest")
def _block(rows):
    mean = rows.mean(axis=0)
    deviations = rows - mean[None]
    return jnp.asarray(len(rows), rows.dtype), mean, deviations.T @ deviations


def _pool(members, count, mean, scatter, about=None):
    """Return the mean of a union of blocks, and its products about that mean or another point."""
    members = members.astype(mean.dtype)
    count = count * members
    center = (count @ mean) / count.sum()
    apart = mean - (center if about is None else about)[None]
    return center, jnp.tensordot(members, scatter, axes=1) + (apart.T * count[None]) @ apart


def factorize_statistics(
    sums: Statistics,
    train: Bool[np.ndarray, " F"],
    tests: Bool[np.ndarray, "m F"],
    *,
    standardize: bool,
    center: bool,
    cutoff: float = CUTOFF,
) -> Design:
    """Do what `factorize` does in its primal form, from sums alone.

    The basis rotates products of targets with the coordinates of `sums`, and loadings are Gram
    matrices [r r] of the test sets, so samples do not enter any more.

    Args:
      sums: from `statistics`, with the same `standardize`.
      train: which blocks are trained on.
      tests: which blocks make up each of m test sets.
      standardize: see `factorize`.
      center: see `factorize`.
      cutoff: see `factorize`.
    """
    with jax.enable_x64(True):
        gram, mean, scale, num_constant = _union(sums, jnp.asarray(train), standardize=standardize)
        spectrum, Q = _eigh(gram)
        return _turn(
            sums,
            jnp.asarray(tests),
            spectrum,
            Q,
            mean,
            scale,
            num_constant,
            center=center,
            cutoff=cutoff,
        )


@jax.jit(static_argnames=("standardize",))
@jax.default_matmul_precision("highest")
def _union(sums, train, *, standardize):
    mean, gram = _pool(train, sums.count, sums.mean, sums.scatter)
    size = (sums.count * train.astype(sums.count.dtype)).sum()
    scale, num_constant = _scale(mean, jnp.diagonal(gram) / size, standardize)
    return gram * scale[:, None] * scale[None], mean, scale, num_constant


@jax.jit(static_argnames=("center",))
@jax.default_matmul_precision("highest")
def _turn(sums, tests, spectrum, Q, train_mean, scale, num_constant, *, center, cutoff):
    kept, spectrum = _kept(spectrum, cutoff)
    Q = Q * scale[:, None] * kept.astype(Q.dtype)[None]

    def of_test(members):
        about = None if center else train_mean
        mean, gram = _pool(members, sums.count, sums.mean, sums.scatter, about)
        shift = (mean - train_mean) @ Q
        return Q.T @ gram @ Q, shift if center else jnp.zeros_like(shift)

    grams, means = jax.lax.map(of_test, tests)
    return _narrow(spectrum, kept, (sums.axes @ Q).T, grams, means, num_constant)
