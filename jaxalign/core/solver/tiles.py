"""Tiles of targets: read, brought to one scale, and put sample by sample or as sums over blocks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxalign.core.metrics import CONSTANT_TOLERANCE, is_rounding
from jaxalign.core.solver.samples import Samples
from jaxalign.core.solver.sums import Sums

Targets = Samples | Sums


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


def axes(is_samples: bool) -> Any:
    """Return which axis of each part of `Samples` or of `Sums` is that of targets; None: none."""
    return (Samples, (1, 1)) if is_samples else (Sums, (1, 1, 1, None, None))


class Tile(NamedTuple):
    """Targets on the device, centred, with 1 as their largest value; zeros fill the last tile."""

    values: Float[Array, "n t"]
    offset: Float[Array, "1 t"]  # without an intercept, the mean in units of `peak`; else 0
    targets: Targets  # both, or their sums, which choices and scores share
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


def load(
    block: Float[np.ndarray, "n t"],
    columns: range,
    width: int,
    make: Callable[[Array, Array], Targets],
    *,
    intercept: bool,
) -> Tile:
    """Shift and scale targets so that float32 can hold them, and put them on the device.

    Scores do not depend on shift and scale. Targets in float32 are normalised on the device.

    Args:
      block: from `read`.
      columns: which of the responses these are.
      width: of the tile.
      make: makes targets of values and offset, by `tile` on the devices that are used.
      intercept: whether means need not be predicted.

    Raises:
      ValueError: if a target holds NaN or infinity.
    """
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
    offset = jax.device_put(offset.astype(np.float32)[None])
    return Tile(values, offset, make(values, offset), mean, peak, smallest, columns)


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
