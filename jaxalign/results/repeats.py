"""Ceilings of single subjects -> rows: from repeats of stimuli, and of simulated signals."""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import features
from jaxalign.core.ceilings import ceiling, repeats
from jaxalign.core.inference.resampling import Bootstrap
from jaxalign.data.presentations import Repeats, SignalToNoise
from jaxalign.data.schema import Responses
from jaxalign.results import ceilings
from jaxalign.results.ceilings import Kind, Whose

NO_REPEATS = "no stimulus has two repeats, or no variance is left"
NOT_PUBLISHED = "the published ratio is NaN"
UNEVEN = "stimuli differ in number of repeats, or no variance is left"


def blocks(runs: Sequence[str], size: int) -> Int[np.ndarray, " n"]:
    """Label blocks of neighbouring samples, within each run; a run's last may be shorter.

    Args:
      runs: run of each sample; samples of a run are adjacent.
      size: samples of a block.
    """
    starts = np.flatnonzero([i == 0 or runs[i] != runs[i - 1] for i in range(len(runs))])
    place = np.arange(len(runs)) - np.repeat(starts, np.diff(np.append(starts, len(runs))))
    return np.cumsum(place % size == 0)


def rows(found: Repeats, block: int, how: Bootstrap, *, rois: Sequence[str] = ()) -> list[dict]:
    """Give ncsnr, noise ceiling and explainable variance of each target of one subject.

    Time courses are standardised within each repeat, for a scanner's unit differs from run to run;
    responses to single stimuli are taken as the data set has them.

    Args:
      found: of one subject.
      block: samples of time courses that are resampled together; single stimuli are by themselves.
      how: intervals are found, but for blocks.
      rois: those to keep; none means all.
    """
    keep = np.array([not rois or roi in rois for roi in found.roi], bool)
    values = found.values[:, :, keep].astype(np.float64)
    runs = list(found.run)
    labels = np.arange(len(runs))
    if not found.stimulus_id:
        values = np.stack([features.standardize(x, runs) for x in values])
        labels = blocks(runs, block)
    Y = values.transpose(0, 2, 1)
    index = np.flatnonzero(keep)
    names = [(found.roi[i], found.target[i]) for i in index.tolist()]
    how = how._replace(blocks=labels)
    twice = ((~np.isnan(Y)).sum(axis=0) >= 2).any(axis=1)
    whole = twice & np.isfinite(Y).all(axis=(0, 2))
    made = []
    whose = Whose(found.subject[0], names)
    kind = lambda name, scale, remark: Kind(name, scale, remark=remark)
    for named, function, able in (
        (kind("ncsnr", "ratio", NO_REPEATS), repeats.ncsnr, twice),
        (kind("noise_ceiling", "variance", NO_REPEATS), repeats.noise_ceiling, twice),
        (kind("explainable_variance", "variance", UNEVEN), repeats.explainable_variance, whole),
    ):
        estimates = np.full((3, len(names)), np.nan)
        if able.any():
            estimates[:, able] = function(Y[:, able], how)[:3]
        value, low, high = estimates
        estimated = ceiling.Ceiling(value, low, high, np.ones(len(names), int))
        made += ceilings.of_targets(named, estimated, whose)
    return made


def of_published(found: SignalToNoise, columns: Collection[tuple[str, str]]) -> list[dict]:
    """Give the published ncsnr of one subject, and the noise ceilings that follow from it.

    Args:
      found: of the subject.
      columns: ROI and target of those to keep, as the responses have them.
    """
    names = list(zip(found.roi, found.target, strict=True))
    keep = np.array([name in columns for name in names], bool)
    ratio = found.ratio[keep]
    share = repeats.of_ncsnr(ratio, found.tested)
    whose = Whose(found.subject, [name for name in names if name in columns])
    nothing = np.full(len(ratio), np.nan)
    made = []
    for name, scale, value in (
        ("ncsnr_published", "ratio", ratio),
        ("noise_ceiling_published", "variance", share),
        ("noise_ceiling_root", "r", np.sqrt(share)),
    ):
        kind = Kind(name, scale, interval="", remark=NOT_PUBLISHED)
        estimated = ceiling.Ceiling(value, nothing, nothing, np.ones(len(ratio), int))
        made += ceilings.of_targets(kind, estimated, whose)
    return made


def of_signal(responses: Responses, tests: Sequence[Int[np.ndarray, " _"]]) -> list[dict]:
    """Correlate simulated responses with their noiseless signal: the true ceilings.

    Args:
      responses: with the signal.
      tests: test samples of each fold.
    """
    r = ceiling.correlation(responses.signal.T, responses.values.T, tests)
    nothing: Float[np.ndarray, " v"] = np.full(len(r), np.nan)
    made = []
    for subject, columns in features.members(list(responses.subject)).items():
        names = [(str(responses.roi[i]), str(responses.target[i])) for i in columns.tolist()]
        num = np.ones(len(columns), int)
        part = ceiling.Ceiling(r[columns], nothing[columns], nothing[columns], num)
        made += ceilings.of_targets(Kind("signal", interval=""), part, Whose(subject, names))
    return made
