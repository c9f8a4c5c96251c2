"""From responses to what is predicted: the subjects' targets, the group's mean, their ceilings."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.core import features
from jaxalign.core.ceilings import ceiling, shared_targets
from jaxalign.data.schema import GROUP, Responses
from jaxalign.errors import InputError

PUBLISHED = "published_ncsnr"  # kind of ceilings that follow from published ratios


class Ceilings(NamedTuple):
    """Ceilings of targets."""

    ceiling: Float[np.ndarray, " v"]  # NaN where undefined
    # What ceilings are made of: correlations with the other subjects in each test block; of the
    # group, of two halves of the subjects.
    fold_ceilings: Float[np.ndarray, "k v"]
    signal_r: Float[np.ndarray, " v"]  # noiseless signal x responses; NaN unless simulated
    half_share: Float[np.ndarray, " v"]  # of the group, of subjects in the smaller half; else NaN
    kind: str = "leave_one_subject_out"  # of the subjects' targets


class Targets(NamedTuple):
    """What is predicted: the targets of every subject, then those of the group's mean."""

    Y: Float[np.ndarray, "n v"]  # standardised
    subject: list[str]
    roi: list[str]
    target: list[str]


class Common(NamedTuple):
    """Targets that all subjects have, and where each subject has them."""

    names: list[tuple[str, str]]  # ROI and target
    columns: Int[np.ndarray, "t s"]  # of the responses
    varies: Bool[np.ndarray, "t s"]  # False where the subject's responses are constant


def of_rois(responses: Responses, rois: Sequence[str]) -> Responses:
    """Keep the targets of some ROIs; none means all."""
    return responses.columns([roi in rois for roi in responses.roi]) if rois else responses


def select(responses: Responses, rois: Sequence[str]) -> tuple[Responses, list[str]]:
    """Keep some ROIs, and leave out subjects of whom every target is constant.

    Args:
      responses: all.
      rois: those to keep; none means all.

    Returns:
      The responses kept, and the subjects left out.
    """
    responses = of_rois(responses, rois)
    varying = {
        s for s, constant in zip(responses.subject, responses.constant, strict=True) if not constant
    }
    left_out = [s for s in dict.fromkeys(responses.subject) if s not in varying]
    return responses.columns([s in varying for s in responses.subject]), left_out


def checked(
    responses: Responses, rois: Sequence[str], *, stage: str
) -> tuple[Responses, list[str]]:
    """Do what `select` does, and refuse what leaves no targets.

    Args:
      responses: all.
      rois: those to keep; none means all.
      stage: whose setting `rois` is.

    Raises:
      InputError: if there is no such ROI, or every target is constant.
    """
    if unknown := [roi for roi in rois if roi not in responses.roi]:
        raise InputError(
            f"{stage}.rois must be among {', '.join(dict.fromkeys(responses.roi))}, got "
            f"{unknown[0]!r}."
        )
    found = select(responses, rois)
    if not found[0].subject:
        raise InputError("responses must vary: every target is constant.")
    return found


def runs_of(responses: Responses) -> list[str]:
    """Return the run of each sample, within which it is standardised: one for single stimuli.

    Args:
      responses: timed or not.
    """
    return list(responses.run) if responses.is_timed else [""] * len(responses.run)


def assemble(responses: Responses) -> Targets:
    """Append the group's mean to the subjects' targets.

    Responses in TRs are standardised within each run, since a scanner's baseline and unit differ
    from run to run and from subject to subject by more than responses do; responses to single
    stimuli over all of them. The group has the targets that every subject has; its mean is over
    the subjects in whom the target varies, if there are two.

    Args:
      responses: of the subjects kept.
    """
    standard = _standardized(responses)
    groups = list(_groups(responses))
    means = [standard[:, x.columns].mean(axis=1) for x in groups]
    names = [name for x in groups for name in x.names]
    return Targets(
        Y=np.concatenate([standard, *means], axis=1),
        subject=[*responses.subject, *[GROUP] * len(names)],
        roi=[*responses.roi, *[roi for roi, _ in names]],
        target=[*responses.target, *[target for _, target in names]],
    )


def ceilings(
    responses: Responses,
    blocks: Sequence[Int[np.ndarray, " _"]],
    *,
    num_splits: int,
    rng: np.random.Generator,
) -> Ceilings:
    """Find the ceilings of the targets that `assemble` returns.

    Args:
      responses: of the subjects kept.
      blocks: test samples of each fold, on which ceilings are found.
      num_splits: random halves of the subjects.
      rng: draws them.
    """
    standard = _standardized(responses)
    of_subjects = np.full((len(blocks), len(responses.subject)), np.nan)
    halves, signals, shares = [], [], []
    for group in _groups(responses):
        cube = standard[:, group.columns].transpose(1, 2, 0)  # [s g n]
        of_subjects[:, group.columns] = ceiling.subject_correlations(cube, blocks)
        halves.append(ceiling.half_correlations(cube, blocks, rng=rng, num_splits=num_splits))
        shares.append(np.full(cube.shape[1], len(cube) // 2 / len(cube)))
        if responses.signal.size:
            signals.append(responses.signal[:, group.columns].mean(axis=1).T)
    groups = [
        ceiling.root(ceiling.reliability(r.mean(axis=0), share))
        for r, share in zip(halves, shares, strict=True)
    ]
    values = np.concatenate([of_subjects.mean(axis=0), *groups])
    signal_r = np.full(len(values), np.nan)
    if responses.signal.size:
        signal = np.concatenate([responses.signal.T, *signals])
        signal_r = ceiling.correlation(signal, assemble(responses).Y.T, blocks)
    half_share = np.concatenate([np.full(len(responses.subject), np.nan), *shares])
    return Ceilings(values, np.concatenate([of_subjects, *halves], axis=1), signal_r, half_share)


def with_published(found: Ceilings, root: Float[np.ndarray, " p"]) -> Ceilings:
    """Put ceilings of subjects' targets that the data set publishes in the place of computed ones.

    Args:
      found: from `ceilings`.
      root: of each target of a subject, what a correlation can reach; NaN where it is not known.
    """
    num = len(root)
    values, folds = found.ceiling.copy(), found.fold_ceilings.copy()
    values[:num], folds[:, :num] = root, root
    return found._replace(ceiling=values, fold_ceilings=folds, kind=PUBLISHED)


class _Group(NamedTuple):
    """Targets that the same subjects have, and that vary in all of these."""

    names: list[tuple[str, str]]  # ROI and target
    columns: Int[np.ndarray, "s g"]  # of the responses


def _standardized(responses: Responses) -> Float[np.ndarray, "n v"]:
    return features.standardize(responses.values, runs_of(responses))


def _groups(responses: Responses) -> Iterator[_Group]:
    common = shared_by_all(responses)
    for chosen, people in shared_targets.divide(common.varies):
        columns = common.columns[np.ix_(chosen, people)].T
        yield _Group([common.names[i] for i in chosen], columns)


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
