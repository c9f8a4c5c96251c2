"""Agreement of predicted and recorded responses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# A column whose spread is below this fraction of its largest value is constant in float32: what
# is left is rounding of the mean.
CONSTANT_TOLERANCE = 1e-6


def _centre(x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Return centred columns (0 where weight is 0), their sum of squares, and whether they vary."""
    count = weight.sum()
    mean = (x * weight[:, None]).sum(axis=0) / count
    centred = (x - mean[None]) * weight[:, None]
    square = (centred**2).sum(axis=0)
    largest = jnp.max(jnp.abs(x) * weight[:, None], axis=0)
    return centred, square, square > count * (CONSTANT_TOLERANCE * largest) ** 2


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
    a, aa, a_varies = _centre(predicted, weight)
    b, bb, b_varies = _centre(recorded, weight)
    r = (a * b).sum(axis=0) / jnp.sqrt(aa * bb)
    return jnp.where(a_varies & b_varies, r, jnp.nan)


@jax.jit
def r2(
    predicted: Float[Array, "n v"], recorded: Float[Array, "n v"], weight: Float[Array, " n"]
) -> Float[Array, " v"]:
    """Coefficient of determination, 1 - SSE/SST, column by column; NaN for a constant response.

    SST is about the mean of the rows given, as in scikit-learn's `r2_score`.

    Args:
      predicted: predictions.
      recorded: responses.
      weight: 1 for the rows that count, 0 for padding.
    """
    _, total, varies = _centre(recorded, weight)
    error = ((predicted - recorded) ** 2 * weight[:, None]).sum(axis=0)
    return jnp.where(varies, 1 - error / total, jnp.nan)
