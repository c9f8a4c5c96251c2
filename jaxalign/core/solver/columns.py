"""Features of any number, in float64 in blocks of columns: no copy of them all is held."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int

from jaxalign.core import metrics
from jaxalign.core.metrics import is_rounding

Matrix = Float64[np.ndarray, "_ _"] | Float64[Array, "_ _"]

# Numbers of a block: 256 MB in float64.
BLOCK = 2**25


def on_host() -> bool:
    """Whether to factorise with NumPy.

    NumPy needs no compilation, and its LAPACK takes two thirds of the time of jaxlib's.
    """
    return jax.default_backend() == "cpu"


class Columns:
    """Features of samples, divided by a unit each, and read in blocks of columns.

    A ridge on X / u with penalties alpha / u^2 is the one on X with alpha, so what is computed in
    float32 does not depend on the units that features come in.

    Attributes:
      given: features [n p] as they came, of any type and in memory or mapped from a file.
      units: what each feature is divided by, powers of two [p].
    """

    def __init__(self, X: Any, units: Float[np.ndarray, " p"] | None = None, block: int = BLOCK):
        """Take features as they are; see the class for `X` and `units`.

        Args:
          X: features [n p].
          units: None: 1 for each.
          block: numbers of a block.
        """
        self.given = np.asarray(X)
        self.units = np.ones(self.given.shape[1]) if units is None else units
        self._block = block

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and features."""
        n, p = self.given.shape
        return n, p

    def parts(self) -> list[slice]:
        """Return the columns of each block."""
        n, p = self.shape
        number = max(-(-n * p // self._block), 1)
        width = max(-(-p // number), 1)
        return [slice(a, min(a + width, p)) for a in range(0, p, width)] or [slice(0, 0)]

    @property
    def is_one_block(self) -> bool:
        """Whether a block holds all features."""
        return len(self.parts()) == 1

    def blocks(self) -> Iterator[Matrix]:
        """Yield features [n c] in their units, in float64, on the device that factorises them."""
        if self.is_one_block:
            yield self.whole
            return
        for part in self.parts():
            yield _place(self._read(part))

    @functools.cached_property
    def whole(self) -> Matrix:
        """All features, for what takes them at once; kept until `forget`."""
        found = np.empty(self.shape)
        for part in self.parts():
            found[:, part] = self._read(part)
        return _place(found)

    def forget(self) -> None:
        """Let go of the copy of all features, if there is one."""
        self.__dict__.pop("whole", None)

    def _read(self, part: slice) -> Float64[np.ndarray, "n c"]:
        return self.given[:, part] / self.units[part].astype(np.float64)[None]

    @functools.cached_property
    def precision(self) -> float:
        """Relative rounding of the numbers that were given; see `metrics.precision`."""
        return min(metrics.precision(self.given[:, part]) for part in self.parts())

    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        return all(bool(np.isfinite(self.given[:, part]).all()) for part in self.parts())

    def varying(self, train: Int[np.ndarray, " R"]) -> Bool[np.ndarray, " p"]:
        """Return which features vary over a training set.

        Args:
          train: indices of the training samples.
        """
        return np.concatenate([self._varying(train, part) for part in self.parts()])

    def _varying(self, train, part):
        rows, unit = self.given[train, part], self.units[part].astype(np.float64)
        low, high = rows.min(axis=0) / unit, rows.max(axis=0) / unit
        largest = np.maximum(np.abs(low), np.abs(high))
        # Two values so far apart have at least this standard deviation, whatever the others are.
        least = ((high - low) / np.sqrt(2 * len(rows))) ** 2
        found = feature_scale(np, largest, least, standardize=False) > 0
        unclear = np.flatnonzero(~found)
        variance = (rows[:, unclear] / unit[unclear]).var(axis=0)
        found[unclear] = feature_scale(np, largest[unclear], variance, standardize=False) > 0
        return found

    def differ(self, rows: Int[np.ndarray, " T"], among: Bool[np.ndarray, " p"]) -> bool:
        """Whether some samples differ in a feature.

        Args:
          rows: indices of the samples.
          among: features that count.
        """
        for part in self.parts():
            some = self.given[rows, part][:, among[part]]
            if (some != some[:1]).any():
                return True
        return False


def _place(block: Float64[np.ndarray, "n c"]) -> Matrix:
    if on_host():
        return block
    with jax.enable_x64(True):
        return jnp.asarray(block)


def units(
    X: Float[np.ndarray, "n p"], *, each: bool, intercept: bool, block: int = BLOCK
) -> Float[np.ndarray, " p"]:
    """Return the units of features in which they are neither large nor small, powers of two.

    Args:
      X: features of all samples.
      each: a unit for each feature, as is right where they are scaled; else one for all.
      intercept: whether deviations from the mean count, or values.
      block: numbers that are looked at at a time.
    """
    columns = Columns(X, block=block)
    peak = np.zeros(columns.shape[1])
    for part in columns.parts():
        some = columns.given[:, part].astype(np.float64)
        largest = np.abs(some).max(axis=0)
        apart = np.abs(some - some.mean(axis=0)).max(axis=0) if intercept else largest
        peak[part] = np.where(is_rounding(apart, largest), 0.0, apart)
    if not each:
        peak = np.full(len(peak), peak.max(initial=0.0))
    exponent = np.floor(np.log2(peak, out=np.zeros_like(peak), where=peak > 0))
    return 2.0**exponent


def feature_scale(
    xp: Any, largest: Any, variance: Any, standardize: bool, intercept: bool = True
) -> Any:
    """Return the factor of each feature, 0 for constant ones.

    Args:
      xp: numpy, or jax.numpy.
      largest: magnitude of each feature over the training set [p].
      variance: of each feature [p].
      standardize: bring features to unit variance.
      intercept: whether there is one; if not, a constant feature takes its place and is kept.
    """
    sd = xp.sqrt(variance)
    constant = is_rounding(sd, largest)
    scale = 1 / xp.where(constant, 1.0, sd) if standardize else xp.ones_like(sd)
    # Without an intercept, a constant feature is what can take its place.
    return xp.where(constant & intercept, 0.0, scale)
