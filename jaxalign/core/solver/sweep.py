"""The sweep over targets: costs, choices and scores of one tile, at all penalties and folds.

Everything here is compiled once per shape: folds are scanned, targets and penalties are axes of
arrays, so compile time grows with none of them. Targets do not interact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxalign.core.metrics import CONSTANT_TOLERANCE
from jaxalign.core.solver import search as search_lib
from jaxalign.core.solver.ridge import Design
from jaxalign.core.solver.samples import Samples, unfitted
from jaxalign.core.solver.search import Criterion, Family, Moments
from jaxalign.core.solver.sets import Asked, Sets
from jaxalign.core.solver.tiles import Targets


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


def _combine(inner, num_folds, each):
    """Average values of test sets [u v ...] over the test sets of each outer fold."""
    weights = jax.nn.one_hot(inner.owner, num_folds, dtype=jnp.float32) * inner.share[:, None]
    return jnp.tensordot(weights.T, each, axes=1)


@jax.jit(static_argnames=("capacity", "num_folds"))
@jax.default_matmul_precision("highest")
def choose(
    shared: tuple[Inner, Float[Array, " a"]],
    targets: Targets,
    *,
    capacity: int,
    num_folds: int,
) -> Choice:
    """Choose the penalty of each target and outer fold by the adaptive search for squared errors.

    Args:
      shared: training and test sets, and penalties, ascending.
      targets: a tile of targets.
      capacity: number of targets computed at a time after the first round.
      num_folds: outer folds.
    """
    inner, alphas = shared
    sets, owner, k = inner.sets, inner.owner, num_folds
    sizes = sets.members.sizes()
    trained = targets.train(sets)
    num_targets = trained.rotated.shape[1]
    uses, fold = jnp.arange(len(owner)), jnp.arange(k)[:, None]
    combine = lambda x: _combine(inner, k, x / sizes[(...,) + (None,) * (x.ndim - 1)])
    observed = jax.lax.map(lambda u: targets.observe(sets, trained, u, alphas, center=False), uses)
    yy, b, q = observed
    part = search_lib.first_direction(observed)  # [u v a]
    known = jnp.zeros((*part.shape[:2], search_lib.HISTORY, len(alphas))).at[:, :, 0].set(part)
    low = yy - 2 * b + part**2 - search_lib.ROUNDING * (yy + 2 * jnp.abs(b))
    count = jnp.zeros((k, num_targets), jnp.int32)
    exact = jnp.full((k, num_targets, len(alphas)), jnp.inf)
    belief = search_lib.Belief(exact, combine(low), count)

    def compute(belief, known, rows, place):
        """Compute the cost of some targets [k c] at one penalty each."""
        # Out of range where there are fewer: clipped when read, dropped when written.
        within = jnp.minimum(rows, num_targets - 1)
        slot = belief.count[fold, within] + 1

        def look(u):
            f = owner[u]
            asked = Asked(within[f], place[f], alphas)
            mine = search_lib.Moments(yy[u], b[u], q[u])
            looked = targets.look(sets, trained, u, asked, mine)
            part = search_lib.next_direction(known[u, within[f]], looked, q[u, within[f]])
            return looked.error, jnp.where(slot[f, :, None] < search_lib.HISTORY, part, 0.0)

        error, part = jax.lax.map(look, uses)  # [u c], [u c a]
        total = combine(error)
        # An overflow is the worst value, not an unknown one.
        total = jnp.where(jnp.isfinite(total), total, jnp.finfo(jnp.float32).max)
        known = known.at[uses[:, None], rows[owner], slot[owner]].set(part, mode="drop")
        belief = search_lib.Belief(
            belief.exact.at[fold, rows, place].set(total, mode="drop"),
            belief.low.at[fold, rows].add(combine(part**2), mode="drop"),
            belief.count.at[fold, rows].add(1, mode="drop"),
        )
        return belief, known, search_lib.propose(belief)

    def refine(state):
        belief, known, (place, need) = state
        rows = jax.vmap(lambda x: jnp.nonzero(x, size=capacity, fill_value=num_targets)[0])(need)
        return compute(belief, known, rows, place.at[fold, rows].get(mode="clip"))

    place = search_lib.last_argmin(combine(yy - 2 * b + q))
    every = jnp.broadcast_to(jnp.arange(num_targets)[None], place.shape)
    state = compute(belief, known, every, place)
    belief, _, _ = jax.lax.while_loop(lambda state: state[2][1].any(), refine, state)
    null = combine(jax.lax.map(lambda u: targets.null(sets, trained, u), uses))
    return Choice(
        search_lib.last_argmin(belief.exact), belief.exact.min(axis=-1), null, belief.count
    )


@jax.jit
def best(costs: Float[Array, "k a v"], null: Float[Array, "k v"]) -> Choice:
    """Choose by the cost of every penalty; of equal ones the largest."""
    place = search_lib.last_argmin(jnp.moveaxis(costs, 1, 2))
    count = jnp.full(place.shape, costs.shape[1], jnp.int32)
    return Choice(place, costs.min(axis=1), null, count)


@jax.jit(static_argnames=("criterion", "num_folds"))
@jax.default_matmul_precision("highest")
def curves(
    shared: tuple[Inner, Float[Array, " a"], Family | None],
    targets: Targets,
    *,
    criterion: Criterion,
    num_folds: int,
) -> tuple[Float[Array, "k a v"], Float[Array, "k v"]]:
    """Return the cost of every penalty, and the cost without features.

    Args:
      shared: training and test sets, penalties, and their family from `search.family`; None
        where the sets hold what gives all squares at once (`core/solver/squares.py`).
      targets: a tile of targets.
      criterion: squared error, relative error, or negative correlation.
      num_folds: outer folds.
    """
    inner, alphas, family = shared
    sets = inner.sets
    sizes = sets.members.sizes()
    trained = targets.train(sets)
    by_r = criterion == "correlation"

    def observe(u):
        null = targets.null(sets, trained, u) / sizes[u]
        yy, b, q = (x.T for x in targets.observe(sets, trained, u, alphas, center=by_r))
        errors = yy - 2 * b + q
        if family is not None:  # q was an estimate
            of = (alphas, family)
            sums = targets.of_all(sets, trained, u, of, center=by_r, errors=not by_r)
            q, errors = (sums, errors) if by_r else (q, sums)
        if by_r:
            return search_lib.negative_r(Moments(yy, b, q)), jnp.zeros_like(null)
        cost = errors / sizes[u]
        if criterion == "relative_error":
            apart = sets._replace(squares=None)  # for y'y alone
            total = targets.observe(apart, trained, u, alphas[:1], center=True).yy[:, 0]
            # A test set in which the target does not vary has no say in the choice.
            varies = total > sizes[u] * CONSTANT_TOLERANCE**2
            share = jnp.where(varies, sizes[u] / jnp.where(varies, total, 1.0), 0.0)
            cost, null = cost * share[None], null * share
        return cost, null

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
        ones = unfitted(sets, u, center=False)
        b = sets.source[u]
        spectrum = sets.design.spectrum[b]
        keep = sets.rows.tests_mask[u].astype(jnp.float32)
        size = keep.sum()

        whole = y + targets.offset.T * keep[None]

        def cost(residual, free):
            """Take residuals [v R] and 1 - leverage [R]."""
            if scheme == "gcv":
                free = (free * keep).sum() / size * keep
            left_out = residual * keep[None] / jnp.where(keep > 0, free, 1.0)[None]
            if criterion == "squared_error":
                return (left_out**2).sum(axis=1) / size
            predicted = (whole - left_out) * keep[None]
            predicted = (predicted - predicted.sum(axis=1, keepdims=True) / size) * keep[None]
            apart = (y - y.sum(axis=1, keepdims=True) / size) * keep[None]
            pairs = ((apart, apart), (predicted, apart), (predicted, predicted))
            sums = [(a * b).sum(axis=1) for a, b in pairs]
            return search_lib.negative_r(Moments(*sums))

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

        def at(x):
            alpha, rest = x
            left = alpha / (spectrum + alpha)
            residual = (inside * left[None]) @ unit + outside
            if rest is not None:
                residual = residual + targets.offset.T * rest[None]
            return cost(residual, (left @ unit**2) + beyond)

        nothing = cost(whole, keep * (1 - sets.intercept / size))
        if criterion == "correlation":
            nothing = jnp.zeros_like(nothing)
        return jax.lax.map(at, (alphas, ones)), nothing

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
        taken = (place, unit)
        (yy, b, q), mean, mean_predicted = targets.moments(z, sets, trained, u, taken)
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
