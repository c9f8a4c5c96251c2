"""The penalty search: which penalty is best for each target, with few of them computed exactly.

With z = w / (s + alpha) the prediction is L z (see `core/solver/ridge.py`). The cost of a penalty
follows from three numbers per target: y'y and b = z'L'y, which are cheap for all penalties at once,
and q = z'Gz with G = L'L, which takes one matrix product for each penalty. With the diagonal of G
in place of G, q is cheap too, and right to a few percent: rotated targets are uncorrelated with one
another where the target is noise, so the terms left out average to zero.

How large these terms are is known. Where targets are noise, the covariance of their sum over
penalties follows from G and the spectrum (`neglected`), before any target is seen. The adaptive
search therefore treats the error of the cheap curve as a Gaussian process with that covariance. It
computes the cost exactly where the curve could still be lowest (a lower confidence bound),
conditions the process on the result, and stops when the lowest bound is an exact value. Bounds are
widened for targets whose errors turn out larger than those of noise. In the cases measured the
search takes 1.1 to 3 products per target, whatever the number of penalties.

Source of the bound: Srinivas et al. (2010), Gaussian process optimization in the bandit setting.
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Bool, Float, Int

Vector = Float[Array, " _"] | Float[np.ndarray, " _"]
Matrix = Float[Array, "_ _"] | Float[np.ndarray, "_ _"]
Search = Literal["adaptive", "grid"]
# "relative_error" is the squared error of each test set over the target's variance in it: 1 - R2.
Criterion = Literal["squared_error", "relative_error", "correlation"]

# Half-width of the bound in standard deviations, and the weight of the prior spread against the
# errors seen of a target, in observations.
WIDTH = 4.0
PRIOR_WEIGHT = 3.0
# Costs that differ by less than this fraction count as equal: the search does not go on for them.
TOLERANCE = 1e-5
# Largest relative error of a divisor that is a sum of those of other penalties.
RANK_TOLERANCE = 1e-6
# After so many penalties of a target the process is left as it is, and the search goes on with it.
HISTORY = 12
# The covariance is summed over at most so many groups of neighbouring directions.
MAX_DIRECTIONS = 128


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


def cost(
    criterion: Criterion, moments: Moments, size: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return the cost, which is to be minimised, and its derivative by the logarithm of q.

    Args:
      criterion: mean squared error, or negative Pearson r.
      moments: of one test set; about its mean for "correlation", about the training mean for
        "squared_error".
      size: number of samples.
    """
    yy, b, q = moments
    if criterion == "squared_error":
        return (yy - 2 * b + q) / size, q / size
    # Where nothing varies the correlation is undefined, and counts as 0.
    defined = (q > 0) & (yy > 0)
    r = jnp.where(defined, b / jnp.where(defined, jnp.sqrt(q) * jnp.sqrt(yy), 1.0), 0.0)
    return -r, jnp.abs(r) / 2


