"""Simulated features of one model under several instructions, and voxels planted from some."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core.solver import partition
from jaxalign.data.schema import Responses

NONE = -1  # in the place of an instruction: noise alone
# Columns that `partition_by_roi` fills.
PARTITION = (
    *("subject", "roi", "score_first", "score_second", "score_joint"),
    *("unique_first", "shared", "unique_second", "num_targets", "num_undefined"),
)


class Simulated(NamedTuple):
    """Features of each instruction, and responses that are made of them."""

    features: Float[np.ndarray, "i n p"]
    responses: Responses  # with the noiseless signal; 0 where noise is all there is
    planted: Int[np.ndarray, " v"]  # index of the first instruction, or `NONE`


class Roi(NamedTuple):
    """A region, and which instructions its voxels follow: indices, or `NONE`."""

    name: str
    planted: int
    second: int = NONE


class Setting(NamedTuple):
    """Sizes and shares of a simulation.

    Attributes:
      num_subjects: who share features and stimuli, and nothing else.
      num_voxels: of each subject in each ROI.
      num_samples: n, stimuli.
      num_units: of either component; p is twice as many.
      common: share of the signal's variance that the common component has, within 0..1.
      second_share: q, within 0..1; below a half the first instruction wins.
      noise_sd: in units of the signal's standard deviation; of voxels of noise alone, too.
    """

    num_subjects: int
    num_voxels: int
    num_samples: int
    num_units: int
    common: float
    second_share: float
    noise_sd: float


def simulate(
    num_instructions: int, rois: Sequence[Roi], setting: Setting, *, rng: np.random.Generator
) -> Simulated:
    """Draw features that instructions share in part, and voxels that follow one or two of them.

    All instructions have one component in common, of `num_units` units, and each has another of as
    many units of its own; all are independent and normal. A model's units mix the two: a random
    rotation, of each instruction by itself, so that no single unit belongs to either component.
    A voxel planted from instruction i has the signal sqrt(common) S w + sqrt(1 - common) O_i u, of
    unit variance, with weights w and u of its own, and noise that is its own too. So with R the
    share of its variance that the signal has, 1 / (1 + noise_sd^2), and in large samples:
    instruction i explains R, any other one common R, the two together R, of which common R is
    shared, (1 - common) R is of i alone, and nothing is of the other alone. Where there is a second
    instruction j, it has the share q of what is not common: i alone explains
    (1 - common) (1 - q) R, j alone (1 - common) q R.

    Args:
      num_instructions: i.
      rois: at least one.
      setting: sizes and shares.
      rng: source of all draws.

    Raises:
      ValueError: if an index is of no instruction, or there is a second one without a first.
    """
    for roi in rois:
        for argument, index in (("planted", roi.planted), ("second", roi.second)):
            if not NONE <= index < num_instructions:
                raise ValueError(f"{argument} must be {NONE}..{num_instructions - 1}, got {index}.")
        if roi.planted == NONE != roi.second:
            raise ValueError("second must be NONE where planted is.")
    n, num_voxels = setting.num_samples, setting.num_voxels
    common, noise_sd = setting.common, setting.noise_sd
    shared = rng.standard_normal((n, setting.num_units))
    single = rng.standard_normal((num_instructions, n, setting.num_units))
    features = np.stack(
        [np.hstack([shared, part]) @ _rotation(rng, 2 * setting.num_units) for part in single]
    )
    subject, names, target, sources, signals = [], [], [], [], []
    for s in range(setting.num_subjects):
        for roi in rois:
            signal = np.zeros((n, num_voxels))
            share = setting.second_share if roi.second != NONE else 0.0
            for part, index in ((1 - share, roi.planted), (share, roi.second)):
                if index != NONE:
                    weight = np.sqrt((1 - common) * part)
                    signal += weight * _projections(rng, single[index], num_voxels)
            if roi.planted != NONE:
                signal += np.sqrt(common) * _projections(rng, shared, num_voxels)
            signals.append(signal)
            subject += [f"s{s + 1:02d}"] * num_voxels
            names += [roi.name] * num_voxels
            # Voxels have weights of their own, so no two subjects have one in common.
            target += [f"s{s + 1:02d}.{i:04d}" for i in range(num_voxels)]
            sources += [roi.planted] * num_voxels
    signal = np.hstack(signals)
    values = signal + noise_sd * rng.standard_normal(signal.shape)
    responses = Responses(
        values=values,
        run=["simulated"] * n,
        subject=subject,
        roi=names,
        target=target,
        units="standard deviations of the signal",
        stimulus_id=[f"image{i:05d}" for i in range(n)],
        signal=signal,
    )
    return Simulated(features, responses, np.array(sources))


def describe(rois: Sequence[str], planted: Sequence[str], second: Sequence[str]) -> str:
    """Say which instructions each ROI follows.

    Args:
      rois: names.
      planted: name of the instruction of each; "": noise alone.
      second: name of a second one; "": none.
    """
    found = []
    for roi, first, other in zip(rois, planted, second, strict=True):
        both = f"{first} and less {other}" if other else first or "noise alone"
        found.append(f"{roi} from {both}")
    return ", ".join(found)


def _rotation(rng, size):
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def _projections(rng, component, num):
    """Return random combinations of a component's units, of unit variance in the population."""
    weights = rng.standard_normal((component.shape[1], num))
    return component @ (weights / np.sqrt((weights**2).sum(axis=0)))


def partition_by_roi(
    first: Float[np.ndarray, " v"],
    second: Float[np.ndarray, " v"],
    joint: Float[np.ndarray, " v"],
    responses: Responses,
) -> list[dict]:
    """Average scores over the voxels of each subject and ROI, and divide the averages.

    A voxel enters if all three of its scores are defined. Nothing is clipped.

    Args:
      first: score of the features of one instruction, R2 or normalised r.
      second: of those of another.
      joint: of both together.
      responses: whose targets these are.

    Returns:
      A dict for each subject and ROI: `score_first`, `score_second`, `score_joint`, the parts
      `unique_first`, `shared` and `unique_second`, `num_targets`, and `num_undefined`, the targets
      that are in no mean. NaN where none is defined.

    Source: Oota et al. (2025), arXiv 2506.08277, appendix M: shared = a + b - ab.
    """
    scores = np.stack([first, second, joint])
    known = np.isfinite(scores).all(axis=0)
    pairs = np.array(list(zip(responses.subject, responses.roi, strict=True)))
    rows = []
    for subject, roi in dict.fromkeys(map(tuple, pairs.tolist())):
        inside = (pairs == (subject, roi)).all(axis=1)
        used = scores[:, inside & known]
        a, b, both = map(np.asarray, used.mean(axis=1) if used.size else np.full(3, np.nan))
        one, other = frozenset({1}), frozenset({2})
        parts = partition.variance_partition({one: a, other: b, one | other: both})
        rows.append(
            {
                "subject": subject,
                "roi": roi,
                "score_first": float(a),
                "score_second": float(b),
                "score_joint": float(both),
                "unique_first": float(parts[one]),
                "shared": float(parts[one | other]),
                "unique_second": float(parts[other]),
                "num_targets": int(inside.sum()),
                "num_undefined": int((inside & ~known).sum()),
            }
        )
    return rows
