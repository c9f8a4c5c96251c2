"""Training and test sets of a tile of targets, and what both of its forms do with them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.solver.ridge import Design
from jaxalign.core.solver.search import Family


class Rows(NamedTuple):
    """Which samples are in each training set, and in each test set; padded to common lengths."""

    train: Int[Array, "b R"]
    train_mask: Bool[Array, "b R"]
    tests: Int[Array, "u T"]
    tests_mask: Bool[Array, "u T"]

    def sizes(self) -> Float[Array, " u"]:
        """Return the number of samples in each test set."""
        return self.tests_mask.sum(axis=1).astype(jnp.float32)


class Blocks(NamedTuple):
    """Which blocks of samples make up each training set, and each test set."""

    train: Float[Array, "b F"]  # 0 or 1
    tests: Float[Array, "u F"]
    count: Float[Array, " F"]  # samples of each block

    def sizes(self) -> Float[Array, " u"]:
        """Return the number of samples in each test set."""
        return self.tests @ self.count


class Squares(NamedTuple):
    """What gives squared predictions of test sets at every penalty (`core/solver/squares.py`)."""

    ratios: Float[Array, "u r r"]  # Gram matrix over differences of eigenvalues, 0 for close ones
    first: Int[Array, "b m"]  # pairs of directions with close eigenvalues
    second: Int[Array, "b m"]
    products: Float[Array, "u m"]  # twice their elements of the Gram matrix


class Sets(NamedTuple):
    """b training sets, and u test sets, each of them for one training set."""

    design: Design
    members: Rows | Blocks
    source: Int[Array, " u"]  # training set of each test set
    intercept: Float[Array, ""]  # 1, or 0 where targets are not to be centred
    squares: Squares | None = None  # where every penalty is computed at once

    @property
    def rows(self) -> Rows:
        """Members as samples, for what needs them."""
        assert isinstance(self.members, Rows)
        return self.members

    @property
    def is_gram(self) -> bool:
        """Whether loadings are Gram matrices."""
        return isinstance(self.members, Blocks)


class Trained(NamedTuple):
    """Targets rotated to the directions of each training set, and their training means."""

    rotated: Float[Array, "b v r"]
    mean: Float[Array, "b v"]


class Asked(NamedTuple):
    """Some targets, and at which penalty each of them is to be predicted."""

    rows: Int[Array, " c"]
    place: Int[Array, " c"]
    alphas: Float[Array, " a"]


def divisors(sets: Sets, b: Int[Array, ""], alphas: Float[Array, " a"]) -> Float[Array, "a r"]:
    """Return what rotated targets of a training set are multiplied by, at every penalty."""
    return 1 / (sets.design.spectrum[b][None] + alphas[:, None])


def crossed(
    projected: Float[Array, "v r"],
    rotated: Float[Array, "v r"],
    divided: Float[Array, "a r"],
    lengths: Float[Array, " r"],
) -> tuple[Float[Array, "v a"], Float[Array, "v a"]]:
    """Return b, and q with the diagonal alone of the Gram matrix of loadings.

    Args:
      projected: products of test responses with loadings.
      rotated: from `Trained`.
      divided: from `divisors`.
      lengths: squared, of the loadings of each direction.
    """
    found = (rotated * projected) @ divided.T
    return found, rotated**2 @ (divided**2 * lengths[None]).T


# Rows of loadings at a time, where products are held for all penalties.
PIECE = 256


def pieces(x: Float[Array, "T c"]) -> Float[Array, "s t c"]:
    """Divide rows into even pieces; zeros fill the last."""
    number = -(-len(x) // PIECE)
    size = -(-len(x) // number)
    return jnp.pad(x, ((0, number * size - len(x)), (0, 0))).reshape(number, size, -1)


def at_all(
    rotated: Float[Array, "v r"],
    spectrum: Float[Array, " r"],
    family: Family,
    rows: Float[Array, "t r"],
) -> Float[Array, "a v t"]:
    """Return products of rows of loadings with slopes, at every penalty."""
    parts = jax.lax.map(
        lambda alpha: (rotated * (1 / (spectrum + alpha))[None]) @ rows.T, family.pivots
    )
    return jnp.tensordot(family.weights, parts, axes=1)
