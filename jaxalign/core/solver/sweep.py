"""The sweep over targets: costs, choices and scores of one tile, at all penalties and folds.

Everything here is compiled once per shape: folds are scanned, targets and penalties are axes of
arrays, so compile time grows with none of them. Targets do not interact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.metrics import CONSTANT_TOLERANCE
from jaxalign.core.solver import search as search_lib
from jaxalign.core.solver.ridge import Design
from jaxalign.core.solver.search import Criterion, Family, Moments
from jaxalign.core.solver.tiles import Samples, Sets, Targets


class Inner(NamedTuple):
    """Training sets and test sets on which penalties are chosen."""

    sets: Sets
    owner: Int[Array, " u"]  # the outer fold for which each test set counts
    share: Float[Array, " u"]  # its weight there; the weights of a fold sum to 1


class Choice(NamedTuple):
    """The penalty of each outer fold and target, by its place on the grid."""

    place: Int[Array, "k v"]
    cost: Float[Array, "k v"]
    null: Float[Array, "k v"]  # cost without features
    count: Int[Array, "k v"]  # penalties for which the cost was computed exactly


def prior(
    inner: Inner, alphas: Float[Array, " a"], *, num_folds: int
) -> Float[Array, "{num_folds} a a"]:
    """Return the prior covariance of the errors of the cheap cost curves, for each outer fold.

    An error is what `search.neglected` describes, averaged over the inner test sets of the fold.

    Args:
      inner: training sets and their tests.
      alphas: penalties.
      num_folds: outer folds.
    """
    xp = np if jax.default_backend() == "cpu" else jnp
    design = inner.sets.design
    spectrum, basis, loadings, grid = (
        xp.asarray(x) for x in (design.spectrum, design.basis, design.loadings, alphas)
    )
    variance = (basis**2).sum(axis=2)
    total = np.zeros((num_folds, len(alphas), len(alphas)), np.float32)
    uses = zip(*map(np.asarray, (inner.sets.source, inner.owner, inner.share)), strict=True)
    for u, (b, fold, share) in enumerate(uses):
        gram = loadings[u] if inner.sets.is_gram else loadings[u].T @ loadings[u]
        covariance = search_lib.neglected(spectrum[b], variance[b], gram, grid, xp)
        # Errors of different test sets are independent, and each is weighted by its share.
        total[fold] += share**2 * np.asarray(covariance)
    return jax.device_put(total)


def _combine(inner, num_folds, each):
    """Average values of test sets [u v ...] over the test sets of each outer fold."""
    weights = jax.nn.one_hot(inner.owner, num_folds, dtype=jnp.float32) * inner.share[:, None]
    return jnp.tensordot(weights.T, each, axes=1)


@jax.jit(static_argnames=("capacity",))
@jax.default_matmul_precision("highest")
def choose(
    shared: tuple[Inner, Float[Array, "k a a"], Float[Array, " a"]],
    targets: Targets,
    *,
    capacity: int,
) -> Choice:
    """Choose the penalty of each target and outer fold by the adaptive search for squared errors.

    Args:
      shared: training and test sets, their covariances from `prior`, and penalties, ascending.
      targets: a tile of targets.
      capacity: number of targets computed at a time after the first round.
    """
    inner, covariance, alphas = shared
    sets, owner = inner.sets, inner.owner
    design, sizes, k = sets.design, sets.members.sizes(), len(covariance)
    trained = targets.train(sets)
    rotated = trained.rotated
    num_targets = rotated.shape[1]
    uses = jnp.arange(len(owner))

    def observe(u):
        b = sets.source[u]
        t, yy = targets.project(sets, trained, u, center=False)
        d = 1 / (design.spectrum[b][None] + alphas[:, None])
        loadings = design.loadings[u]
        lengths = jnp.diagonal(loadings) if sets.is_gram else (loadings**2).sum(axis=0)
        return Moments(yy, (rotated[b] * t) @ d.T, rotated[b] ** 2 @ (d**2 * lengths[None]).T)

    yy, b, q = jax.lax.map(observe, uses)
    each = search_lib.cost("squared_error", Moments(yy[..., None], b, q), sizes[:, None, None])
    cheap = search_lib.Cheap(*(_combine(inner, k, x) for x in each))

    def exact(place, rows):
        """Exact costs [k c] of some targets of each fold, at one penalty each."""

        def square(u):
            source, fold = sets.source[u], owner[u]
            w = rotated[source] if rows is None else rotated[source, rows[fold]]
            z = w / (design.spectrum[source][None] + alphas[place[fold]][:, None])
            return targets.squares(z, design.loadings[u])

        q = jax.lax.map(square, uses)  # [u c]
        index = jnp.arange(num_targets)[None] if rows is None else rows[owner]
        crossed = b[uses[:, None], index, place[owner]]
        moments = Moments(yy[uses[:, None], index], crossed, q)
        total = _combine(inner, k, search_lib.cost("squared_error", moments, sizes[:, None])[0])
        # An overflow is the worst value, not an unknown one.
        return jnp.where(jnp.isfinite(total), total, jnp.finfo(jnp.float32).max)

    def refine(state):
        belief, observed = state
        belief = jax.vmap(search_lib.learn)(belief, covariance, cheap, observed)
        place, need = search_lib.propose(belief, cheap)
        # Out of range where there are fewer: clipped when read, dropped when written.
        rows = jax.vmap(lambda x: jnp.nonzero(x, size=capacity, fill_value=num_targets)[0])(need)
        fold = jnp.arange(k)[:, None]
        some = jax.lax.cond(
            need.any(),
            lambda: exact(
                place.at[fold, rows].get(mode="clip"), jnp.minimum(rows, num_targets - 1)
            ),
            lambda: jnp.zeros(rows.shape),
        )
        values = observed.value.at[fold, rows].set(some, mode="drop")
        new = jnp.zeros_like(need).at[fold, rows].set(True, mode="drop")
        return belief, search_lib.Observed(place, values, new)

    # Before any exact value the bound is lowest where it is widest: begin at the cheap minimum.
    place = search_lib.last_argmin(cheap.curve)
    observed = search_lib.Observed(place, exact(place, None), jnp.ones(place.shape, bool))
    state = (search_lib.believe(covariance, num_targets), observed)
    belief, _ = jax.lax.while_loop(lambda state: state[1].is_new.any(), refine, state)
    null = _combine(inner, k, yy / sizes[:, None])
    place = search_lib.last_argmin(belief.exact)
    return Choice(place, belief.exact.min(axis=-1), null, belief.count)


@jax.jit
def best(costs: Float[Array, "k a v"], null: Float[Array, "k v"]) -> Choice:
    """Choose by the cost of every penalty; of equal ones the largest."""
    place = search_lib.last_argmin(jnp.moveaxis(costs, 1, 2))
    count = jnp.full(place.shape, costs.shape[1], jnp.int32)
    return Choice(place, costs.min(axis=1), null, count)


@jax.jit(static_argnames=("criterion", "num_folds"))
@jax.default_matmul_precision("highest")
def curves(
    shared: tuple[Inner, Float[Array, " a"], Family],
    targets: Targets,
    *,
    criterion: Criterion,
    num_folds: int,
) -> tuple[Float[Array, "k a v"], Float[Array, "k v"]]:
    """Return the cost of every penalty, and the cost without features.

    Args:
      shared: training and test sets, penalties, and their family from `search.family`.
      targets: a tile of targets.
      criterion: squared error, relative error, or negative correlation.
      num_folds: outer folds.
    """
    inner, alphas, family = shared
    sets = inner.sets
    sizes = sets.members.sizes()
    trained = targets.train(sets)
    errors = "correlation" if criterion == "correlation" else "squared_error"

    def observe(u):
        b = sets.source[u]
        t, yy = targets.project(sets, trained, u, center=criterion == "correlation")
        rotated, spectrum = trained.rotated[b], sets.design.spectrum[b]
        loadings = sets.design.loadings[u]
        moments = Moments(
            yy[None],
            (1 / (spectrum[None] + alphas[:, None])) @ (rotated * t).T,
            targets.squares_of_all(rotated, spectrum, family, loadings),
        )
        cost, null = search_lib.cost(errors, moments, sizes[u])[0], yy / sizes[u]
        if criterion == "relative_error":
            _, total = targets.project(sets, trained, u, center=True)
            # A test set in which the target does not vary has no say in the choice.
            varies = total > sizes[u] * CONSTANT_TOLERANCE**2
            share = jnp.where(varies, sizes[u] / jnp.where(varies, total, 1.0), 0.0)
            cost, null = cost * share[None], null * share
        return cost, jnp.zeros_like(null) if criterion == "correlation" else null

    costs, null = jax.lax.map(observe, jnp.arange(len(inner.owner)))
    return _combine(inner, num_folds, costs), _combine(inner, num_folds, null)


@jax.jit(static_argnames=("criterion", "num_folds", "scheme"))
@jax.default_matmul_precision("highest")
def in_sample_curves(
    shared: tuple[Inner, Float[Array, " a"]],
    targets: Samples,
    *,
    criterion: Criterion,
    num_folds: int,
    scheme: str,
) -> tuple[Float[Array, "k a v"], Float[Array, "k v"]]:
    """Return leave-one-out or generalised cross-validation costs, from single factorisations.

    With H the matrix that maps training targets to fitted ones, the residual of a left-out sample
    is (y - Hy) / (1 - diag H); generalised cross-validation takes the mean of the diagonal instead.
    Both count the free intercept.

    Args:
      shared: training sets, each of which is its test set too, and penalties.
      targets: a tile of targets.
      criterion: squared error, or correlation of the left-out predictions ("loo" alone).
      scheme: "loo" or "gcv".

    Source: Golub, Heath and Wahba (1979), Generalized cross-validation as a method for choosing a
    good ridge parameter, sections 1 and 2.
    """
    inner, alphas = shared
    sets = inner.sets
    trained = targets.train(sets)

    def observe(u):
        y, _ = targets.responses(sets, trained, u, center=False)
        y = y.T  # [v R]
        b = sets.source[u]
        spectrum = sets.design.spectrum[b]
        keep = sets.rows.tests_mask[u].astype(jnp.float32)
        size = keep.sum()

        def cost(residual, free):
            """Take residuals [v R] and 1 - leverage [R]."""
            if scheme == "gcv":
                free = (free * keep).sum() / size * keep
            left_out = residual * keep[None] / jnp.where(keep > 0, free, 1.0)[None]
            if criterion == "squared_error":
                return (left_out**2).sum(axis=1) / size
            predicted = (y - left_out) * keep[None]
            predicted = (predicted - predicted.sum(axis=1, keepdims=True) / size) * keep[None]
            sums = [(a * b).sum(axis=1) for a, b in ((y, y), (predicted, y), (predicted,) * 2)]
            return search_lib.cost(criterion, Moments(*sums), size)[0]

        # Residuals and 1 - leverage are computed as sums over directions: differences from fitted
        # values would lose digits where the fit is close.
        length = jnp.sqrt(sets.design.basis[b] ** 2 @ jnp.ones_like(keep))
        unit = sets.design.basis[b] / jnp.where(length > 0, length, 1.0)[:, None]  # [r R]
        inside = y @ unit.T  # [v r]
        # Where directions span the whole space, what lies outside of them is rounding.
        rank = sets.design.rank[b].astype(jnp.float32)
        lies_outside = jnp.where(rank < size - sets.intercept, keep, 0.0)
        outside = (y - inside @ unit) * lies_outside[None]
        beyond = (keep * (1 - sets.intercept / size) - (unit**2).sum(axis=0)) * lies_outside

        def at(alpha):
            left = alpha / (spectrum + alpha)
            residual = (inside * left[None]) @ unit + outside
            return cost(residual, (left @ unit**2) + beyond)

        nothing = cost(y, keep * (1 - sets.intercept / size))
        if criterion == "correlation":
            nothing = jnp.zeros_like(nothing)
        return jax.lax.map(at, alphas), nothing

    costs, null = jax.lax.map(observe, jnp.arange(len(inner.owner)))
    return _combine(inner, num_folds, costs), _combine(inner, num_folds, null)


@jax.jit
@jax.default_matmul_precision("highest")
def score(
    shared: tuple[Sets, Float[Array, " a"]],
    targets: Targets,
    place: Int[Array, "k v"],
    smallest: Float[Array, "1 v"],
) -> tuple[Float[Array, "k v"], ...]:
    """Return Pearson r and the coefficient of determination on held-out samples, and norms.

    Both are NaN where responses do not vary, in the test set or in training; r also where
    predictions do not. The total of the latter is about the mean of the test set. The norms are
    those of predictions and of responses about their means over the test set.

    Args:
      shared: training sets with a test set each and centred loadings, and penalties.
      targets: a tile of targets.
      place: which penalty each fold and target takes.
      smallest: standard deviation at and below which a target counts as constant.
    """
    sets, grid = shared
    trained = targets.train(sets)
    sizes = sets.members.sizes()
    floor = smallest[0] ** 2
    variance = targets.variance(sets)

    def one(x):
        u, place = x
        alpha = grid[place]
        spectrum = sets.design.spectrum[u]
        # Predictions are scaled up with the penalty, so that small slopes stay in float32's range.
        unit = spectrum.max() + alpha
        z = trained.rotated[u] * (unit[:, None] / (spectrum[None] + alpha[:, None]))
        (yy, b, q), mean = targets.moments(z, sets, trained, u)
        mean_predicted = z @ sets.design.mean_loading[u]
        varies = (yy > sizes[u] * floor) & (yy > 0) & (variance[u] > floor)
        moves = (q > VANISHING * sizes[u] * mean_predicted**2) & (q > 0)
        safe = lambda x, ok: jnp.where(ok, x, 1.0)
        r = b / (safe(jnp.sqrt(q), moves) * safe(jnp.sqrt(yy), varies))
        error = yy - 2 * b / unit + q / unit / unit
        error = error + sizes[u] * (mean - mean_predicted / unit) ** 2
        r2 = 1 - error / safe(yy, varies)
        return (
            jnp.where(varies & moves, r, jnp.nan),
            jnp.where(varies, r2, jnp.nan),
            jnp.sqrt(jnp.maximum(q, 0.0)) / unit,
            jnp.sqrt(jnp.maximum(yy, 0.0)),
        )

    return jax.lax.map(one, (jnp.arange(len(place)), place))


# Variance of predictions, relative to their squared mean, that can be rounding alone.
VANISHING = 1e-12


@jax.jit
@jax.default_matmul_precision("highest")
def coefficients(
    design: Design,
    features: Float[Array, "p r"],
    values: Float[Array, "n v"],
    alphas: Float[Array, " v"],
) -> Float[Array, "p v"]:
    """Return the slopes of all features for each target.

    Args:
      design: all samples, from `ridge.factorize_all`, as is `features`.
      features: takes rotated slopes to those of features.
      values: targets, centred.
      alphas: penalties.
    """
    rotated = design.basis @ values
    return features @ (rotated / (design.spectrum[:, None] + alphas[None]))
