"""The penalty search: which penalty is best for each target, with few of them computed exactly.

With z = w / (s + alpha) the predictions of a test set are p = L z (see `core/solver/ridge.py`). The
squared error of a penalty follows from three numbers per target: y'y and b = y'p, which are cheap
for all penalties at once, and q = p'p, which takes one matrix product for each penalty.

A bound of q from below holds for any data. With p known at one penalty, a second product, L'p,
gives its inner products p'L z with the predictions of all penalties. So those of every penalty are
known along the directions of y and of the predictions that were computed; their squares along
orthogonal directions add up to at most q, and what lies outside of these directions is not
negative. The adaptive search computes the penalty whose error could be least, until the least bound
is that of a penalty that was computed: then no other penalty has a smaller error. The predictions
of a penalty are nearly combinations of y and of those of its neighbours, so that the search takes
1.1 to 3 penalties per target, whatever their number.

In other words, it factorises the Gram matrix of all penalties' predictions by Cholesky's method,
by as many of its columns as are needed, and the diagonal that is left is not negative.
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Bool, Float, Int

Vector = Float[Array, " _"] | Float[np.ndarray, " _"]
Matrix = Float[Array, "_ _"] | Float[np.ndarray, "_ _"]
Search = Literal["adaptive", "grid", "bound"]
# "relative_error" is the squared error of each test set over the target's variance in it: 1 - R2.
Criterion = Literal["squared_error", "relative_error", "correlation"]

# Costs that differ by less than this fraction count as equal: the search does not go on for them.
TOLERANCE = 1e-5
# Largest relative error of a divisor that is a sum of those of other penalties.
RANK_TOLERANCE = 1e-6
# Directions that the bound is made of, the target's own among them; later ones do not tighten it.
HISTORY = 8
# A direction counts if at least this share of the squared predictions is new: of what little is
# left of others, float32 leaves rounding.
NEW = 1e-4
# Rounding of float32 that the bound allows for, in units in the last place of each sum.
ROUNDING = 8 * float(np.finfo(np.float32).eps)


class Family(NamedTuple):
    """A few penalties, and weights by which the divisors 1 / (spectrum + alpha) of all are sums."""

    pivots: Vector  # [m]
    weights: Matrix  # [a m]


def family(spectrum: Float[np.ndarray, "*b r"], alphas: Float[np.ndarray, " a"]) -> Family:
    """Find the fewest penalties whose divisors give those of all to float32's precision.

    Neighbouring penalties have almost the same divisors: those of 60 penalties over six decades are
    of a numerical rank of 8 to 18. What is linear in the divisors, as predictions are, has to be
    computed for that many penalties only. They are the pivots of a QR factorisation: in sums of
    divisors little cancels, unlike in sums of singular vectors.

    Args:
      spectrum: eigenvalues of all training sets.
      alphas: penalties, positive.

    Returns:
      Pivots and weights, by which each divisor has a relative error below `RANK_TOLERANCE`, the
      rounding of the sum in float32 included.
    """
    every = Family(alphas.astype(np.float32), np.eye(len(alphas), dtype=np.float32))
    # Eigenvalues of features in tiny units may be 0 in float32.
    values = np.maximum(np.unique(np.asarray(spectrum, np.float64)), np.finfo(np.float32).tiny)
    if len(alphas) < 3:
        return every
    # Divisors are smooth in the logarithm of the spectrum. All eigenvalues are checked below.
    nodes = np.geomspace(values[0], values[-1], max(128, 2 * len(alphas)))[:, None]
    between = 1 / (nodes + alphas)  # [nodes a]
    factors: Any = scipy.linalg.qr(between * np.sqrt(nodes * alphas), mode="r", pivoting=True)
    triangle, order = factors
    sizes = np.abs(np.diagonal(triangle))
    divisors = 1 / (values[:, None] + alphas)
    for m in range(max(2, int((sizes > RANK_TOLERANCE * sizes[0]).sum()) - 1), len(alphas)):
        pivots = np.sort(order[:m])
        # Errors are to be small in relation to each divisor.
        ratios = between[:, pivots] / between.T[..., None]
        weights = np.linalg.pinv(ratios, rcond=1e-13).sum(axis=2)
        found = divisors[:, pivots] @ weights.T
        rounding = np.finfo(np.float32).eps / 2 * (divisors[:, pivots] @ np.abs(weights).T)
        if (np.abs(found - divisors) + rounding <= RANK_TOLERANCE * divisors).all():
            return Family(alphas[pivots].astype(np.float32), weights.astype(np.float32))
    return every


class Moments(NamedTuple):
    """Sums over the samples of a test set, for each target. Shapes broadcast."""

    yy: Float[Array, "..."]  # squared responses
    b: Float[Array, "..."]  # responses times predictions
    q: Float[Array, "..."]  # squared predictions


def negative_r(moments: Moments) -> Float[Array, "..."]:
    """Return the negative Pearson r, of moments about the mean of a test set.

    Where nothing varies the correlation is undefined, and counts as 0.
    """
    yy, b, q = moments
    defined = (q > 0) & (yy > 0)
    return jnp.where(defined, -b / jnp.where(defined, jnp.sqrt(q) * jnp.sqrt(yy), 1.0), 0.0)


class Looked(NamedTuple):
    """What was computed of the predictions of one test set at one penalty of each target."""

    error: Float[Array, " v"]  # sum of squares
    place: Int[Array, " v"]  # the penalty
    products: Float[Array, "v a"]  # of these predictions with those at every penalty


def first_direction(moments: Moments) -> Float[Array, "*u v a"]:
    """Return the part of the predictions of every penalty that is along the target itself.

    Args:
      moments: y'y [*u v 1], and b and an estimate of q [*u v a].
    """
    yy, b, q = moments
    length = jnp.sqrt(jnp.where(yy > 0, yy, 1.0))
    return _less_rounding(jnp.where(yy > 0, b / length, 0.0), jnp.sqrt(q))


def next_direction(
    known: Float[Array, "v h a"], looked: Looked, size: Float[Array, "v a"]
) -> Float[Array, "v a"]:
    """Return the part of the predictions of every penalty along a direction that is new.

    Args:
      known: parts along the directions so far, which are orthogonal.
      looked: predictions at one penalty.
      size: about the squared predictions at every penalty, for the rounding.
    """
    at = jnp.take_along_axis(known, looked.place[:, None, None], axis=2)  # [v h 1]
    rest = looked.products - (known * at).sum(axis=1)
    itself = lambda x: jnp.take_along_axis(x, looked.place[:, None], axis=1)
    square, left = itself(looked.products), itself(rest)
    is_new = (left > NEW * square) & (square > 0)
    length = jnp.sqrt(jnp.where(is_new, left, 1.0))
    part = _less_rounding(rest / length, jnp.sqrt(square * size) / length)
    return jnp.where(is_new, part, 0.0)


def _less_rounding(part, size):
    """Bring parts nearer to 0 by what may be rounding, so that their squares are not too large."""
    return jnp.sign(part) * jnp.maximum(jnp.abs(part) - ROUNDING * size, 0.0)


def last_argmin(x: Float[Array, "*b a"]) -> Int[Array, "*b"]:
    """Return the last place of the least value: of equal ones, the largest penalty."""
    return x.shape[-1] - 1 - jnp.argmin(x[..., ::-1], axis=-1)


class Belief(NamedTuple):
    """What is known about the cost curve of each target and outer fold."""

    exact: Float[Array, "k v a"]  # infinite where not computed
    low: Float[Array, "k v a"]  # at most the cost
    count: Int[Array, "k v"]  # exact values computed


def propose(belief: Belief) -> tuple[Int[Array, "k v"], Bool[Array, "k v"]]:
    """Return the penalty to compute next for each target, and whether it needs to be computed.

    Args:
      belief: what is known, with at least one exact value of each target.
    """
    low = jnp.where(jnp.isfinite(belief.exact), jnp.inf, belief.low)
    best = belief.exact.min(axis=-1)
    return last_argmin(low), low.min(axis=-1) < best - TOLERANCE * jnp.abs(best)
