"""Ceilings that belong to protocols: on a protocol's own folds, by its own regression and summary.

Their intervals are over subjects: a jackknife that leaves out each in turn, and computes the
ceiling of the others anew. Correlations of single subjects with the mean of the others are not
independent of one another, and an interval that takes them to be is too narrow: see
`ceiling.over_subjects`.
"""

from collections.abc import Sequence

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


def leave_one_subject_out(
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    protocol: Protocol,
    subjects: Labels,
    targets: Labels,
    runs: Labels | None = None,
) -> Reference:
    """Correlate each subject's targets with the mean of the other subjects, on the test sets.

    Args:
      Y: responses.
      folds: whose test sets count.
      protocol: says how targets and subjects are summarised.
      subjects: of each column.
      targets: name of each column; those of the same name are comparable between subjects.
      runs: within which responses are standardised before they are averaged; None: over all.

    Returns:
      The ceiling, NaN for columns whose target fewer than two subjects have. Its interval needs
      three subjects.

    Raises:
      ValueError: if there are no targets, or a subject has one twice.
    """
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


def _numbers(subjects):
    """Return the number of each column's subject."""
    number = np.empty(len(subjects), int)
    for i, own in enumerate(features.members(subjects).values()):
        number[own] = i
    return number


def extrapolated(
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    protocol: Protocol,
    subjects: Labels,
    *,
    runs: Labels | None = None,
    max_subsets: int | None = None,
    mesh: Mesh | None = None,
) -> Reference:
    """Predict each subject from the others by the protocol, and extrapolate to infinitely many.

    Subjects may have different targets, as voxels are: those of the others are the features that
    predict. What a target can reach is the level of the curve over numbers of subjects.

    Args:
      Y: responses, standardised within runs already where that belongs to the protocol.
      folds: from `scoring.make_folds`.
      protocol: of kind "encoding".
      subjects: of each column, at least 3; an interval needs 4.
      runs: see `scoring.design`.
      max_subsets: subsets of subjects to draw of each size (seed 0), if there are more; None: every
        subset.
      mesh: devices that divide the targets among them.

    Raises:
      ValueError: see `subsets.score`.

    Source: Schrimpf et al. (2021), PNAS 118(45), Methods, on the estimation of the ceiling.
    """
    number = _numbers(subjects)
    least = min(len(fold.outer.train) for fold in folds)

    def regress(own):
        # Arrays of one shape for all pools of predictors are compiled once: kernels of samples.
        result = scoring.evaluate(
            scoring.design(Y[:, own], protocol, run=runs),
            Y,
            protocol,
            folds,
            pool=number,
            execution=ADAPTIVE._replace(
                form="dual" if len(own) >= least / 2 else "auto", mesh=mesh
            ),
        )
        return scoring.scores_of(result, protocol)

    plain = _is_plain(protocol)
    scores = subsets.score(
        Y,
        subjects,
        [fold.outer for fold in folds],
        alphas=scoring.penalties(protocol).tolist() if plain else (0.0,),
        regress=None if plain else regress,
        max_subsets=max_subsets,
        rng=None if max_subsets is None else np.random.default_rng(0),
    )
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
    )
    half = float(spread.high - spread.low) / 2
    return whole._replace(low=whole.value - half, high=whole.value + half)


def _is_plain(protocol):
    """Whether one matrix for each pool and split serves all targets: see `subsets.score`.

    Then the small number that may be added to norms is left out; it is there for norms of 0.
    """
    scaling, penalty = protocol.scaling, protocol.encoding[1]
    return (
        protocol.metric == "pearson_r"
        and len(penalty.grid) == 1
        and scaling.intercept
        and not scaling.pca
        and scaling.features == scaling.responses == "as_given"
    )
