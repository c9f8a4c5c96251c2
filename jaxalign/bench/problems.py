"""Seeded features and targets of any size, in memory or on disk."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
from jaxtyping import Float, Int

TILE = 1024  # targets that are drawn, and stored, at a time


class Problem(NamedTuple):
    """What fixes features and targets.

    Attributes:
      n: samples.
      p: features.
      v: targets.
      decay: see `features`.
      seed: of all draws.
    """

    n: int
    p: int
    v: int
    decay: float
    seed: int


def features(n: int, p: int, *, decay: float, seed: int) -> Float[np.ndarray, "n p"]:
    """Draw features: standard normal times a power-law spectrum of unit mean variance, float32.

    Args:
      n: samples.
      p: features.
      decay: the variance of feature j is proportional to (j + 1)^-decay.
      seed: of the draw.
    """
    X = np.random.default_rng([seed, 0]).standard_normal((n, p), dtype=np.float32)
    variance = np.arange(1, p + 1, dtype=np.float64) ** -decay
    X *= np.sqrt(variance / variance.mean()).astype(np.float32)
    return X


def targets(X: Float[np.ndarray, "n p"], tile: range, *, seed: int) -> Float[np.ndarray, "n w"]:
    """Draw the targets of one tile: X W, scaled, plus white noise of unit variance, float32.

    The signal's variance is uniform in 0 to 1, in units of the noise's; of a quarter of the
    targets, drawn at random, it is 0.

    Args:
      X: from `features`.
      tile: places of the targets, one of `tiles`.
      seed: of the draw.
    """
    rng = np.random.default_rng([seed, 1, tile.start])
    signal = X @ rng.standard_normal((X.shape[1], len(tile)), dtype=np.float32)
    ratio = rng.uniform(size=len(tile))
    ratio[rng.permutation(len(tile))[: round(len(tile) / 4)]] = 0
    signal *= (np.sqrt(ratio) / signal.std(axis=0, dtype=np.float64)).astype(np.float32)
    signal += rng.standard_normal(signal.shape, dtype=np.float32)
    return signal


def tiles(v: int) -> list[range]:
    """Cut so many targets into tiles."""
    return [range(a, min(a + TILE, v)) for a in range(0, v, TILE)]


def write(folder: pathlib.Path, problem: Problem, *, on_disk: bool) -> None:
    """Draw a problem and put it into a folder; with `on_disk` it is never in memory whole.

    Args:
      folder: an empty one.
      problem: what is drawn.
      on_disk: store the targets as a zarr3 array, which `read` opens without reading it.
    """
    n, p, v, decay, seed = problem
    X = features(n, p, decay=decay, seed=seed)
    np.save(folder / "X.npy", X)
    if not on_disk:
        Y = np.concatenate([targets(X, tile, seed=seed) for tile in tiles(v)], axis=1)
        np.save(folder / "Y.npy", Y)
        return
    grid = {"name": "regular", "configuration": {"chunk_shape": [n, TILE]}}
    metadata = {"shape": [n, v], "data_type": "float32", "chunk_grid": grid}
    array = ts.open(_spec(folder) | {"metadata": metadata}, create=True).result()
    for tile in tiles(v):
        array[:, tile.start : tile.stop].write(targets(X, tile, seed=seed)).result()


def read(folder: pathlib.Path) -> tuple[Float[np.ndarray, "n p"], Any]:
    """Return features, and targets [n v] as an array or, if on disk, as a tensorstore array."""
    X = np.load(folder / "X.npy")
    if (folder / "Y.npy").exists():
        return X, np.load(folder / "Y.npy")
    return X, ts.open(_spec(folder)).result()


def columns(Y: Any, places: Int[np.ndarray, " w"]) -> Float[np.ndarray, "n w"]:
    """Return some of the targets that `read` gave."""
    found = Y[:, places]
    return found if isinstance(found, np.ndarray) else found.read().result()


def _spec(folder: pathlib.Path) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / "Y.zarr")}}
