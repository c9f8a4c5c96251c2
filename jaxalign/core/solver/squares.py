"""Squared predictions of a test set at every penalty of a grid, from one matrix product.

With w the rotated targets of a training set, s its spectrum and G the Gram matrix of the test set's
loadings, q = sum over r, t of w_r w_t G_rt / ((s_r + alpha) (s_t + alpha)). For s_r != s_t the
divisor is a divided difference,

    1 / ((s_r + alpha) (s_t + alpha)) = (1 / (s_r + alpha) - 1 / (s_t + alpha)) / (s_t - s_r),

so that with C_rt = G_rt / (s_t - s_r), which is antisymmetric,

    q = sum over r of 2 w_r (C w)_r / (s_r + alpha) + w_r^2 G_rr / (s_r + alpha)^2.

The product C w knows nothing of the penalty, and each penalty costs two sums over directions. As
w' C w is 0, any constant may be taken from the first divisors; less that of the largest eigenvalue,
they keep their digits where the penalty is large. Digits are lost by the ratio of eigenvalues to
their differences: of pairs of directions that are closer than `NEAR`, which are few unless
features repeat, products are summed as they are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.solver.sets import Sets, Squares, divisors

# Eigenvalues that differ by less than this share of the larger one are close.
NEAR = 1e-3
# Close pairs for each direction, beyond which other ways to the same numbers cost less.
MOST_PAIRS = 4
# Room for so many pairs of a training set at least, a power of two.
FEWEST_PAIRS = 8


class Pairs(NamedTuple):
    """Pairs of directions with close eigenvalues; the last of a set repeat, with weight 0."""

    first: Int[np.ndarray, "b m"]
    second: Int[np.ndarray, "b m"]
    weight: Float[np.ndarray, "b m"]


def close_pairs(spectrum: Float[np.ndarray, "b r"], rank: Int[np.ndarray, " b"]) -> Pairs | None:
    """Find the pairs of directions whose eigenvalues are close; None if there are too many.

    Args:
      spectrum: ascending, those that are kept last.
      rank: directions that are kept.
    """
    found = []
    for values, kept in zip(np.asarray(spectrum, np.float64), np.asarray(rank), strict=True):
        start = len(values) - int(kept)
        end = np.searchsorted(values, values / (1 - NEAR), side="left")
        count = np.maximum(end - np.arange(len(values)) - 1, 0) * (np.arange(len(values)) >= start)
        if count.sum() > MOST_PAIRS * len(values):
            return None
        first = np.repeat(np.arange(len(values)), count)
        within = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
        found.append((first, first + 1 + within))
    longest = max(len(first) for first, _ in found)
    # A power of two, so that programs are compiled for few lengths.
    length = 1 << max(longest - 1, FEWEST_PAIRS - 1).bit_length()
    pad = lambda x: np.pad(x, (0, length - len(x)))
    first, second = (np.stack([pad(x[i]) for x in found]).astype(np.int32) for i in (0, 1))
    weight = np.stack([pad(np.ones(len(x), np.float32)) for x, _ in found])
    return Pairs(first, second, weight)


def prepare(sets: Sets) -> Sets:
    """Add what gives the squared predictions at every penalty; nothing if directions repeat.

    Args:
      sets: with an intercept.
    """
    spectrum, rank = (np.asarray(x) for x in (sets.design.spectrum, sets.design.rank))
    pairs = close_pairs(spectrum, rank)
    return sets if pairs is None else sets._replace(squares=_divide(sets, pairs))


@jax.jit
@jax.default_matmul_precision("highest")
def _divide(sets, pairs):
    def one(x):
        loadings, b = x
        gram = loadings if sets.is_gram else loadings.T @ loadings
        s = sets.design.spectrum[b]
        apart = s[None] - s[:, None]
        i, j, weight = (part[b] for part in pairs)
        marked = jnp.zeros_like(gram, bool).at[i, j].max(weight > 0)
        # Directions that are not kept have one eigenvalue, and no loadings.
        left_out = marked | marked.T | (apart == 0)
        ratios = jnp.where(left_out, 0.0, gram / jnp.where(left_out, 1.0, apart))
        return ratios, 2 * weight * gram[i, j]

    ratios, products = jax.lax.map(one, (sets.design.loadings, sets.source))
    return Squares(ratios, pairs[0], pairs[1], products)


def between(
    sets: Sets, rotated: Float[Array, "v r"], u: Int[Array, ""], alphas: Float[Array, " a"]
) -> Float[Array, "v a"]:
    """Return what products of different directions add to the squared predictions of a test set.

    Args:
      sets: from `prepare`.
      rotated: targets, rotated to the directions of the test set's training set.
      u: test set.
      alphas: penalties.
    """
    b, squares = sets.source[u], sets.squares
    assert squares is not None
    s, divided = sets.design.spectrum[b], divisors(sets, b, alphas)
    top = s.max()
    less = (top - s)[None] * divided / (top + alphas)[:, None]
    i, j = squares.first[b], squares.second[b]
    apart = 2 * (rotated * (rotated @ squares.ratios[u].T)) @ less.T
    of_pairs = squares.products[u][None] * divided[:, i] * divided[:, j]
    return apart + (rotated[:, i] * rotated[:, j]) @ of_pairs.T
