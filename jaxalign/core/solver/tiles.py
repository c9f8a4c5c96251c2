"""A tile of targets, sample by sample or as sums over blocks, rotated for each training set."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.metrics import CONSTANT_TOLERANCE, is_rounding
from jaxalign.core.solver.ridge import Design
from jaxalign.core.solver.search import Family, Looked, Moments


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


class Sets(NamedTuple):
    """b training sets, and u test sets, each of them for one training set."""

    design: Design
    members: Rows | Blocks
    source: Int[Array, " u"]  # training set of each test set
    intercept: Float[Array, ""]  # 1, or 0 where targets are not to be centred

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


# Share of a target's squares below which an error is summed from residuals.
CLOSE = 0.1


class Asked(NamedTuple):
    """Some targets, and at which penalty each of them is to be predicted."""

    rows: Int[Array, " c"]
    place: Int[Array, " c"]
    alphas: Float[Array, " a"]


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
        """Return y'y [v 1], and b and an estimate of q [v a] at every penalty."""
        y, _ = self.responses(sets, trained, u, center=center)
        b, loadings = sets.source[u], sets.design.loadings[u]
        lengths = (loadings**2).sum(axis=0)
        rotated, divisors = trained.rotated[b], _divisors(sets, b, alphas)
        crossed, square = _crossed(y.T @ loadings, rotated, divisors, lengths)
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
        keep = sets.rows.tests_mask[u].astype(jnp.float32)[:, None]
        y = self.values[sets.rows.tests[u][:, None], rows[None]]
        y = (y - trained.mean[b, rows][None]) * keep
        rotated, divisors = trained.rotated[b, rows], _divisors(sets, b, alphas)
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
            found = _at_all(trained.rotated[b], sets.design.spectrum[b], grid[1], loadings)
            if ones is not None:
                found = found - self.offset.T[None] * ones.T[:, None]
            residual = ((y.T[None] - found) ** 2).sum(axis=2) if errors else None
            return residual, (found**2).sum(axis=2)

        columns = (sets.design.loadings[u], y, None if ones is None else ones.T)
        parts = jax.lax.map(some, jax.tree.map(_pieces, columns))
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


def _divisors(sets, b, alphas):
    return 1 / (sets.design.spectrum[b][None] + alphas[:, None])


def _crossed(projected, rotated, divisors, lengths):
    """Return b, and q with the diagonal alone of the Gram matrix of loadings [v a]."""
    crossed = (rotated * projected) @ divisors.T
    return crossed, rotated**2 @ (divisors**2 * lengths[None]).T


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
        """Return y'y [v 1], and b and an estimate of q [v a] at every penalty."""
        b = sets.source[u]
        projected, squares = self.project(sets, trained, u, center=center)
        lengths = jnp.diagonal(sets.design.loadings[u])
        divisors = _divisors(sets, b, alphas)
        crossed = _crossed(projected, trained.rotated[b], divisors, lengths)
        return Moments(squares[:, None], *crossed)

    def look(
        self, sets: Sets, trained: Trained, u: Int[Array, ""], asked: Asked, observed: Moments
    ) -> Looked:
        """Compute the squared predictions of some targets, and their products with others."""
        rows, place, alphas = asked
        b = sets.source[u]
        rotated, divisors = trained.rotated[b, rows], _divisors(sets, b, alphas)
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
        crossed = _divisors(sets, b, grid[0]) @ (rotated * projected).T
        return yy[None] - 2 * crossed + squares

    def _squares_of_all(self, rotated, spectrum, family, loadings):
        divisors = family.weights @ (1 / (spectrum[None] + family.pivots[:, None]))

        def some(x):
            rows, w, d = x
            products = _at_all(rotated, spectrum, family, rows)
            return (products * w.T[None] * d.T[:, None]).sum(axis=2)

        # A Gram matrix is symmetric: its rows are its columns.
        return jax.lax.map(some, tuple(map(_pieces, (loadings, rotated.T, divisors.T)))).sum(axis=0)

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


Targets = Samples | Sums

# Rows of loadings at a time, where products are held for all penalties.
PIECE = 256


