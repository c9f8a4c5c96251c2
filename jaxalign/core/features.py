"""From features of samples to a design matrix: delays, shifts, projections."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core.metrics import is_rounding, precision

# Of each sample: its run, its passage.
Labels = Sequence | np.ndarray


def members(labels: Labels) -> dict[Any, Int[np.ndarray, " m"]]:
    """Return the positions of each label, labels in the order of their first appearance.

    Args:
      labels: run, passage or the like of each sample; or a tuple of several.
    """
    places = defaultdict(list)
    for i, label in enumerate(labels.tolist() if isinstance(labels, np.ndarray) else labels):
        places[label].append(i)
    return {label: np.array(found) for label, found in places.items()}


def delay(
    features: Float[np.ndarray, "n u"], run: Labels, delays: Sequence[int]
) -> Float[np.ndarray, "n du"]:
    """Put copies side by side, each later by one of `delays`; 0 where a run has no such past.

    Args:
      features: one row per TR.
      run: run of each row; a delay never reaches into another run.
      delays: in TRs, not negative.
    """
    labels = np.asarray(run)
    rows = np.arange(len(features))
    copies = []
    for steps in delays:
        source = np.maximum(rows - steps, 0)
        valid = (rows >= steps) & (labels[source] == labels)
        copies.append(np.where(valid[:, None], features[source], 0.0))
    return np.concatenate(copies, axis=1)


def shift(
    features: Float[np.ndarray, "n u"], run: Labels, share: float
) -> Float[np.ndarray, "n u"]:
    """Roll features within each run: the same features, at the wrong time.

    Args:
      features: one row per sample.
      run: run of each row.
      share: of a run's length to roll by, between 0 and 1; rounded to at least one sample.

    Raises:
      ValueError: if a run has a single sample, which can be at no wrong time.
    """
    shifted = np.empty_like(features)
    for name, rows in members(run).items():
        if len(rows) < 2:
            raise ValueError(
                f"Every run must have at least 2 samples to be shifted: {name!r} has 1."
            )
        steps = min(max(round(share * len(rows)), 1), len(rows) - 1)
        shifted[rows] = np.roll(features[rows], steps, axis=0)
    return shifted


def shuffle(
    features: Float[np.ndarray, "n u"], blocks: Labels, rng: np.random.Generator
) -> Float[np.ndarray, "n u"]:
    """Permute the rows of each block at random: the same features, at any other time.

    Args:
      features: one row per sample.
      blocks: of each row, its run for instance; the same label everywhere permutes all rows.
      rng: draws the permutations.
    """
    shuffled = np.empty_like(features)
    for rows in members(blocks).values():
        shuffled[rows] = features[rng.permutation(rows)]
    return shuffled


def standardize(values: Float[np.ndarray, "n v"], run: Labels) -> Float[np.ndarray, "n v"]:
    """Scale each column to mean 0 and variance 1 within each run; a constant one becomes 0.

    A column that is dead in a run but for rounding, of its size in all runs, counts as constant
    there: scaled, rounding would look like a signal.

    Args:
      values: one row per sample.
      run: run of each row.
    """
    out = np.zeros_like(values)
    largest = np.abs(values).max(axis=0, initial=0)
    for rows in members(run).values():
        centred = values[rows] - values[rows].mean(axis=0)
        peak = np.abs(centred).max(axis=0)
        varies = ~is_rounding(peak, largest)
        # Squares of very small or large units would leave the range of the type.
        centred = np.divide(centred, peak, out=np.zeros_like(centred), where=varies)
        out[rows] = np.divide(centred, centred.std(axis=0), out=centred, where=varies)
    return out


def detrend(
    values: Float[np.ndarray, "n v"],
    run: Labels,
    time_s: Float[np.ndarray, " n"],
    *,
    degree: int = 2,
) -> Float[np.ndarray, "n v"]:
    """Take the polynomial of time that fits best out of each column, within each run.

    A column that is constant but for rounding, of its size in all runs, becomes 0.

    Args:
      values: one row per sample.
      run: of each row. Of a run of fewer than ten samples for each power the mean alone is taken
        out: a polynomial would be most of it.
      time_s: of each row, ascending within runs; with gaps where samples were left out.
      degree: of the polynomial.
    """
    out = np.empty_like(values)
    largest = np.abs(values).max(axis=0, initial=0)
    for rows in members(run).values():
        powers = degree if len(rows) >= 10 * degree else 0
        since = time_s[rows] - time_s[rows[0]]
        basis = np.linalg.qr(np.vander(2 * since / (since[-1] or 1.0) - 1, powers + 1))[0]
        rest = values[rows] - basis @ (basis.T @ values[rows])
        out[rows] = np.where(is_rounding(np.abs(rest).max(axis=0), largest), 0.0, rest)
    return out


def principal_components(
    features: Float[np.ndarray, "n u"], train: Int[np.ndarray, " R"], num_components: int
) -> Float[np.ndarray, "n c"]:
    """Project all rows on the leading principal components of the training rows.

    Args:
      features: one row per sample.
      train: rows that the components are fitted on.
      num_components: at most the units, and fewer than the training rows. Beyond the rank of
        the training rows, components are 0, but of rows that lie outside their span.

    Raises:
      ValueError: if the training rows do not have so many components.
    """
    most = min(len(train) - 1, features.shape[1])
    if not 1 <= num_components <= most:
        raise ValueError(f"num_components must lie in 1..{most}, got {num_components}.")
    rounding = precision(features) ** 2
    features = np.asarray(features, np.float64)
    peak = np.abs(features[train]).max(initial=0) or 1.0
    features = features / peak  # squares of very small or large units would be 0 or infinite
    mean = features[train].mean(axis=0)
    centred = features[train] - mean
    is_tall = centred.shape[1] <= centred.shape[0]
    spectrum, axes = np.linalg.eigh(centred.T @ centred if is_tall else centred @ centred.T)
    # Beyond the rank of the training rows there is no component; what rounding leaves there must
    # not be scaled up.
    least = len(spectrum) * np.finfo(np.float64).eps * spectrum[-1]
    real = spectrum > max(least, rounding * (features[train] ** 2).sum())
    if not is_tall:
        scale = np.divide(
            1, np.sqrt(np.maximum(spectrum, 0)), out=np.zeros_like(spectrum), where=real
        )
        axes = centred.T @ axes * scale
    projected = (features - mean) @ axes
    # Other rows may leave the span of the training rows, into whose delays they come.
    noise = np.abs(projected) <= 1e-6 * np.abs(projected).max(initial=0)
    projected[:, ~real] = np.where(noise[:, ~real], 0.0, projected[:, ~real])
    return peak * projected[:, ::-1][:, :num_components]