def neglected(
    spectrum: Vector,
    variance: Vector,
    gram: Matrix,
    alphas: Vector,
    xp: Any = jnp,
) -> Matrix:
    """Return the covariance over penalties of q / (its diagonal part), for white-noise targets.

    For independent w_r of variance v_r, the terms off the diagonal, sum over r != s of
    z_r z_s G_rs, have mean 0 and the covariance 2 sum G_rs^2 v_r v_s d_r d_s d'_r d'_s at two
    penalties, d = 1 / (spectrum + alpha).

    Args:
      spectrum: eigenvalues of the training set, ascending [r].
      variance: of each rotated target, for targets of noise with unit variance [r].
      gram: products of the loadings of a test set [r r].
      alphas: penalties [a].
      xp: jax.numpy, or numpy, which has nothing to compile.
    """
    size = xp.diagonal(gram)
    scale = xp.where(size > 0, 1 / xp.sqrt(xp.where(size > 0, size, 1.0)), 0.0)
    # Squared correlations of the loadings, and the share of each direction in the prediction: no
    # number leaves the range of float32, whatever the units of the features.
    square = (gram * scale[:, None] * scale[None]) ** 2
    square = square - xp.diag(xp.diagonal(square))
    share = xp.sqrt(size * variance)[None] / (spectrum[None] + alphas[:, None])
    norm = xp.sqrt((share**2).sum(axis=1, keepdims=True))
    share = share / xp.where(norm > 0, norm, 1.0)
    width = -(-len(spectrum) // MAX_DIRECTIONS)
    if width > 1:  # neighbouring directions, alike in size, as one
        fill = -len(spectrum) % width
        square = xp.pad(square, ((fill, 0), (fill, 0)))
        groups = len(square) // width
        square = square.reshape(groups, width, groups, width).sum(axis=(1, 3))
        share = xp.pad(share, ((0, 0), (fill, 0)), mode="edge")
        share = xp.sqrt((share**2).reshape(len(alphas), groups, width).mean(axis=2))
    pairs = share[:, None] * share[None]  # [a a g]
    return 2 * ((pairs @ square) * pairs).sum(axis=-1)


class Belief(NamedTuple):
    """What is known about the cost curve of each target: exact values, and a Gaussian process.

    The process is that of x = (exact - cheap) / scale.
    """

    exact: Float[Array, "k v a"]  # infinite where not computed
    mean: Float[Array, "k v a"]
    variance: Float[Array, "k v a"]
    factors: Float[Array, "k v h a"]  # the covariance is the prior's minus factors' factors
    surprise: Float[Array, "k v"]  # sum of squared standardised errors
    count: Int[Array, "k v"]  # exact values computed


def believe(prior: Float[Array, "k a a"], num_targets: int) -> Belief:
    """Return the belief before any exact value is known.

    Args:
      prior: covariance of the process in each fold.
      num_targets: number of targets.
    """
    k, a, _ = prior.shape
    variance = jnp.diagonal(prior, axis1=1, axis2=2)
    shape = (k, num_targets, a)
    return Belief(
        exact=jnp.full(shape, jnp.inf),
        mean=jnp.zeros(shape),
        variance=jnp.broadcast_to(variance[:, None], shape),
        factors=jnp.zeros((k, num_targets, min(HISTORY, a), a)),
        surprise=jnp.zeros(shape[:2]),
        count=jnp.zeros(shape[:2], jnp.int32),
    )


def last_argmin(x: Float[Array, "*b a"]) -> Int[Array, "*b"]:
    """Return the last place of the least value: of equal ones, the largest penalty."""
    return x.shape[-1] - 1 - jnp.argmin(x[..., ::-1], axis=-1)


class Cheap(NamedTuple):
    """The cost curve with the diagonal of G in place of G, and the scale of its error."""

    curve: Float[Array, "*k v a"]
    scale: Float[Array, "*k v a"]  # an error is this times the value of the process


class Observed(NamedTuple):
    """One exact value for each target."""

    place: Int[Array, "*k v"]  # which penalty was computed
    value: Float[Array, "*k v"]
    is_new: Bool[Array, "*k v"]  # False for targets without a new value


def propose(belief: Belief, cheap: Cheap) -> tuple[Int[Array, "k v"], Bool[Array, "k v"]]:
    """Return the penalty to compute next for each target, and whether it needs to be computed.

    Args:
      belief: what is known, with at least one exact value of each target.
      cheap: costs and their scales at all penalties.
    """
    computed = jnp.isfinite(belief.exact)
    # At most as many as are remembered: later values do not add to the surprise.
    seen = jnp.minimum(belief.count, belief.factors.shape[2]).astype(jnp.float32)
    spread = jnp.maximum((PRIOR_WEIGHT + belief.surprise) / (PRIOR_WEIGHT + seen), 1.0)
    deviation = jnp.sqrt(jnp.maximum(belief.variance, 0.0) * spread[..., None])
    low = cheap.curve + cheap.scale * (belief.mean - WIDTH * deviation)
    low = jnp.where(computed, belief.exact, low)
    best = belief.exact.min(axis=-1)
    return last_argmin(low), low.min(axis=-1) < best - TOLERANCE * jnp.abs(best)


def learn(belief: Belief, prior: Float[Array, "a a"], cheap: Cheap, observed: Observed) -> Belief:
    """Condition the process of one fold's targets on one exact value of each.

    Args:
      belief: what is known, without the axis of folds, as all else here.
      prior: covariance of the process.
      cheap: costs and their scales at all penalties.
      observed: the values.
    """
    place, exact, new = observed
    targets = jnp.arange(len(place))
    at = cheap.scale[targets, place]
    x = jnp.where(at > 0, (exact - cheap.curve[targets, place]) / jnp.where(at > 0, at, 1.0), 0.0)
    weights = jnp.take_along_axis(belief.factors, place[:, None, None], axis=2)  # [v h 1]
    column = prior[place] - (belief.factors * weights).sum(axis=1)
    # A value next to others adds little but rounding: hence the floor.
    floor = 1e-5 * prior[place, place] + jnp.finfo(jnp.float32).tiny
    root = jnp.sqrt(jnp.maximum(column[targets, place], floor))
    error = (x - belief.mean[targets, place]) / root
    history = belief.factors.shape[1]
    remembered = new & (belief.count < history)
    factor = jnp.where(remembered[:, None], column / root[:, None], 0.0)
    slot = jnp.arange(history)[None] == belief.count[:, None]  # [v h]
    here = new[:, None] & (jnp.arange(len(prior))[None] == place[:, None])  # [v a]
    return Belief(
        exact=jnp.where(here, exact[:, None], belief.exact),
        mean=belief.mean + factor * error[:, None],
        variance=belief.variance - factor**2,
        factors=jnp.where(slot[..., None], factor[:, None], belief.factors),
        surprise=belief.surprise + jnp.where(remembered, error**2, 0.0),
        count=belief.count + new.astype(jnp.int32),
    )