def _pieces(x):
    """Divide rows [T c] into even pieces [s t c]; zeros fill the last."""
    number = -(-len(x) // PIECE)
    size = -(-len(x) // number)
    return jnp.pad(x, ((0, number * size - len(x)), (0, 0))).reshape(number, size, -1)


def _at_all(rotated, spectrum, family, rows):
    """Return products [a v t] of the rows of loadings [t r] with slopes at every penalty."""
    parts = jax.lax.map(
        lambda alpha: (rotated * (1 / (spectrum + alpha))[None]) @ rows.T, family.pivots
    )
    return jnp.tensordot(family.weights, parts, axes=1)


@jax.jit
def normalize(
    block: Float[Array, "n v"],
) -> tuple[Float[Array, "n v"], Float[Array, " v"], Float[Array, " v"], Float[Array, " v"]]:
    """Bring targets to mean 0, and to 1 as their largest value; constant ones become 0.

    Args:
      block: a tile of targets.

    Returns:
      The targets; their means; what they were divided by, 1 for a constant one; and the largest
      value before, which is not finite if any of the target is not.
    """
    largest = jnp.abs(block).max(axis=0)
    mean = block.mean(axis=0)
    # Once more, for the digits that the first mean of large values lost.
    mean = mean + (block - mean[None]).mean(axis=0)
    block = block - mean[None]
    peak = jnp.abs(block).max(axis=0)
    varies = ~is_rounding(peak, largest)
    peak = jnp.where(varies, peak, 1.0)
    return jnp.where(varies[None], block / peak[None], 0.0), mean, peak, largest


class Layout(NamedTuple):
    """Blocks of samples, and the coordinates of their features (`ridge.Statistics`)."""

    blocks: tuple[Int[Array, " _"], ...]
    coordinates: tuple[Float[Array, "_ p"], ...]
    offset: Float[Array, "F p"]
    count: Float[Array, " F"]


@jax.jit
@jax.default_matmul_precision("highest")
def tile(
    layout: Layout | None, values: Float[Array, "n v"], offset: Float[Array, "1 v"]
) -> Targets:
    """Return targets as they are, or their sums over blocks of samples."""
    if layout is None:
        return Samples(values, offset)
    rows = [values[block] for block in layout.blocks]
    means = jnp.stack([block.mean(axis=0) for block in rows])
    apart = [_about(block, mean) for block, mean in zip(rows, means, strict=True)]
    products = [y.T @ x for y, x in zip(apart, layout.coordinates, strict=True)]
    squares = jnp.stack([(block**2).sum(axis=0) for block in apart])
    return Sums(jnp.stack(products), means, squares, layout.offset, layout.count)


def _about(block, mean):
    """Return deviations from the mean, and 0 where they are rounding alone."""
    apart = block - mean[None]
    varies = jnp.abs(apart).max(axis=0) > 4 * jnp.finfo(jnp.float32).eps * jnp.abs(block).max(
        axis=0
    )
    return jnp.where(varies[None], apart, 0.0)


class Tile(NamedTuple):
    """Targets on the device, centred, with 1 as their largest value; zeros fill the last tile."""

    values: Float[Array, "n t"]
    offset: Float[Array, "1 t"]  # without an intercept, the mean in units of `peak`; else 0
    mean: Float[np.ndarray, " t"]
    peak: Float[np.ndarray, " t"]
    smallest: Float[np.ndarray, " t"]  # standard deviation of what counts as constant
    columns: range

    @property
    def size(self) -> int:
        """Number of targets, padding included."""
        return self.values.shape[1]

    def __len__(self) -> int:
        """Number of targets, without padding."""
        return len(self.columns)


def load(Y: Any, columns: range, width: int, *, intercept: bool) -> Tile:
    """Read targets, and shift and scale them so that float32 can hold them.

    Scores do not depend on shift and scale. Targets in float32 are normalised on the device.

    Args:
      Y: responses [n v]; see `read`.
      columns: which of them.
      width: of the tile.
      intercept: whether means need not be predicted.

    Raises:
      ValueError: if a target holds NaN or infinity.
    """
    block = read(Y, columns)
    fill = width - len(columns)
    block = np.pad(block, ((0, 0), (0, fill))) if fill else block
    if block.dtype == np.float32:
        values, *others = normalize(jax.device_put(block))
        mean, peak, largest = (np.asarray(x, np.float64) for x in others)
    else:
        values, mean, peak, largest = _normalize(block)
    if not np.isfinite(largest).all():
        raise ValueError(
            "Y must be finite: it holds NaN or infinity in columns "
            f"{columns.start}..{columns.stop - 1}."
        )
    smallest = (CONSTANT_TOLERANCE * largest / peak).astype(np.float32)
    offset = np.zeros_like(mean) if intercept else mean / peak
    return Tile(
        values, jax.device_put(offset.astype(np.float32)[None]), mean, peak, smallest, columns
    )


def read(Y: Any, columns: range) -> Float[np.ndarray, "n t"]:
    """Read some columns of responses, as float32 if they are that, else as float64.

    Args:
      Y: responses [n v], an array, or anything that slices as one, such as a tensorstore array.
      columns: which of them.
    """
    block = Y[:, columns.start : columns.stop]
    if hasattr(block, "read"):  # a tensorstore array
        block = block.read().result()
    block = np.asarray(block)
    return block if block.dtype == np.float32 else block.astype(np.float64)


def _normalize(block):
    """Do what `normalize` does, in float64 on the host."""
    largest = np.abs(block).max(axis=0)
    block = np.where(np.isfinite(largest), block, 0.0)  # refused, but not by a warning of NumPy's
    mean = block.mean(axis=0)
    block = block - mean
    peak = np.abs(block).max(axis=0)
    varies = ~is_rounding(peak, np.nan_to_num(largest))
    peak = np.where(varies, peak, 1.0)
    values = np.where(varies, block / peak, 0.0)
    return jax.device_put(values.astype(np.float32)), mean, peak, largest
