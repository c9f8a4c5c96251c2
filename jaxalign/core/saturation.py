"""Saturating curves v0 (1 - exp(-x / tau0)), fitted to very many series at once."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

# Series at a time; with the grid of tau0 they take some 50 MB.
CHUNK = 2**15
# Values of tau0 that are looked at before the best of them is refined, and halvings of its
# neighbourhood (a tenth of an e-fold), after which float64 is spent.
GRID, HALVINGS = 200, 52
# The grid goes from curves that are flat to rounding (1 - e⁻⁴⁰) at the first x, to curves that are
# straight to a part in 10⁶ at the last.
FLAT, STRAIGHT = 40.0, 1e6


class Curve(NamedTuple):
    """Parameters of each series; NaN where undefined."""

    v0: Float[np.ndarray, "*m"]
    tau0: Float[np.ndarray, "*m"]  # in units of x; NaN also where v0 is 0
    cost: Float[np.ndarray, "*m"]  # sum of squared differences


def fit(x: Float[np.ndarray, " k"], y: Float[np.ndarray, "*m k"]) -> Curve:
    """Fit v0 (1 - exp(-x / tau0)) by least squares, with 0 <= v0 <= 1 and tau0 > 0.

    For a given tau0 the best v0 is known in closed form, which leaves a search along one line: all
    of a fine grid, then halving by the sign of the derivative between the neighbours of its best.
    There is no starting point to depend on, and no failure to converge. A series that does not
    rise has a constant for its best curve (tau0 near 0); one without a positive trend has v0 = 0.

    Args:
      x: positive, ascending.
      y: what is measured at each x; NaN is left out. With fewer than two numbers a curve is
        undefined.

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
    size = min(CHUNK, 1 << max(len(flat) - 1, 0).bit_length())  # few sizes, few compilations
    parts = []
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        for start in range(0, len(flat), size):
            part = flat[start : start + size]
            padding = np.full((size - len(part), len(x)), np.nan)
            found = _fit(jax.device_put(x), jax.device_put(np.concatenate([part, padding])))
            parts.append(np.stack([np.asarray(z)[: len(part)] for z in found]))
    found = np.concatenate(parts, axis=1) if parts else np.empty((3, 0))
    return Curve(*(z.reshape(shape) for z in found))


@jax.jit
def _fit(x, y):
    weight = (~jnp.isnan(y)).astype(y.dtype)
    y = jnp.where(weight > 0, y, 0.0)
    grid = jnp.linspace(jnp.log(x[0] / FLAT), jnp.log(x[-1] * STRAIGHT), GRID)
    g = -jnp.expm1(-x[None] / jnp.exp(grid)[:, None])  # [GRID k]
    gy, gg = y @ g.T, weight @ (g**2).T
    v0 = jnp.clip(gy / gg, 0.0, 1.0)
    best = jnp.argmin(v0**2 * gg - 2 * v0 * gy, axis=1)
    low = grid[jnp.maximum(best - 1, 0)]
    high = grid[jnp.minimum(best + 1, GRID - 1)]

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        v0, g, decay = _curve(x, y, weight, middle)
        ratio = x[None] / jnp.exp(middle)[:, None]
        # d cost / d log tau0. That v0 follows tau0 adds nothing: it is optimal, or at its bound.
        slope = (weight * (y - v0[:, None] * g) * ratio * decay).sum(axis=1)
        return jnp.where(slope > 0, low, middle), jnp.where(slope > 0, middle, high)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    candidates = jnp.stack([(low + high) / 2, grid[best]])
    v0, cost = jax.vmap(functools.partial(_evaluate, x, y, weight))(candidates)
    first = cost[0] <= cost[1]
    log_tau, v0, cost = (jnp.where(first, z[0], z[1]) for z in (candidates, v0, cost))
    defined = weight.sum(axis=1) >= 2
    log_tau = jnp.where(v0 > 0, log_tau, jnp.nan)
    return tuple(jnp.where(defined, z, jnp.nan) for z in (v0, jnp.exp(log_tau), cost))


def _curve(x, y, weight, log_tau):
    """Return the best v0 at tau0 [m], and the curve of height 1 and its complement [m k]."""
    exponent = -x[None] / jnp.exp(log_tau)[:, None]
    g = -jnp.expm1(exponent)
    gg = (weight * g**2).sum(axis=1)
    return jnp.clip((y * g).sum(axis=1) / gg, 0.0, 1.0), g, jnp.exp(exponent)


def _evaluate(x, y, weight, log_tau):
    v0, g, _ = _curve(x, y, weight, log_tau)
    return v0, (weight * (y - v0[:, None] * g) ** 2).sum(axis=1)
