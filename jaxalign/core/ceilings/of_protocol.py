"""Ceilings of protocols: on the folds of a protocol, by its regression and its summary.

Their intervals are over subjects: a jackknife that leaves out each in turn, and computes the
ceiling of the others anew. Correlations of single subjects with the mean of the others are not
independent of one another, and an interval that takes them to be is too narrow: see
`ceiling.over_subjects`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxalign.core import features
from jaxalign.core.ceilings import ceiling as ceiling_lib
from jaxalign.core.ceilings import extrapolation, shared_targets, subsets
from jaxalign.core.features import Labels
from jaxalign.core.folds import Fold
from jaxalign.core.inference import resampling
from jaxalign.core.scores import alignment, scoring
from jaxalign.core.scores.alignment import Reference
from jaxalign.core.scores.protocol import Protocol
from jaxalign.core.solver.method import ADAPTIVE

# Numbers of responses that are correlated between subjects at a time.
TILE_NUMBERS = 2**24


class Recorded(NamedTuple):
    """Responses of several subjects, and what their columns and samples are."""

    Y: Float[np.ndarray, "n v"]
    subjects: Labels  # of each column
    # Name of each column; columns of the same name are the same target in different subjects.
    targets: Labels | None = None
    runs: Labels | None = None  # of each sample; None: all are of one


def leave_one_subject_out(
    recorded: Recorded, folds: Sequence[Fold], protocol: Protocol
) -> Reference:
    """Correlate each subject's targets with the mean of the other subjects, on the test sets.

    Args:
      recorded: responses with names of targets. They are standardised within runs before they are
        averaged.
      folds: whose test sets count.
      protocol: says how targets and subjects are summarised.

    Returns:
      The ceiling, NaN for columns whose target fewer than two subjects have. Its interval needs
      three subjects.

    Raises:
      ValueError: if there are no targets, they have no names, or a subject has one twice.
    """
    Y, subjects, targets, runs = recorded
    if targets is None:
        raise ValueError("targets must be named, to be compared between subjects.")
    if not Y.shape[1]:
        raise ValueError("Y must have at least one target, got none.")
    standard = features.standardize(Y, np.zeros(len(Y), int) if runs is None else runs)
    blocks = [fold.outer.test for fold in folds]
    found = shared_targets.find(subjects, targets)
    # The first row is of all subjects, the others of all but one.
    values = np.full((1 + len(found.subjects), Y.shape[1]), np.nan)
    for rows, people in shared_targets.divide(found.columns >= 0):
        columns = found.columns[np.ix_(rows, people)]  # [t s]
        size = max(1, TILE_NUMBERS // (len(Y) * len(people)))
        for start in range(0, len(columns), size):
            tile = columns[start : start + size]  # [t s]
            cube = standard[:, tile].transpose(2, 1, 0)
            values[:, tile] = ceiling_lib.leave_one_subject_out(cube, blocks).T
            left_out = ceiling_lib.without_each_subject(cube, blocks)
            for subject, r in zip(people, left_out, strict=True):
                values[1 + subject, tile] = r.T
    summary = [
        alignment.reference(row, len(row), protocol.aggregation, subjects).value for row in values
    ]
    low, high = resampling.jackknife(
        np.array(summary[0]), np.array(summary[1:]), is_correlation=True
    )
    return Reference(summary[0], float(low), float(high), values[0])


def extrapolated(
    recorded: Recorded,
    folds: Sequence[Fold],
    protocol: Protocol,
    *,
    max_subsets: int | None = None,
    mesh: Mesh | None = None,
    progress: Callable[[Sequence], Iterable] = iter,
) -> Reference:
    """Predict each subject from the others by the protocol, and extrapolate to infinitely many.

    Subjects may have different targets, as voxels are: those of the others are the features that
    predict. The ceiling of a target is the level that its curve over numbers of subjects reaches.

    Args:
      recorded: responses of at least 3 subjects, standardised within runs already where that
        belongs to the protocol; an interval needs 4 subjects.
      folds: from `scoring.make_folds`.
      protocol: of kind "encoding".
      max_subsets: subsets of subjects to draw of each size (seed 0), if there are more; None: every
        subset.
      mesh: devices that divide the targets among them.
      progress: wraps lists of chunks of subsets, or of tiles of targets.

    Raises:
      ValueError: see `subsets.score`.

    Source: Schrimpf et al. (2021), PNAS 118(45), Methods, on the estimation of the ceiling.
    """
    Y, subjects, _, runs = recorded
    number = np.unique(np.asarray(subjects), return_inverse=True)[1]
    least = min(len(fold.outer.train) for fold in folds)

    def regress(pool):
        # Arrays of one shape for all pools of predictors are compiled once: kernels of samples.
        result = scoring.evaluate(
            scoring.design(Y[:, pool], protocol, run=runs),
            Y,
            protocol,
            folds,
            pool=number,
            execution=ADAPTIVE._replace(
                form="dual" if len(pool) >= least / 2 else "auto", mesh=mesh, progress=progress
            ),
        )
        return scoring.scores_of(result, protocol)

    chosen = subsets.members_of(
        len(set(number.tolist())), max_subsets=max_subsets, rng=np.random.default_rng(0)
    )
    if _is_plain(protocol):
        splits, alphas = [fold.outer for fold in folds], scoring.penalties(protocol).tolist()
        scores = subsets.score(Y, subjects, splits, alphas=alphas, chosen=chosen, progress=progress)
    else:
        scores = subsets.score_by(regress, subjects, len(folds), chosen=chosen)
    rule = protocol.aggregation
    undefined = "zero" if rule.undefined == "zero" else "omit"
    found = extrapolation.extrapolate(scores, undefined=undefined).targets.value
    whole = alignment.reference(found, len(found), rule, subjects)
    if len(scores.subjects) < 4:
        return whole
    spread = extrapolation.leave_subjects_out(
        scores,
        undefined=undefined,
        summarize=lambda values: alignment.reference(values, len(values), rule, subjects).value,
        about=whole.value,
    )
    return whole._replace(low=float(spread.low), high=float(spread.high))


def _is_plain(protocol):
    """Whether one matrix for each pool and split serves all targets: see `subsets.score`.

    The small number that a protocol may add to norms is then left out: it is for norms of 0.
    """
    scaling, penalty = protocol.scaling, protocol.encoding[1]
    return (
        protocol.metric == "pearson_r"
        and len(penalty.grid) == 1
        and scaling.intercept
        and not scaling.pca
        and scaling.features == scaling.responses == "as_given"
    )
