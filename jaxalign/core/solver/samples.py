"""A tile of targets, sample by sample."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxalign.core.solver import sets as sets_lib
from jaxalign.core.solver import squares as squares_lib
from jaxalign.core.solver.search import Family, Looked, Moments
from jaxalign.core.solver.sets import Asked, Sets, Trained

# Share of a target's squares below which an error is summed from residuals.
CLOSE = 0.1


class Samples(NamedTuple):
    """A tile of targets, sample by sample.

    Without an intercept a large mean would cost the digits of what varies. As fits are linear in
    targets, the residual of `values` + `offset` is that of `values` and `offset` times that of a
    target of ones, which is known in float64 (`Design.unfitted`). So `values` are compared with
    predictions less that part.
    """

    values: Float[Array, "n v"]
    offset: Float[Array, "1 v"]  # mean that was taken out; 0 with an intercept

    def train(self, sets: Sets) -> Trained:
        """Rotate the targets of every training set."""

        def one(x):
            basis, train, mask = x
            keep = mask.astype(jnp.float32)[:, None]
            rows = self.values[train]
            mean = (rows * keep).sum(axis=0) / keep.sum()
            # With an intercept the basis is orthogonal to a constant, without one the mean stays:
            # it need not be taken out.
            return Trained(rows.T @ basis.T, mean * sets.intercept)

        members = sets.rows
        return jax.lax.map(one, (sets.design.basis, members.train, members.train_mask))

    def variance(self, sets: Sets) -> Float[Array, "b v"]:
        """Return the variance of targets in every training set."""

        def one(x):
            train, mask = x
            # About the first sample, where a constant target is 0 without rounding.
            keep = mask.astype(jnp.float32)[:, None]
            apart = (self.values[train] - self.values[train[0]][None]) * keep
            size = keep.sum()
            return (apart**2).sum(axis=0) / size - (apart.sum(axis=0) / size) ** 2

        return jax.lax.map(one, (sets.rows.train, sets.rows.train_mask))

    def responses(
        self, sets: Sets, trained: Trained, u: Int[Array, ""], *, center: bool
    ) -> tuple[Float[Array, "T v"], Float[Array, " v"]]:
        """Return deviations of test responses from the training mean or theirs, and their mean."""
        keep = sets.rows.tests_mask[u].astype(jnp.float32)[:, None]
        y = (self.values[sets.rows.tests[u]] - trained.mean[sets.source[u]][None]) * keep
        mean = y.sum(axis=0) / keep.sum()
        return ((y - mean[None]) * keep if center else y), mean

    def null(self, sets: Sets, trained: Trained, u: Int[Array, ""]) -> Float[Array, " v"]:
        """Sum the squares of test responses, of which nothing is predicted but a free constant."""
        keep = sets.rows.tests_mask[u].astype(jnp.float32)[:, None]
        y, _ = self.responses(sets, trained, u, center=False)
        return ((y + self.offset * keep) ** 2).sum(axis=0)

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
        y, _ = self.responses(sets, trained, u, center=center)
        b, loadings = sets.source[u], sets.design.loadings[u]
        lengths = (loadings**2).sum(axis=0)
        rotated, divisors = trained.rotated[b], sets_lib.divisors(sets, b, alphas)
        crossed, square = sets_lib.crossed(y.T @ loadings, rotated, divisors, lengths)
        if sets.squares is not None:
            square = square + squares_lib.between(sets, rotated, u, alphas)
        ones = unfitted(sets, u, center=center)
        if ones is not None:
            offset = self.offset.T
            crossed = crossed - offset * (y.T @ ones.T)
            apart = rotated @ (divisors * (ones @ loadings)).T
            square = square - 2 * offset * apart + offset**2 * (ones**2).sum(axis=1)[None]
        return Moments((y**2).sum(axis=0)[:, None], crossed, jnp.maximum(square, 0.0))

    def look(
        self, sets: Sets, trained: Trained, u: Int[Array, ""], asked: Asked, observed: Moments
    ) -> Looked:
        """Compute the predictions of some targets, and their products with those elsewhere."""
        rows, place, alphas = asked
        b, loadings = sets.source[u], sets.design.loadings[u]
        # Samples first, then targets: a gather of both has an index for each number, which a TPU
        # holds in 512 bytes.
        y = self.responses(sets, trained, u, center=False)[0][:, rows]
        rotated, divisors = trained.rotated[b, rows], sets_lib.divisors(sets, b, alphas)
        predicted = (rotated * divisors[place]) @ loadings.T
        ones = unfitted(sets, u, center=False)
        if ones is not None:
            predicted = predicted - self.offset[0, rows][:, None] * ones[place]
        products = (rotated * (predicted @ loadings)) @ divisors.T
        if ones is not None:
            products = products - self.offset[0, rows][:, None] * (predicted @ ones.T)
        error = _error(
            ((y.T - predicted) ** 2).sum(axis=1),
            Moments(observed.yy[rows, 0], observed.b[rows, place], (predicted**2).sum(axis=1)),
        )
        return Looked(error, place, products)

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
        y, _ = self.responses(sets, trained, u, center=center)
        ones = unfitted(sets, u, center=center)

        def some(x):
            loadings, y, ones = x
            found = sets_lib.at_all(trained.rotated[b], sets.design.spectrum[b], grid[1], loadings)
            if ones is not None:
                found = found - self.offset.T[None] * ones.T[:, None]
            residual = ((y.T[None] - found) ** 2).sum(axis=2) if errors else None
            return residual, (found**2).sum(axis=2)

        columns = (sets.design.loadings[u], y, None if ones is None else ones.T)
        parts = jax.lax.map(some, jax.tree.map(sets_lib.pieces, columns))
        residual, squares = jax.tree.map(lambda x: x.sum(axis=0), parts)
        if residual is None:
            return squares
        seen = self.observe(sets, trained, u, grid[0], center=center)
        return _error(residual, Moments(seen.yy.T, seen.b.T, squares))

    def moments(
        self,
        z: Float[Array, "v r"],
        sets: Sets,
        trained: Trained,
        u: Int[Array, ""],
        taken: tuple[Int[Array, " v"], Float[Array, " v"]],
    ) -> tuple[Moments, Float[Array, " v"], Float[Array, " v"]]:
        """Return moments about the mean of a test set, that mean, and that of predictions.

        Args:
          z: slopes along the directions, in a unit of the target's.
          sets: with centred loadings.
          trained: see `train`.
          u: test set.
          taken: the penalty of each target, and its unit.
        """
        y, mean = self.responses(sets, trained, u, center=True)
        predicted = z @ sets.design.loadings[u].T
        mean_predicted = z @ sets.design.mean_loading[u]
        ones = unfitted(sets, u, center=True)
        if ones is not None:
            place, unit = taken
            offset = self.offset[0] * unit
            predicted = predicted - offset[:, None] * ones[place]
            average = jnp.asarray(sets.design.unfitted)[u].sum(axis=1) / sets.members.sizes()[u]
            mean_predicted = mean_predicted - offset * average[place]
        b = (predicted * y.T).sum(axis=1)
        found = Moments((y**2).sum(axis=0), b, (predicted**2).sum(axis=1))
        return found, mean, mean_predicted


def _error(residual, moments):
    """Return squared errors by the sum that keeps their digits.

    Where little is predicted, differences between penalties are those of b and q, which would be
    lost among rounding errors of residuals; where a fit is close, y'y - 2 b + q cancels.
    """
    yy, b, q = moments
    return jnp.where(residual < CLOSE * yy, residual, yy - 2 * b + q)


def unfitted(sets: Sets, u: Int[Array, ""], *, center: bool) -> Float[Array, "a T"] | None:
    """Return what fits leave of ones in a test set, at every penalty; None with an intercept."""
    if sets.design.unfitted is None:
        return None
    ones = sets.design.unfitted[u]
    if not center:
        return ones
    keep = sets.rows.tests_mask[u].astype(jnp.float32)[None]
    return (ones - ones.sum(axis=1, keepdims=True) / keep.sum()) * keep
