"""Scores of targets -> rows of subjects and ROIs, and the one score of a protocol."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxalign.core.ceilings import ceiling
from jaxalign.core.folds import Fold
from jaxalign.core.inference import stats
from jaxalign.core.scores import scoring
from jaxalign.core.scores.alignment import AlignmentScore, Reference, mean_defined
from jaxalign.core.scores.protocol import Protocol
from jaxalign.core.solver import cv
from jaxalign.data.schema import Responses
from jaxalign.results import targets


def by_subject_and_roi(result: cv.Nested, goals: targets.Targets, protocol: Protocol) -> list[dict]:
    """Summarise the targets of each subject and ROI as the protocol does.

    By default a target whose score is undefined in any fold has no score; a row's score is the mean
    over the targets that have one, and NaN where none has.

    Args:
      result: of one layer.
      goals: the targets.
      protocol: of kind "encoding".

    Returns:
      The columns of `io.rows` that follow from the scores, a row for each subject and ROI.
    """
    alphas = np.sort(protocol.encoding[1].grid)
    values = scoring.scores_of(result, protocol)
    columns = defaultdict(list)
    for i, pair in enumerate(zip(goals.subject, goals.roi, strict=True)):
        columns[pair].append(i)
    rows = []
    for (subject, roi), own in columns.items():
        chosen = result.alphas[:, own]
        found = scoring.summarize(values[:, own], protocol.aggregation)
        rows.append(
            {
                "subject": subject,
                "roi": roi,
                "score": found.score,
                "ceiling": _ceiling(goals.ceiling[own], subject),
                **_ceiling_interval(goals, own, subject),
                "ceiling_kind": "split_half"
                if subject == targets.GROUP
                else "leave_one_subject_out",
                "signal_ceiling": _mean(goals.signal_r[own]),
                "fold_scores": found.per_fold.tolist(),
                "r2": _mean(result.r2[:, own].mean(axis=0)),
                "fold_r2": _mean_rows(result.r2[:, own]),
                "fold_inner_r2": _mean_rows(result.inner_score[:, own]),
                "alpha_median": float(np.median(chosen)),
                "fold_alphas": np.median(chosen, axis=1).tolist(),
                "alpha_low_share": float((chosen == alphas[0]).mean()),
                "alpha_high_share": float((chosen == alphas[-1]).mean()),
                "num_targets": len(own),
                "num_nan": int(np.isnan(values[:, own]).sum()),
                "num_constant_features": int(result.num_constant.max()),
            }
        )
    return rows


def by_target(
    results: Mapping[int, cv.Nested],
    responses: Responses,
    protocol: Protocol,
) -> list[dict]:
    """Return the score of each target of each subject, of the layer chosen inside training data.

    For each fold, subject and ROI that is the layer with the best mean R2 on the inner splits, as
    `report.tables.nested_layer` chooses; the score is the mean over folds.

    Args:
      results: of each layer.
      responses: whose targets come first among those of the results, with coordinates; the
        group's mean, which comes behind, is left out.
      protocol: of kind "encoding".

    Returns:
      The columns of `io.rows.TARGETS` that follow, a row for each target. A score is NaN if it is
      undefined in a fold, or a fold can choose no layer.
    """
    v = len(responses.target)
    inner = np.stack([x.inner_score[:, :v] for x in results.values()])  # [L k v]
    outer = np.stack([scoring.scores_of(x, protocol)[:, :v] for x in results.values()])
    score = np.full(v, np.nan)
    columns = defaultdict(list)
    for i, pair in enumerate(zip(responses.subject, responses.roi, strict=True)):
        columns[pair].append(i)
    for own in columns.values():
        judged = mean_defined(inner[..., own], axis=-1)  # [L k]
        best = np.where(np.isfinite(judged), judged, -np.inf).argmax(axis=0)
        chosen = outer[best, np.arange(len(best))][:, own]  # [k v]
        if len(judged) > 1:
            chosen[np.isnan(judged).all(axis=0)] = np.nan
        score[own] = chosen.mean(axis=0)
    return [
        {
            "subject": responses.subject[i],
            "roi": responses.roi[i],
            "target": responses.target[i],
            "space": responses.space,
            **dict(zip("xyz", map(float, responses.coordinates[i]), strict=True)),
            "score": float(score[i]),
        }
        for i in range(v)
    ]


def _ceiling(values: Float[np.ndarray, " v"], subject: str) -> float:
    """Mean over targets.

    The group's is NaN where it is not positive: a root of a negative reliability means nothing. A
    subject's is a correlation, and stays what it is: leaving out the subjects in whom it is
    negative would raise the mean over subjects.
    """
    mean = _mean(values)
    return mean if subject != targets.GROUP or mean > 0 else float("nan")


def _ceiling_interval(goals: targets.Targets, own: list[int], subject: str) -> dict:
    """Return the mean over targets in each fold, and the interval over folds of the ceiling.

    That of the group is found on the correlations of halves, and brought to the scale of the
    ceiling about its own value.
    """
    folds = np.array([_mean(row) for row in goals.fold_ceilings[:, own]])
    found = stats.crossed_interval(folds[None])
    low, high = found.low, found.high
    if subject == targets.GROUP:
        center = _ceiling(goals.ceiling[own], subject)
        mean, low, high = ceiling.spearman_brown(np.array(found[:3]), root=True)
        low, high = center + low - mean, center + high - mean
    return {
        "fold_ceilings": folds.tolist(),
        "ceiling_low": float(low),
        "ceiling_high": float(high),
    }


def _mean(values: Float[np.ndarray, " v"]) -> float:
    """Mean of the defined values; NaN without any."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _mean_rows(values: Float[np.ndarray, "k v"]) -> list[float]:
    return [_mean(row) for row in values]


def whole(
    results: Mapping[int, cv.Nested],
    goals: targets.Targets,
    protocol: Protocol,
    folds: Sequence[Fold],
    *,
    known_ceiling: Reference | float = np.nan,
    contiguous: float = np.nan,
) -> AlignmentScore:
    """Return the one score of a protocol: over the subjects, without the group's mean.

    Args:
      results: of each layer.
      goals: the targets.
      protocol: of kind "encoding".
      folds: on which they were found.
      known_ceiling: of the protocol, computed or published.
      contiguous: see `scoring.combine`.

    Returns:
      The score; `layers` holds the names of layers, and -1 for the mean over all.
    """
    people = np.array([subject != targets.GROUP for subject in goals.subject])
    own = lambda x: x[:, people] if x.ndim == 2 else x
    found = scoring.combine(
        [cv.Nested(*map(own, result)) for result in results.values()],
        protocol,
        folds,
        subjects=[subject for subject in goals.subject if subject != targets.GROUP],
        ceiling=known_ceiling,
        contiguous=contiguous,
    )
    return found._replace(layers=np.array([*results, -1])[found.layers])
