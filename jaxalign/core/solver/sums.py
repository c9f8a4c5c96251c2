"""A tile of targets, as sums over blocks of samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxalign.core.solver import sets as sets_lib
from jaxalign.core.solver import squares as squares_lib
from jaxalign.core.solver.search import Family, Looked, Moments
from jaxalign.core.solver.sets import Asked, Sets, Trained


class Sums(NamedTuple):
    """A tile of targets, as sums over blocks of samples."""

    products: Float[Array, "F v p"]  # with coordinates of features, about the means of the block
    means: Float[Array, "F v"]
    deviations: Float[Array, "F v"]  # squared, about the mean of the block
    offset: Float[Array, "F p"]  # coordinates of the block means
    count: Float[Array, " F"]

    def _pool(self, members, about=None):
        """Return the sums of a union of blocks, about its mean or about that of other blocks."""
        count = self.count * members
        around = count if about is None else self.count * about
        apart, shift = (
            part - ((around @ part) / around.sum())[None] for part in (self.means, self.offset)
        )
        products = jnp.einsum("f,fvp->vp", members, self.products) + (apart.T * count[None]) @ shift
        return products, members @ self.deviations + count @ apart**2

    def train(self, sets: Sets) -> Trained:
        """Rotate the targets of every training set."""

        def one(x):
            basis, members = x
            products, _ = self._pool(members)
            count = self.count * members
            return Trained(products @ basis.T, count @ self.means / count.sum())

        return jax.lax.map(one, (sets.design.basis, sets.members.train))

    def variance(self, sets: Sets) -> Float[Array, "b v"]:
        """Return the variance of targets in every training set."""

        def one(members):
            _, squares = self._pool(members)
            return squares / (self.count * members).sum()

        return jax.lax.map(one, sets.members.train)

    def project(
        self, sets: Sets, trained: Trained, u: Int[Array, ""], *, center: bool
    ) -> tuple[Float[Array, "v r"], Float[Array, " v"]]:
        """Return products of test responses with loadings, and sums of squared responses."""
        b = sets.source[u]
        about = None if center else sets.members.train[b]
        members = sets.members.tests[u]
        products, squares = self._pool(members, about)
        if center:  # the variance of a constant target is rounding
            size = (self.count * members).sum()
            rounding = 4 * jnp.finfo(jnp.float32).eps * jnp.abs(self.means).max(axis=0)
            squares = jnp.where(squares > size * rounding**2, squares, 0.0)
        return products @ sets.design.basis[b].T, squares

    def null(self, sets: Sets, trained: Trained, u: Int[Array, ""]) -> Float[Array, " v"]:
        """Sum the squares of test responses about the training mean."""
        return self.project(sets, trained, u, center=False)[1]

    def observe(
        self,
        sets: Sets,
        trained: Trained,
        u: Int[Array, ""],
        alphas: Float[Array, " a"],
        *,
        center: bool,
    ) -> Moments:
        """Return y'y [v 1], and b and q [v a] at every penalty, estimated without `squares`."""
        b = sets.source[u]
        projected, yy = self.project(sets, trained, u, center=center)
        lengths = jnp.diagonal(sets.design.loadings[u])
        divisors = sets_lib.divisors(sets, b, alphas)
        rotated = trained.rotated[b]
        crossed, square = sets_lib.crossed(projected, rotated, divisors, lengths)
        if sets.squares is not None:
            square = square + squares_lib.between(sets, rotated, u, alphas)
        return Moments(yy[:, None], crossed, jnp.maximum(square, 0.0))

    def look(
        self, sets: Sets, trained: Trained, u: Int[Array, ""], asked: Asked, observed: Moments
    ) -> Looked:
        """Compute the squared predictions of some targets, and their products with others."""
        rows, place, alphas = asked
        b = sets.source[u]
        rotated, divisors = trained.rotated[b, rows], sets_lib.divisors(sets, b, alphas)
        z = rotated * divisors[place]
        products = z @ sets.design.loadings[u]
        crossed = observed.b[rows, place]
        error = observed.yy[rows, 0] - 2 * crossed + (products * z).sum(axis=1)
        return Looked(error, place, (rotated * products) @ divisors.T)

    def of_all(
        self,
        sets: Sets,
        trained: Trained,
        u: Int[Array, ""],
        grid: tuple[Float[Array, " a"], Family],
        *,
        center: bool,
        errors: bool,
    ) -> Float[Array, "a v"]:
        """Sum the squares of errors, or of predictions, at every penalty."""
        b = sets.source[u]
        rotated, spectrum = trained.rotated[b], sets.design.spectrum[b]
        squares = self._squares_of_all(rotated, spectrum, grid[1], sets.design.loadings[u])
        if not errors:
            return squares
        projected, yy = self.project(sets, trained, u, center=center)
        crossed = sets_lib.divisors(sets, b, grid[0]) @ (rotated * projected).T
        return yy[None] - 2 * crossed + squares

    def _squares_of_all(self, rotated, spectrum, family, loadings):
        divisors = family.weights @ (1 / (spectrum[None] + family.pivots[:, None]))

        def some(x):
            rows, w, d = x
            products = sets_lib.at_all(rotated, spectrum, family, rows)
            return (products * w.T[None] * d.T[:, None]).sum(axis=2)

        # A Gram matrix is symmetric: its rows are its columns.
        return jax.lax.map(
            some, tuple(map(sets_lib.pieces, (loadings, rotated.T, divisors.T)))
        ).sum(axis=0)

    def moments(
        self,
        z: Float[Array, "v r"],
        sets: Sets,
        trained: Trained,
        u: Int[Array, ""],
        taken: tuple[Int[Array, " v"], Float[Array, " v"]],
    ) -> tuple[Moments, Float[Array, " v"], Float[Array, " v"]]:
        """Return moments about the mean of a test set, that mean, and that of predictions."""
        t, yy = self.project(sets, trained, u, center=True)
        count = self.count * sets.members.tests[u]
        mean = count @ self.means / count.sum() - trained.mean[sets.source[u]]
        square = ((z @ sets.design.loadings[u]) * z).sum(axis=1)
        found = Moments(yy, (z * t).sum(axis=1), square)
        return found, mean, z @ sets.design.mean_loading[u]
