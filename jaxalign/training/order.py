"""The order of rows: which of them are in the batch of a step, from the seed and the step alone."""

import functools

import numpy as np
from jaxtyping import Int


def num_steps(epochs: float, *, batch: int, num_rows: int) -> int:
    """Return how many whole batches some epochs are.

    52,002 rows in batches of 128 for 3 epochs are 1,218, as published for Alpaca.

    Args:
      epochs: how often each row is seen.
      batch: rows of a step.
      num_rows: of the data.
    """
    return int(epochs * num_rows) // batch


def rows(step: int, *, seed: int, batch: int, num_rows: int) -> Int[np.ndarray, " b"]:
    """Return the rows of a step.

    Epochs follow each other without a gap, each in an order of its own, so that a batch may hold
    the last rows of one and the first of the next. Nothing is remembered: what resumes at a step
    sees what it would have seen.

    Args:
      step: from 0 on.
      seed: of the order; arms with the same seed see the same rows.
      batch: rows of a step.
      num_rows: of the data.
    """
    epochs, places = np.divmod(step * batch + np.arange(batch), num_rows)
    found = np.empty(batch, np.int64)
    for epoch in np.unique(epochs):
        of_epoch = epochs == epoch
        found[of_epoch] = _permutation(seed, int(epoch), num_rows)[places[of_epoch]]
    return found


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_rows)
