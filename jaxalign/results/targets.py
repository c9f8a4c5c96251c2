"""From responses to what is predicted: the subjects' targets, the group's mean, their ceilings."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import features
from jaxalign.core.ceilings import ceiling
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
    own = np.full((len(blocks), len(responses.subject)), np.nan)
    means, rois, halves, signals = [], [], [], []
    for names, columns in _shared(responses):
        cube = standard[:, columns].transpose(1, 2, 0)  # [s g n]
        own[:, columns] = ceiling.subject_correlations(cube, blocks)
        halves.append(ceiling.half_correlations(cube, blocks, rng=rng, num_splits=num_splits))
        means.append(cube.mean(axis=0))
        rois += [roi for roi, _ in names]
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
        ceiling=np.concatenate([own.mean(axis=0), *groups]),
        fold_ceilings=np.concatenate([own, *halves], axis=1),
        signal_r=signal_r,
    )


def _shared(responses: Responses) -> list[tuple[list[tuple[str, str]], Int[np.ndarray, "s g"]]]:
    """Find the (roi, target) that all subjects have, and their columns, subject by subject.

    Targets are divided by the subjects in whom they vary: mostly all, and so one division.
    """
    keys = zip(responses.subject, responses.roi, responses.target, strict=True)
    place = {key: i for i, key in enumerate(keys)}
    subjects = list(dict.fromkeys(responses.subject))
    constant = responses.constant
    divisions = defaultdict(list)
    for name in dict.fromkeys(zip(responses.roi, responses.target, strict=True)):
        columns = [place.get((s, *name), -1) for s in subjects]
        varying = tuple(i for i in columns if i >= 0 and not constant[i])
        if min(columns) >= 0 and len(varying) > 1:
            having = tuple(responses.subject[i] for i in varying)
            divisions[having].append((name, varying))
    return [
        ([name for name, _ in found], np.array([columns for _, columns in found]).T)
        for found in divisions.values()
    ]
