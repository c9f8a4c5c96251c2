"""Scores of targets -> rows of subjects and ROIs, and the one score of a protocol."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import features
from jaxalign.core.ceilings import ceiling
from jaxalign.core.folds import Fold
from jaxalign.core.inference import stats
from jaxalign.core.metrics import mean_defined
from jaxalign.core.scores import layers, scoring
from jaxalign.core.scores.alignment import AlignmentScore, Reference
from jaxalign.core.scores.protocol import Protocol
from jaxalign.core.solver import cv
from jaxalign.data.schema import Responses
from jaxalign.results.targets import GROUP, PUBLISHED, Ceilings, Targets


def by_subject_and_roi(
    result: cv.Nested, targets: Targets, ceilings: Ceilings, protocol: Protocol
) -> list[dict]:
    """Summarise the targets of each subject and ROI as the protocol does.

    By default a target whose score is undefined in any fold has no score; a row's score is the mean
    over the targets that have one, and NaN where none has.

    Args:
      result: of one layer.
      targets: the targets.
      ceilings: of the targets.
      protocol: of kind "encoding".

    Returns:
      The columns of `io.rows` that follow from the scores, a row for each subject and ROI.
    """
    alphas = np.sort(protocol.encoding[1].grid)
    values = scoring.scores_of(result, protocol)
    rows = []
    places = features.members(list(zip(targets.subject, targets.roi, strict=True)))
    for (subject, roi), columns in places.items():
        chosen = result.alphas[:, columns]
        found = scoring.summarize(values[:, columns], protocol.aggregation)
        rows.append(
            {
                "subject": subject,
                "roi": roi,
                "score": found.score,
                **_ceiling(ceilings, columns, subject),
                "ceiling_kind": "split_half" if subject == GROUP else ceilings.kind,
                "signal_ceiling": float(mean_defined(ceilings.signal_r[columns])),
                "fold_scores": found.per_fold.tolist(),
                "r2": float(mean_defined(result.r2[:, columns].mean(axis=0))),
                "fold_r2": mean_defined(result.r2[:, columns], axis=1).tolist(),
                "fold_inner_r2": mean_defined(result.inner_score[:, columns], axis=1).tolist(),
                "alpha_median": float(np.median(chosen)),
                "fold_alphas": np.median(chosen, axis=1).tolist(),
                "alpha_low_share": float((chosen == alphas[0]).mean()),
                "alpha_high_share": float((chosen == alphas[-1]).mean()),
                "num_targets": len(columns),
                "num_nan": int(np.isnan(values[:, columns]).sum()),
                "num_constant_features": int(result.num_constant.max()),
            }
        )
    return rows


def by_target(
    results: Mapping[int, cv.Nested],
    responses: Responses,
    ceilings: Ceilings,
    protocol: Protocol,
) -> dict[str, Any]:
    """Return the score of each target of each subject, of the layer chosen inside training data.

    Each fold, subject and ROI has one layer, as in the rows (`core.scores.layers`); the score is
    the mean over folds.

    Args:
      results: of each layer.
      responses: whose targets come first among those of the results; the group's mean, which comes
        behind, is left out.
      ceilings: of the targets.
      protocol: of kind "encoding".

    Returns:
      The columns of `io.rows.TARGETS` that follow, an entry for each target. A score is NaN if it
      is undefined in a fold, or a fold can choose no layer.
    """
    v, numbers = len(responses.target), np.array(list(results))
    stacked = lambda name: np.stack([getattr(x, name)[:, :v] for x in results.values()])  # [L k v]
    inner = stacked("inner_score")
    outer = np.stack([scoring.scores_of(x, protocol)[:, :v] for x in results.values()])
    rows = list(zip(responses.subject, responses.roi, strict=True))
    choice = layers.choose_for_groups(inner, rows)
    scores = layers.take(outer, choice)
    own = layers.choose(mean_defined(inner, axis=1))
    places = responses.coordinates if responses.coordinates.size else np.full((v, 3), np.nan)
    # Of each target the number of folds in which each layer was chosen.
    votes = (choice.layer[None] == np.arange(len(numbers))[:, None, None]).sum(axis=1)
    return {
        "subject": responses.subject,
        "roi": responses.roi,
        "target": responses.target,
        **dict(zip("xyz", places.T, strict=True)),
        "score": scores.mean(axis=0),
        "r2": layers.take(stacked("r2"), choice).mean(axis=0),
        "ceiling": ceilings.ceiling[:v],
        "alpha": np.median(layers.take(stacked("alphas"), choice), axis=0),
        "layer": numbers[votes.argmax(axis=0)],
        "best_layer": np.where(own.known, numbers[own.layer], -1),
        "num_nan": np.isnan(scores).sum(axis=0),
    }


def _ceiling(ceilings: Ceilings, columns: Int[np.ndarray, " g"], subject: str) -> dict:
    """Return the mean over targets of the ceiling, its interval over folds, and what it is of.

    A subject's is a correlation, and stays what it is: leaving out the subjects in whom it is
    negative would raise the mean over subjects. The group's is a root (`ceiling.mean_root`) of the
    correlations of two halves: undefined where these do not differ from 0, for noise has no root,
    and a ceiling that chance has made bounds nothing.
    """
    r = ceilings.fold_ceilings[:, columns]
    folds = mean_defined(r, axis=1)
    found = stats.crossed_interval(folds[None], is_correlation=True)
    value, low, high = float(mean_defined(ceilings.ceiling[columns])), found.low, found.high
    if ceilings.kind == PUBLISHED:  # without intervals
        low = high = np.nan
    if subject == GROUP:
        share = ceilings.half_share[columns]
        errors = r.var(axis=0, ddof=1) / len(r) if len(r) > 1 else np.full(len(columns), np.nan)
        value = ceiling.mean_root(r.mean(axis=0), share, errors)
        ends = ceiling.root(ceiling.reliability(np.array(found[:3]), share[0]))
        # Targets differ: their mean root is a little less than the root of the mean.
        low, high = (ends[1:] * min(1.0, value / ends[0])).tolist()
        is_known = value > 0 if np.isnan(found.low) else found.low > 0
        value, low, high = (x if is_known else np.nan for x in (value, low, high))
    return {
        "ceiling": float(value),
        "fold_ceilings": folds.tolist(),
        "ceiling_low": float(low),
        "ceiling_high": float(high),
    }


def whole(
    results: Mapping[int, cv.Nested],
    targets: Targets,
    protocol: Protocol,
    folds: Sequence[Fold],
    *,
    known_ceiling: Reference | float | Float[np.ndarray, " v"] = np.nan,
    contiguous: float = np.nan,
) -> AlignmentScore:
    """Return the one score of a protocol: over the subjects, without the group's mean.

    Args:
      results: of each layer.
      targets: the targets.
      protocol: of kind "encoding".
      folds: on which they were found.
      known_ceiling: of the protocol, computed or published; or of each target of the subjects.
      contiguous: see `scoring.combine`.

    Returns:
      The score; `layers` holds the names of layers, and -1 for the mean over all.
    """
    people = np.array([subject != GROUP for subject in targets.subject])
    of_people = lambda x: x[:, people] if x.ndim == 2 else x
    found = scoring.combine(
        [cv.Nested(*map(of_people, result)) for result in results.values()],
        protocol,
        folds,
        subjects=[subject for subject in targets.subject if subject != GROUP],
        ceiling=known_ceiling,
        contiguous=contiguous,
    )
    of = lambda labels: np.array([x for x, kept in zip(labels, people, strict=True) if kept], str)
    return found._replace(
        layers=np.array([*results, -1])[found.layers],
        target_subjects=of(targets.subject),
        target_rois=of(targets.roi),
        target_names=of(targets.target),
    )
