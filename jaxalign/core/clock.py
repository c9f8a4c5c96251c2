"""From words to TRs: the grid of TRs of each run, the TR of each word, and resampling."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core.features import Labels, members

Downsample = Literal["mean", "sum", "lanczos"]
DOWNSAMPLES: tuple[str, ...] = get_args(Downsample)
LANCZOS_LOBES = 3

# How many decimals a time may be given with; more are taken as exact.
_MOST_DECIMALS = 6
# Rounding never moves a word by more than this share of a TR: times that are few, or whole seconds
# by design, look coarser than they are.
_MOST_ROUNDING = 0.01


class Grid(NamedTuple):
    """TRs on which features are sampled: those recorded, those between, and those that lead up."""

    time_s: Float[np.ndarray, " m"]  # start of each TR
    run: np.ndarray  # run of each TR
    recorded: Int[np.ndarray, " n"]  # positions on the grid of the recorded samples


def numbers(time_s: Float[np.ndarray, " n"], tr_s: float) -> Int[np.ndarray, " n"]:
    """Return the number of each TR of a run, from 0; TRs that were left out have theirs.

    Args:
      time_s: start of each recorded TR, ascending.
      tr_s: repetition time.
    """
    return np.r_[0, np.cumsum(np.rint(np.diff(time_s) / tr_s))].astype(int)


def grid(time_s: Float[np.ndarray, " n"], run: Labels, tr_s: float, num_trs: int) -> Grid:
    """Extend each run backwards and fill its gaps, so that delays see what was heard there.

    Scans are often discarded or trimmed at the start of a run while the stimulus already plays, and
    censored where the head moved; a delay of two TRs looks at that time, not at nothing, and not at
    the sample that happens to be stored two rows before.

    Args:
      time_s: start of each recorded TR, ascending within a run.
      run: run of each TR; runs are contiguous.
      tr_s: repetition time.
      num_trs: TRs to add before each run.
    """
    times, runs, recorded, size = [], [], [], 0
    for name, rows in members(run).items():
        at = numbers(time_s[rows], tr_s)
        before = time_s[rows[0]] - tr_s * np.arange(num_trs, 0, -1)
        # A TR that was left out begins as many steps after the last one that was not.
        every = np.arange(at[-1] + 1)
        last = np.searchsorted(at, every, side="right") - 1
        times.append(np.r_[before, time_s[rows][last] + tr_s * (every - at[last])])
        runs += [name] * len(times[-1])
        recorded.append(size + num_trs + at)
        size = len(runs)
    return Grid(np.concatenate(times), np.asarray(runs), np.concatenate(recorded))


def tr_of_words(
    onset_s: Float[np.ndarray, " m"], time_s: Float[np.ndarray, " n"], tr_s: float
) -> Int[np.ndarray, " m"]:
    """Return the TR in which each word of a run begins: its place in `time_s`, or -1.

    Both times may be rounded, to milliseconds or to float32, and a word that begins with a TR then
    seems to begin just before it. A word is taken to begin with a TR if it does so but for the
    rounding of what was given: half the last decimal of the onsets, the departure of `time_s` from
    even steps, and the precision of float32 where values have no more.

    Args:
      onset_s: onset of each word; NaN where it is not known.
      time_s: start of each TR, without gaps; see `grid`.
      tr_s: repetition time.
    """
    known = onset_s[np.isfinite(onset_s)]
    if not len(known):
        return np.full(len(onset_s), -1)
    uneven = np.abs(time_s - np.linspace(time_s[0], time_s[-1], len(time_s))).max()
    rounding = _half_decimal(known) + uneven + _spacing(time_s)
    slack = min(rounding, _MOST_ROUNDING * tr_s) + 1e-9
    place = np.searchsorted(time_s - slack, onset_s, side="right") - 1
    return np.where((place >= 0) & (onset_s < time_s[-1] + tr_s - slack), place, -1)


def downsample(
    features: Float[np.ndarray, "m u"],
    onset_s: Float[np.ndarray, " m"],
    time_s: Float[np.ndarray, " n"],
    tr_s: float,
    method: Downsample,
) -> Float[np.ndarray, "n u"]:
    """Resample features of words to TRs, within one run.

    `mean` and `sum` take the words that begin in a TR (`tr_of_words`); a TR without a word is 0.
    `lanczos` is a low-pass filter at the Nyquist rate of the TRs, centred on the middle of the TR.

    Args:
      features: one row per word.
      onset_s: onset of each word; NaN where it is not known: such a word is in no TR.
      time_s: start of each TR, without gaps; see `grid`.
      tr_s: repetition time.
      method: how the words of a TR are combined.

    Source: the Lanczos window as in Huth et al. (2016), Nature 532, Methods.
    """
    if method == "lanczos":
        cycles = (time_s[:, None] + tr_s / 2 - onset_s[None, :]) / tr_s
        weights = np.sinc(cycles) * np.sinc(cycles / LANCZOS_LOBES)
        weights = np.where(np.abs(cycles) <= LANCZOS_LOBES, weights, 0.0)
    else:
        place = tr_of_words(onset_s, time_s, tr_s)
        weights = (place == np.arange(len(time_s))[:, None]).astype(np.float64)
        if method == "mean":
            weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
    return weights @ features


def _half_decimal(times: Float[np.ndarray, " m"]) -> float:
    """Return half of the last decimal that times have, and the precision that they are kept in."""
    spacing = _spacing(times)
    for decimals in range(_MOST_DECIMALS + 1):
        if np.abs(times - np.round(times, decimals)).max() <= spacing:
            return 0.5 * 10.0**-decimals + spacing
    return spacing


def _spacing(times: Float[np.ndarray, " m"]) -> float:
    """Return by how much the largest of these may be off: as float32 if all of them are."""
    largest = np.abs(times).max()
    if (times.astype(np.float32) == times).all():
        return float(np.spacing(np.float32(largest)))
    return 4 * float(np.spacing(largest))
