"""From responses to what is predicted: the subjects' targets, the group's mean, their ceilings."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.core import features
from jaxalign.core.ceilings import ceiling, shared_targets
from jaxalign.data.schema import GROUP, Responses


class Targets(NamedTuple):
    """What is predicted: the targets of every subject, then those of the group's mean."""

    Y: Float[np.ndarray, "n v"]  # standardised
    subject: list[str]
    roi: list[str]
    ceiling: Float[np.ndarray, " v"]  # NaN where undefined
    # What ceilings are made of: correlations with the other subjects in each test block; of the
    # group, of two halves of the subjects.
    fold_ceilings: Float[np.ndarray, "k v"]
    signal_r: Float[np.ndarray, " v"]  # noiseless signal x responses; NaN unless simulated


class Common(NamedTuple):
    """Targets that all subjects have, and where each subject has them."""

    names: list[tuple[str, str]]  # ROI and target
    columns: Int[np.ndarray, "t s"]  # of the responses
    varies: Bool[np.ndarray, "t s"]  # False where the subject's responses are constant


def select(responses: Responses, rois: Sequence[str]) -> tuple[Responses, list[str]]:
    """Keep some ROIs, and leave out subjects of whom every target is constant.

    Args:
      responses: all.
      rois: those to keep; none means all.

    Returns:
      The responses kept, and the subjects left out.
    """
    if rois:
        responses = responses.columns([roi in rois for roi in responses.roi])
    varying = {
        s for s, constant in zip(responses.subject, responses.constant, strict=True) if not constant
    }
    left_out = [s for s in dict.fromkeys(responses.subject) if s not in varying]
    return responses.columns([s in varying for s in responses.subject]), left_out


def assemble(
    responses: Responses,
    blocks: Sequence[Int[np.ndarray, " _"]],
    *,
    num_splits: int,
    rng: np.random.Generator,
) -> Targets:
    """Append the group's mean to the subjects' targets, and find the ceilings of all.

    Responses in TRs are standardised within each run, since a scanner's baseline and unit differ
    from run to run and from subject to subject by more than responses do; responses to single
    stimuli over all of them. The group has the targets that every subject has; its mean is over
    the subjects in whom the target varies, if there are two.

    Args:
      responses: of the subjects kept.
      blocks: test samples of each fold, on which ceilings are found.
      num_splits: random halves of the subjects.
      rng: draws them.
    """
    runs = responses.run if responses.is_timed else [""] * len(responses.run)
    standard = features.standardize(responses.values, runs)
    of_subjects = np.full((len(blocks), len(responses.subject)), np.nan)
    means, rois, halves, signals = [], [], [], []
    common = shared_by_all(responses)
    for chosen, people in shared_targets.divide(common.varies):
        columns = common.columns[np.ix_(chosen, people)].T  # [s g]
        cube = standard[:, columns].transpose(1, 2, 0)  # [s g n]
        of_subjects[:, columns] = ceiling.subject_correlations(cube, blocks)
        halves.append(ceiling.half_correlations(cube, blocks, rng=rng, num_splits=num_splits))
        means.append(cube.mean(axis=0))
        rois += [common.names[i][0] for i in chosen]
        if responses.signal.size:
            signals.append(responses.signal[:, columns].mean(axis=1).T)
    Y = np.concatenate([standard.T, *means])  # [v n]
    groups = [ceiling.spearman_brown(r.mean(axis=0), root=True) for r in halves]
    signal_r = np.full(len(Y), np.nan)
    if responses.signal.size:
        signal = np.concatenate([responses.signal.T, *signals])
        signal_r = ceiling.correlation(signal, Y, blocks)
    return Targets(
        Y=Y.T,
        subject=[*responses.subject, *[GROUP] * len(rois)],
        roi=[*responses.roi, *rois],
        ceiling=np.concatenate([of_subjects.mean(axis=0), *groups]),
        fold_ceilings=np.concatenate([of_subjects, *halves], axis=1),
        signal_r=signal_r,
    )


def shared_by_all(responses: Responses) -> Common:
    """Find the targets that all subjects have, and that vary in at least two of them.

    Args:
      responses: of the subjects kept. Targets of the same ROI and name are the same target.
    """
    names = list(zip(responses.roi, responses.target, strict=True))
    found = shared_targets.find(responses.subject, names)
    varies = ~responses.constant[found.columns]
    kept = np.flatnonzero((found.columns >= 0).all(axis=1) & (varies.sum(axis=1) > 1))
    return Common([found.names[i] for i in kept], found.columns[kept], varies[kept])
