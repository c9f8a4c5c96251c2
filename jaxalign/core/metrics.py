"""Agreement of predictions and responses, and means of what is defined."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, Shaped

# A column that varies by less than this fraction of its largest value is constant: what is left is
# the rounding of float32, in which recordings and activations are stored, whatever holds them now.
CONSTANT_TOLERANCE = 1e-6
# What varies by less than this in any unit is what underflow leaves (all-MiniLM-L6-v2 has output
# units near 1e-33 on ordinary sentences).
NEGLIGIBLE = 1e-32


def is_rounding(spread: Any, largest: Any) -> Any:
    """Return whether the spread of a column is rounding: the one rule of what counts as constant.

    A column is compared with itself alone, so the rule does not depend on units, nor on columns in
    other units next to it.

    Args:
      spread: standard deviation, range or largest deviation of each column.
      largest: magnitude of each column, the largest of its values.
    """
    return (spread <= CONSTANT_TOLERANCE * largest) | (spread <= NEGLIGIBLE)


def precision(x: Any) -> float:
    """Return the relative rounding of numbers: that of float32 where it can hold them all.

    Args:
      x: numbers, whatever type holds them now.
    """
    x = np.asarray(x)
    with np.errstate(over="ignore"):
        is_narrow = x.dtype.kind == "f" and (
            x.dtype.itemsize <= 4 or np.array_equal(x, x.astype(np.float32))
        )
    return float(np.finfo(np.float32 if is_narrow else np.float64).eps) / 2


def is_constant(x: Shaped[np.ndarray, "..."], axis: int = 0) -> Bool[np.ndarray, "..."]:
    """Return whether numbers are the same along an axis, up to the rounding of float32.

    Args:
      x: numbers.
      axis: along which.
    """
    low, high = np.min(x, axis=axis), np.max(x, axis=axis)  # without a copy of many targets
    return np.asarray(is_rounding(high - low, np.maximum(np.abs(low), np.abs(high))))


def _centre(x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Return centred columns (0 where weight is 0), their largest values, and whether they vary."""
    keep = weight[:, None]
    mean = (x * keep).sum(axis=0) / weight.sum()
    centred = (x - mean[None]) * keep
    peak = jnp.abs(centred).max(axis=0)
    return centred, peak, ~is_rounding(peak, jnp.max(jnp.abs(x) * keep, axis=0))


def divide(a: Num[np.ndarray, "..."], b: Num[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Divide; NaN where the divisor is not positive, as a variance or a count has to be.

    Args:
      a: what is divided; broadcast with b.
      b: the divisor.
    """
    shape = np.broadcast_shapes(np.shape(a), np.shape(b))
    return np.divide(a, b, out=np.full(shape, np.nan), where=b > 0)


def mean_defined(
    values: Float[np.ndarray, "..."], axis: int | tuple[int, ...] | None = None
) -> Float[np.ndarray, "..."]:
    """Return the mean of the defined values; NaN without any.

    Infinity is a value, not a lack of one: it makes a mean infinite.

    Args:
      values: NaN where undefined.
      axis: over which; None: over all.
    """
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=axis)
    return divide(np.asarray(total), np.asarray(defined.sum(axis=axis)))


def median_defined(
    values: Float[np.ndarray, "..."], axis: int | None = None
) -> Float[np.ndarray, "..."]:
    """Return the median of the defined values; NaN without any.

    Args:
      values: NaN where undefined.
      axis: over which; None: over all.
    """
    undefined = np.isnan(values)
    none = undefined.all(axis=axis, keepdims=True)
    if not values.size:
        return np.full(np.squeeze(none, axis=axis).shape, np.nan)
    if not undefined.any():  # the same, without masks that take ten times as long
        return np.asarray(np.median(values, axis=axis))
    # Without a number to take the place, NumPy would warn of a median of nothing.
    found = np.nanmedian(np.where(none, 0.0, values), axis=axis)
    return np.where(np.squeeze(none, axis=axis), np.nan, found)


@jax.jit
def pearson_r(
    predicted: Float[Array, "n v"], recorded: Float[Array, "n v"], weight: Float[Array, " n"]
) -> Float[Array, " v"]:
    """Correlate column by column; NaN where either column is constant.

    Args:
      predicted: predictions.
      recorded: responses.
      weight: 1 for the rows that count, 0 for padding.
    """
    a, a_peak, a_varies = _centre(predicted, weight)
    b, b_peak, b_varies = _centre(recorded, weight)
    # Squares of very small or large units would leave the range of float32.
    a, b = a / a_peak[None], b / b_peak[None]
    r = (a * b).sum(axis=0) / jnp.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return jnp.where(a_varies & b_varies, r, jnp.nan)
