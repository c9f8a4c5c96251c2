"""How alike two sets of patterns are, without fitting anything: linear CKA and RSA.

CKA compares the inner products of all pairs of samples, RSA their dissimilarities. Both sides have
the same pairs of samples, whatever their numbers of units, so that no map between them is needed.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core import features, metrics

Distance = Literal["pearson", "cosine"]
Comparison = Literal["spearman", "pearson"]
DISTANCES = ("pearson", "cosine")
COMPARISONS = ("spearman", "pearson")
# Targets whose products with all units are on the device at once.
TILE = 4096
# Orders of samples whose pairs are in memory at once.
_ORDERS = 16
# An unbiased self-similarity below this share of the biased one is rounding in float32.
_NOTHING = 1e-6
# Dissimilarities are rounded to this, so that those which are equal but for the order in which
# they were summed are ties.
_GRID = 2.0**-30


class Centred(NamedTuple):
    """Columns without their means, and what CKA takes of the Gram matrix of each group of them.

    Attributes:
      values: scaled to a mean square of 1 within each group.
      group: of each column, an index of `names`.
      names: of the groups, in the order of their first columns.
      diagonal: of the Gram matrix of each group.
      square: sum of the squares of its entries.
    """

    values: Float[np.ndarray, "n v"]
    group: Int[np.ndarray, " v"]
    names: list
    diagonal: Float[np.ndarray, "g n"]
    square: Float[np.ndarray, " g"]


class Cka(NamedTuple):
    """Similarity with each group; NaN where undefined."""

    biased: Float[np.ndarray, " g"]
    debiased: Float[np.ndarray, " g"]


def centre(values: Float[np.ndarray, "n v"], groups: features.Labels | None = None) -> Centred:
    """Prepare one side of a comparison by CKA.

    Args:
      values: one row per sample.
      groups: of each column, those that are compared together; None: all are.

    Raises:
      ValueError: if there are no columns, or a value is not finite.
    """
    n, v = values.shape
    if v == 0:
        raise ValueError("values must have columns, got none.")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite, got some that are not.")
    columns_of = features.members([0] * v if groups is None else groups)
    centred = np.asarray(values, np.float64)
    centred = np.where(metrics.is_constant(centred), 0.0, centred - centred.mean(axis=0))
    scaled = np.zeros((n, v), np.float32)
    group = np.zeros(v, int)
    diagonal, square = np.zeros((len(columns_of), n)), np.zeros(len(columns_of))
    for g, columns in enumerate(columns_of.values()):
        part = centred[:, columns]
        peak = np.abs(part).max()
        if peak > 0:
            part = part / peak  # squares of very small units would vanish
            part = part / np.sqrt((part**2).mean())
        scaled[:, columns], group[columns] = part, g
        diagonal[g] = (part**2).sum(axis=1)
        part = scaled[:, columns]
        gram = _products(part if n <= len(columns) else part.T)
        square[g] = np.asarray(gram, np.float64).sum()
    return Centred(scaled, group, list(columns_of), diagonal, square)


def linear_cka(X: Centred, Y: Centred) -> Cka:
    """Linear centred kernel alignment of features with each group of targets.

    With K and L the centred Gram matrices: <K, L> / sqrt(<K, K> <L, L>). It grows with the number
    of units over samples even if nothing is shared; the debiased form takes inner products
    without the diagonal, whose expectation is 0 for independent X and Y:

      <K, L> - n / (n - 2) sum_i K_ii L_ii + tr K tr L / ((n - 1) (n - 2)),

    which is the unbiased estimator of the Hilbert-Schmidt independence criterion, up to a factor,
    written for matrices that are centred already. It may be negative.

    Args:
      X: features, in one group.
      Y: targets, in one or more.

    Returns:
      NaN where either side is constant; debiased also with fewer than four samples.

    Raises:
      ValueError: if samples do not match, or X has several groups.

    Source: Kornblith et al. (2019), ICML, eq. 3; Song et al. (2012), JMLR 13, 1393-1434, eq. 5.
    """
    n = len(X.values)
    if len(Y.values) != n:
        raise ValueError(f"Y must have one row per sample of X: {n}, got {len(Y.values)}.")
    if len(X.names) != 1:
        raise ValueError(f"X must be one group, got {len(X.names)}.")
    cross = np.bincount(Y.group, weights=_cross(X.values, Y.values), minlength=len(Y.names))
    return _aligned(cross, X, Y)


def _aligned(cross: Float[np.ndarray, " g"], X: Centred, Y: Centred) -> Cka:
    """Divide <K, L> by what each side has alone."""
    n = X.diagonal.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        biased = cross / np.sqrt(X.square * Y.square)
    defined = (X.square > 0) & (Y.square > 0)
    biased = np.where(defined, biased, np.nan)
    if n < 4:
        return Cka(biased, np.full(len(biased), np.nan))
    both = _unbiased(cross, X.diagonal, Y.diagonal)
    own_X, own_Y = (_unbiased(x.square, x.diagonal, x.diagonal) for x in (X, Y))
    defined &= (own_X > _NOTHING * X.square) & (own_Y > _NOTHING * Y.square)
    with np.errstate(divide="ignore", invalid="ignore"):
        debiased = both / np.sqrt(own_X * own_Y)
    return Cka(biased, np.where(defined, debiased, np.nan))


def gram_pairs(side: Centred) -> Float[np.ndarray, "g m"]:
    """Return the inner products of each pair of samples, in the order of `rdm`, in float32.

    Args:
      side: from `centre`; a row for each of its groups.
    """
    first, second = np.triu_indices(len(side.values), k=1)
    grams = (_gram(side.values[:, side.group == g]) for g in range(len(side.names)))
    return np.stack([np.asarray(gram)[first, second] for gram in grams])


def cka_in_orders(
    X: Centred, Y: Centred, pairs_Y: Float[np.ndarray, "g m"], orders: Int[np.ndarray, "q n"]
) -> Cka:
    """Return linear CKA of features whose samples are put into other orders, targets as they are.

    Nothing is multiplied out anew: an order moves the entries of the Gram matrix of X.

    Args:
      X: features, in one group.
      Y: targets.
      pairs_Y: `gram_pairs` of Y.
      orders: from `core/inference/orders.py`.

    Returns:
      [q g], as `linear_cka` has it.
    """
    cross = 2 * dots_in_orders(gram_pairs(X)[0], pairs_Y, orders)
    found = []
    for order, products in zip(orders, cross, strict=True):
        moved = X._replace(diagonal=X.diagonal[:, order])
        shared = (moved.diagonal * Y.diagonal).sum(axis=1)
        found.append(_aligned(products + shared, moved, Y))
    return Cka(*map(np.stack, zip(*found, strict=True)))


def dots_in_orders(
    own: Float[np.ndarray, " m"], others: Float[np.ndarray, "g m"], orders: Int[np.ndarray, "q n"]
) -> Float[np.ndarray, "q g"]:
    """Return the dot product of values of pairs with those of others, for each order of samples.

    Of RDMs that are `comparable` that is their correlation, as an order changes neither the ranks
    nor the mean of dissimilarities.

    Args:
      own: of each pair of samples, which are put into other orders.
      others: of each pair of samples as they are.
      orders: from `core/inference/orders.py`.
    """
    n = orders.shape[1]
    first, second = np.triu_indices(n, k=1)
    matrix = np.zeros((n, n), np.float32)
    matrix[first, second] = matrix[second, first] = own
    found = []
    for start in range(0, len(orders), _ORDERS):
        part = orders[start : start + _ORDERS]
        moved = np.stack([matrix[order[first], order[second]] for order in part])
        found.append(moved @ others.T)
    return np.concatenate(found).astype(np.float64)


def _unbiased(product, diagonal_X, diagonal_Y):
    n = diagonal_X.shape[1]
    traces = diagonal_X.sum(axis=1) * diagonal_Y.sum(axis=1)
    shared = (diagonal_X * diagonal_Y).sum(axis=1)
    return product - n / (n - 2) * shared + traces / ((n - 1) * (n - 2))


def _cross(X: np.ndarray, Y: np.ndarray) -> Float[np.ndarray, " v"]:
    """Sum over units of (X' y)^2 for each target y: its part of <K, L>, a tile at a time."""
    n, p = X.shape
    left = _gram(X) if n < p else jnp.asarray(X)
    tiles = [Y[:, i : i + TILE] for i in range(0, Y.shape[1], TILE)]
    apply = _quadratic if n < p else _projected
    return np.concatenate([np.asarray(apply(left, tile), np.float64) for tile in tiles])


@jax.jit
@jax.default_matmul_precision("highest")
def _gram(X: Float[Array, "n p"]) -> Float[Array, "n n"]:
    return X @ X.T


@jax.jit
def _products(X: Float[Array, "n p"]) -> Float[Array, " n"]:
    """Sums of squares of each row of X X'."""
    return (_gram(X) ** 2).sum(axis=1)


@jax.jit
@jax.default_matmul_precision("highest")
def _quadratic(K: Float[Array, "n n"], Y: Float[Array, "n v"]) -> Float[Array, " v"]:
    return (Y * (K @ Y)).sum(axis=0)


@jax.jit
@jax.default_matmul_precision("highest")
def _projected(X: Float[Array, "n p"], Y: Float[Array, "n v"]) -> Float[Array, " v"]:
    return ((X.T @ Y) ** 2).sum(axis=0)


def rdm(patterns: Float[np.ndarray, "n p"], distance: Distance) -> Float[np.ndarray, " m"]:
    """Return the dissimilarity of each pair of samples, the upper triangle row by row.

    1 - r, r the correlation over units (`pearson`), or the cosine. A single unit has no pattern:
    its correlation over one number is undefined, and so is all of the matrix, by either distance.

    Args:
      patterns: one row per sample.
      distance: which.

    Returns:
      In float64, to 2^-30. NaN where undefined: pairs with a sample that is the same in all units
      (`pearson`) or zero (`cosine`), and all pairs of a single unit.

    Raises:
      ValueError: if the distance is unknown, or a value is not finite.

    Source: Kriegeskorte, Mur and Bandettini (2008), Front Syst Neurosci 2:4.
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}.")
    if not np.isfinite(patterns).all():
        raise ValueError("patterns must be finite, got some that are not.")
    n, p = patterns.shape
    first, second = np.triu_indices(n, k=1)
    if p < 2:
        return np.full(len(first), np.nan)
    rows = np.asarray(patterns, np.float64)
    defined = has_pattern(rows, distance)
    if distance == "pearson":
        rows = rows - rows.mean(axis=1, keepdims=True)
    peak = np.where(defined, np.abs(rows).max(axis=1), 1.0)[:, None]
    rows = rows / peak
    length = np.where(defined, np.sqrt((rows**2).sum(axis=1)), 1.0)[:, None]
    with jax.enable_x64(True):
        products = np.asarray(_gram(jnp.asarray(rows / length)))
    found = np.round((1 - products[first, second]) / _GRID) * _GRID
    return np.where(defined[first] & defined[second], found, np.nan)


def has_pattern(patterns: Float[np.ndarray, "n p"], distance: Distance) -> Bool[np.ndarray, " n"]:
    """Whether a sample has dissimilarities: it is not the same in all units, or not zero.

    Args:
      patterns: one row per sample.
      distance: `pearson` or `cosine`.
    """
    if patterns.shape[1] < 2:
        return np.zeros(len(patterns), bool)
    if distance == "pearson":
        return ~metrics.is_constant(patterns, axis=1)
    return np.abs(patterns).max(axis=1) > 0


def standard_ranks(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Return ranks, ties sharing their mean, centred and of length 1.

    The dot product of two such vectors is Spearman's correlation. All NaN if a value is NaN, all
    are the same, or there are fewer than two.
    """
    if len(values) < 2 or np.isnan(values).any():
        return np.full(len(values), np.nan)
    with jax.enable_x64(True):
        return _standard(np.asarray(_ranks(jnp.asarray(values))))


@jax.jit
def _ranks(values: Float[Array, " m"]) -> Float[Array, " m"]:
    ordered = jnp.sort(values)
    below = jnp.searchsorted(ordered, values, side="left")
    upto = jnp.searchsorted(ordered, values, side="right")
    return (below + upto + 1).astype(values.dtype) / 2


def _standard(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Centre, and scale to length 1; NaN where constant."""
    if len(values) < 2 or np.ptp(values) == 0:
        return np.full(len(values), np.nan)
    centred = values - values.mean()
    return centred / np.linalg.norm(centred)


def comparable(values: Float[np.ndarray, " m"], comparison: Comparison) -> Float[np.ndarray, " m"]:
    """Prepare one RDM: the dot product of two that are prepared is their correlation.

    Args:
      values: from `rdm`.
      comparison: by ranks (`spearman`), or of the dissimilarities themselves (`pearson`).

    Returns:
      All NaN where the RDM has an undefined entry, fewer than two, or one value throughout.

    Raises:
      ValueError: if the comparison is unknown.
    """
    if comparison not in COMPARISONS:
        raise ValueError(f"comparison must be one of {', '.join(COMPARISONS)}, got {comparison!r}.")
    return standard_ranks(values) if comparison == "spearman" else _standard(values)
