"""What a check found, and how far apart two sets of states are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "FAILED", "not checked"
STATUSES = (OK, WARNING, FAILED, SKIPPED)


class Finding(NamedTuple):
    """What one check found.

    Attributes:
      check: what was asked, a few words.
      status: of `STATUSES`.
      said: the answer with its numbers, a sentence without a stop.
    """

    check: str
    status: str
    said: str


def judged(check: str, holds: bool, said: str) -> Finding:
    """Return the finding of a check that holds or has failed."""
    return Finding(check, OK if holds else FAILED, said)


def table(findings: Sequence[Finding]) -> pd.DataFrame:
    """Return findings as a table of three columns."""
    return pd.DataFrame(findings, columns=list(Finding._fields))


def spread(states: Float[np.ndarray, "L m D"]) -> Float[np.ndarray, " L"]:
    """Return how far the vectors of each layer are from their centre, as the median distance.

    Centre and distance are medians: one token with large values, as the first one of many
    networks, does not count. Where all vectors are the same it is their length.
    """
    states = states.astype(np.float64)
    centre = np.median(states, axis=1, keepdims=True)
    found = np.median(np.linalg.norm(states - centre, axis=-1), axis=1)
    return np.where(found > 0, found, np.linalg.norm(states, axis=-1).max(axis=1))


def apart(
    found: Float[np.ndarray, "L m D"], expected: Float[np.ndarray, "L m D"]
) -> Float[np.ndarray, "L m"]:
    """Return the distance of each vector from what was expected, in units of `spread`.

    A regression sees what differs between vectors, so that is the scale of an error. What is not
    finite is infinitely far away.
    """
    distance = np.linalg.norm(found.astype(np.float64) - expected, axis=-1)
    scale = spread(expected)[:, None]
    ratio = np.where(distance > 0, distance / np.where(scale > 0, scale, 1), 0)
    return np.where(np.isfinite(distance), ratio, np.inf)


def farthest(ratio: Float[np.ndarray, "L m"]) -> tuple[float, int]:
    """Return the largest distance of `apart`, and its layer."""
    by_layer = ratio.max(axis=1)
    return float(by_layer.max()), int(by_layer.argmax())
