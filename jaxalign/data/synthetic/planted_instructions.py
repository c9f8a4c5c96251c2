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


def simulate(
    num_instructions: int,
    rois: Sequence[str],
    planted: Sequence[int],
    beside: Sequence[int],
    *,
    num_subjects: int,
    num_voxels: int,
    num_samples: int,
    num_units: int,
    common: float,
    beside_share: float,
    noise_sd: float,
    rng: np.random.Generator,
) -> Simulated:
    """Draw features that instructions share in part, and voxels that follow one or two of them.

    All instructions have one component in common, of `num_units` units, and each has another of as
    many units of its own; all are independent and normal. A model's units mix the two: a random
    rotation, of each instruction by itself, so that no single unit belongs to either component.
    A voxel planted from instruction i has the signal sqrt(common) S w + sqrt(1 - common) O_i u, of
    unit variance, with weights w and u of its own, and noise that is its own too. So with R the
    share of its variance that the signal has, 1 / (1 + noise_sd^2), and in large samples:
    instruction i explains R, any other one common R, the two together R, of which common R is
    shared, (1 - common) R is of i alone, and nothing is of the other alone. Where there is an
    instruction j beside i, it has the share q = beside_share of what is not common: i alone
    explains (1 - common) (1 - q) R, j alone (1 - common) q R.

    Args:
      num_instructions: i.
      rois: names.
      planted: index of the instruction that each ROI follows, or `NONE` for noise alone.
      beside: index of a second one that it follows too, or `NONE`.
      num_subjects: who share features and stimuli, and nothing else.
      num_voxels: of each subject in each ROI.
      num_samples: n, stimuli.
      num_units: of either component; p is twice as many.
      common: share of the signal's variance that the common component has, within 0..1.
      beside_share: q, within 0..1; below a half the first one wins.
      noise_sd: in units of the signal's standard deviation; of voxels of noise alone, too.
      rng: source of all draws.

    Raises:
      ValueError: if there is not one index for each ROI, one is of no instruction, or there is one
        beside noise alone.
    """
    for argument, given in (("planted", planted), ("beside", beside)):
        if len(rois) != len(given):
            raise ValueError(
                f"{argument} must have an entry for each of {len(rois)} ROIs, got {len(given)}."
            )
        if wrong := [x for x in given if not NONE <= x < num_instructions]:
            raise ValueError(f"{argument} must be {NONE}..{num_instructions - 1}, got {wrong[0]}.")
    if any(i == NONE != j for i, j in zip(planted, beside, strict=True)):
        raise ValueError("beside must be NONE where planted is.")
    shared = rng.standard_normal((num_samples, num_units))
    own = rng.standard_normal((num_instructions, num_samples, num_units))
    features = np.stack([np.hstack([shared, part]) @ _rotation(rng, 2 * num_units) for part in own])
    subject, roi, target, sources, signals = [], [], [], [], []
    for s in range(num_subjects):
        for name, source, other in zip(rois, planted, beside, strict=True):
            signal = np.zeros((num_samples, num_voxels))
            share = beside_share if other != NONE else 0.0
            for part, index in ((1 - share, source), (share, other)):
                if index != NONE:
                    weight = np.sqrt((1 - common) * part)
                    signal += weight * _projections(rng, own[index], num_voxels)
            if source != NONE:
                signal += np.sqrt(common) * _projections(rng, shared, num_voxels)
            signals.append(signal)
            subject += [f"s{s + 1:02d}"] * num_voxels
            roi += [name] * num_voxels
            # Voxels have weights of their own, so no two subjects have one in common.
            target += [f"s{s + 1:02d}.{i:04d}" for i in range(num_voxels)]
            sources += [source] * num_voxels
    signal = np.hstack(signals)
    values = signal + noise_sd * rng.standard_normal(signal.shape)
    responses = Responses(
        values=values,
        run=["simulated"] * num_samples,
        subject=subject,
        roi=roi,
        target=target,
        units="standard deviations of the signal",
        stimulus_id=[f"image{i:05d}" for i in range(num_samples)],
        signal=signal,
    )
    return Simulated(features, responses, np.array(sources))


def describe(rois: Sequence[str], planted: Sequence[str], beside: Sequence[str]) -> str:
    """Say which instructions each ROI follows.

    Args:
      rois: names.
      planted: name of the instruction of each; "": noise alone.
      beside: name of a second one; "": none.
    """
    found = []
    for roi, first, second in zip(rois, planted, beside, strict=True):
        both = f"{first} and less {second}" if second else first or "noise alone"
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
        own = (pairs == (subject, roi)).all(axis=1)
        used = scores[:, own & known]
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
                "num_targets": int(own.sum()),
                "num_undefined": int((own & ~known).sum()),
            }
        )
    return rows
