"""Saturating curves v0 g(x / tau0), fitted to very many series at once."""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

# Series at a time, of few or of many: two sizes, two compilations. With the grid of tau0 many take
# some 50 MB.
FEW, CHUNK = 2**10, 2**15
# Values of tau0 that are looked at before the best of them is refined, and halvings of its
# neighbourhood (a tenth of an e-fold), after which float64 is spent.
GRID, HALVINGS = 200, 52
# The grid of tau0 goes from this part of the first x, where curves are flat to rounding, to this
# multiple of the last, where they have reached a millionth.
RANGE = {"exponential": (1 / 40, 1e6), "reliability": (1e-16, 1e12)}

Family = Literal["exponential", "reliability"]


class Curve(NamedTuple):
    """Parameters of each series; NaN where undefined."""

    v0: Float[np.ndarray, "*m"]
    tau0: Float[np.ndarray, "*m"]  # in units of x; NaN also where v0 is 0
    cost: Float[np.ndarray, "*m"]  # sum of squared differences


def fit(
    x: Float[np.ndarray, " k"], y: Float[np.ndarray, "*m k"], *, family: Family = "exponential"
) -> Curve:
    """Fit curves that rise from 0 to v0 by least squares, with 0 <= v0 <= 1 and tau0 > 0.

    "exponential" is v0 (1 - exp(-x / tau0)); "reliability" is v0 sqrt(x / (x + tau0)), the
    correlation with a mean of x measurements whose noise has tau0 times the variance of what they
    share.

    For a given tau0 the best v0 is known in closed form, which leaves a search along one line: all
    of a fine grid, then halving by the sign of the derivative between the neighbours of its best.
    There is no starting point to depend on, and no failure to converge. A series that does not
    rise has a constant for its best curve (tau0 near 0); one without a positive trend has v0 = 0.

    Args:
      x: positive, ascending.
      y: what is measured at each x; NaN is left out. With fewer than two numbers a curve is
        undefined.
      family: of curves.

    Raises:
      ValueError: if x is not as said, or its length not that of the last axis of y.
    """
    x = np.asarray(x, np.float64)
    if len(x) < 2 or not (np.isfinite(x).all() and x[0] > 0 and (np.diff(x) > 0).all()):
        raise ValueError(f"x must be at least 2 positive, ascending numbers, got {x.tolist()}.")
    if y.shape[-1] != len(x):
        raise ValueError(f"y must have one value per x: {len(x)}, got {y.shape[-1]}.")
    shape = y.shape[:-1]
    flat = np.asarray(y, np.float64).reshape(-1, len(x))
    size = FEW if len(flat) <= FEW else CHUNK
    parts = []
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        for start in range(0, len(flat), size):
            part = flat[start : start + size]
            padding = np.full((size - len(part), len(x)), np.nan)
            found = _fit(*map(jax.device_put, (x, np.concatenate([part, padding]))), family=family)
            parts.append(np.stack([np.asarray(z)[: len(part)] for z in found]))
    found = np.concatenate(parts, axis=1) if parts else np.empty((3, 0))
    return Curve(*(z.reshape(shape) for z in found))


@functools.partial(jax.jit, static_argnames="family")
def _fit(x, y, *, family):
    weight = (~jnp.isnan(y)).astype(y.dtype)
    y = jnp.where(weight > 0, y, 0.0)
    curve = functools.partial(_curve, family, x, y, weight)
    low, high = RANGE[family]
    grid = jnp.linspace(jnp.log(x[0] * low), jnp.log(x[-1] * high), GRID)
    g, _ = _shape(family, x, grid)
    gy, gg = y @ g.T, weight @ (g**2).T
    v0 = jnp.clip(gy / gg, 0.0, 1.0)
    best = jnp.argmin(v0**2 * gg - 2 * v0 * gy, axis=1)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        v0, g, change = curve(middle)
        # Half of d cost / d log tau0 over v0. That v0 follows tau0 adds nothing: it is optimal, or
        # at its bound.
        slope = -(weight * (y - v0[:, None] * g) * change).sum(axis=1)
        return jnp.where(slope > 0, low, middle), jnp.where(slope > 0, middle, high)

    bracket = (grid[jnp.maximum(best - 1, 0)], grid[jnp.minimum(best + 1, GRID - 1)])
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, bracket)
    found = []
    for log_tau in ((low + high) / 2, grid[best]):
        v0, g, _ = curve(log_tau)
        cost = (weight * (y - v0[:, None] * g) ** 2).sum(axis=1)
        found.append((v0, jnp.where(v0 > 0, jnp.exp(log_tau), jnp.nan), cost))
    refined, coarse = found
    defined = weight.sum(axis=1) >= 2
    choose = lambda a, b: jnp.where(defined, jnp.where(refined[2] <= coarse[2], a, b), jnp.nan)
    return tuple(map(choose, refined, coarse))


def _shape(family, x, log_tau):
    """Return curves of height 1 and their derivatives with respect to log tau0 [m k]."""
    x, tau = x[None], jnp.exp(log_tau)[:, None]
    if family == "exponential":
        return -jnp.expm1(-x / tau), -(x / tau) * jnp.exp(-x / tau)
    g = jnp.sqrt(x / (x + tau))
    return g, -g / 2 * (tau / (x + tau))


def _curve(family, x, y, weight, log_tau):
    """Return the best v0 at tau0 [m], and the curve and its derivative at height 1 [m k]."""
    g, change = _shape(family, x, log_tau)
    gg = (weight * g**2).sum(axis=1)
    return jnp.clip((y * g).sum(axis=1) / gg, 0.0, 1.0), g, change
