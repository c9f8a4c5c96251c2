"""Null scores of permuted responses -> rows with p-values for subjects, ROIs and layers."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.core import features, metrics
from jaxalign.core.inference import stats
from jaxalign.core.inference.permutation import SOLVER_ROUNDING
from jaxalign.results.targets import GROUP, Targets

MEAN = "mean"  # over subjects, who all keep to the same orders
ANY = -1  # in place of a layer: the largest score of any layer
LEVEL = 0.05
_BLOCK = 4096  # targets whose nulls are compared at once


class Nulls(NamedTuple):
    """Scores of one layer, and those of permuted responses."""

    rows: Float[np.ndarray, "o r"]  # means over the targets of each row; first as they are
    score: Float[np.ndarray, " v"]  # of each target
    p: Float[np.ndarray, " v"]  # of each target by itself
    # Largest of this layer and those before, of each target; [0 0] where later ones hold it.
    best: Float[np.ndarray, "o v"] = np.empty((0, 0))


def keys(targets: Targets) -> list[tuple[str, str]]:
    """Return subject and ROI of each row: those of the targets, and the mean over subjects."""
    pairs = list(dict.fromkeys(zip(targets.subject, targets.roi, strict=True)))
    rois = dict.fromkeys(roi for subject, roi in pairs if subject != GROUP)
    return pairs + [(MEAN, roi) for roi in rois]


def collect(
    parts: Iterable[Float[np.ndarray, "_ _"]],
    targets: Targets,
    before: Float[np.ndarray, "o v"] | None = None,
) -> Nulls:
    """Reduce scores of targets to those of rows, part by part.

    A row is the mean over the targets whose score is defined. Its nulls are means over the same
    targets, so that a null with an undefined one of them counts as large. The mean over subjects
    is over those who have a score.

    Args:
      parts: from `permutation.permuted_scores`.
      targets: the targets.
      before: `best` of the layers that were tested before; None: there is none.
    """
    place = {key: i for i, key in enumerate(keys(targets))}
    row_of = np.array([place[key] for key in zip(targets.subject, targets.roi, strict=True)])
    total, count, tallied, start = np.zeros(1), np.zeros(len(place)), [], 0
    best = None if before is None else before.copy()
    for part in parts:
        row = row_of[start : start + part.shape[1]]
        start += part.shape[1]
        defined = ~np.isnan(part[0])
        columns = np.zeros((part.shape[1], len(place)))
        columns[np.flatnonzero(defined), row[defined]] = 1
        total = total + np.where(defined, part, 0.0) @ columns
        count += columns.sum(axis=0)
        found = stats.tally([part], "greater", SOLVER_ROUNDING)
        tallied.append((found.statistic, found.p))
        if best is None:
            best = np.full((len(part), len(targets.subject)), -np.inf, np.float32)
        own = best[:, start - part.shape[1] : start]
        # An undefined score is never the largest, with its nulls; where a null is undefined, which
        # counts as large, it remains so.
        np.maximum(own, np.where(defined, part, -np.inf), out=own)
    rows = metrics.divide(total, count)
    for (subject, roi), i in place.items():
        if subject == MEAN:
            people = [j for (s, r), j in place.items() if r == roi and s not in (GROUP, MEAN)]
            known = [j for j in people if count[j] > 0]
            rows[:, i] = rows[:, known].mean(axis=1) if known else np.nan
    score, p = (np.concatenate(x) for x in zip(*tallied, strict=True))
    return Nulls(rows, score, p, np.empty((0, 0)) if best is None else best)


def by_target(best: Float[np.ndarray, "o v"], targets: Targets) -> dict[str, list]:
    """Test each target of each subject, by its largest score of any layer.

    The largest score is compared with the largest of any layer under each order, so that looking
    for the best layer of each target is allowed for. `p_fdr` is adjusted by Benjamini and Hochberg
    over the targets of the subject, `p_max` compares with the largest null of any of them, which
    controls the probability of any false rejection: a map of the subject is the family.

    Args:
      best: of the last layer, from `collect`.
      targets: the targets; the group's are left out.

    Returns:
      The columns of `io.rows.TARGET_SIGNIFICANCE` that follow. NaN where no layer has a score.
    """
    columns: dict[str, list] = {x: [] for x in ("score", "p", "p_fdr", "p_max")}
    places: list[int] = []
    for subject, index in features.members(targets.subject).items():
        if subject == GROUP:
            continue
        blocks = (best[:, index[i : i + _BLOCK]] for i in range(0, len(index), _BLOCK))
        parts = (np.where(np.isneginf(x[:1]), np.nan, x) for x in blocks)
        found = stats.tally(parts, "greater", SOLVER_ROUNDING)
        adjusted = stats.benjamini_hochberg(found.p)
        for name, x in zip(columns, (found.statistic, found.p, adjusted, found.p_max), strict=True):
            columns[name] += x.tolist()
        places += list(index)
    order = np.argsort(places, kind="stable").tolist()
    names = {"subject": targets.subject, "roi": targets.roi, "target": targets.target}
    labels = {name: [x[i] for i in sorted(places)] for name, x in names.items()}
    return labels | {name: [x[i] for i in order] for name, x in columns.items()}


def by_subject_and_roi(nulls: Mapping[int, Nulls], targets: Targets) -> list[dict]:
    """Compare the scores of each row with their nulls, layer by layer, and the largest of any.

    With several layers, the largest score of any layer is compared with the largest of any layer
    under each order, which allows for the search for the best one.

    Args:
      nulls: of each layer.
      targets: the targets.

    Returns:
      The columns of `io.rows.SIGNIFICANCE` that follow from the scores. `p_adjusted` is that of
      Benjamini and Hochberg over all subjects and ROIs of a layer; the group's rows, and those of
      the mean over subjects, are families of their own.
    """
    pairs = keys(targets)
    targets_of = features.members(list(zip(targets.subject, targets.roi, strict=True)))
    families = np.array([subject if subject in (GROUP, MEAN) else "" for subject, _ in pairs])
    scores = {layer: found.rows for layer, found in nulls.items()}
    if len(scores) > 1:
        stacked = np.stack(list(scores.values()))
        # An undefined score is never the largest; an undefined null counts as large (`compare`).
        observed = np.where(np.isnan(stacked[:, 0]), -np.inf, stacked[:, 0]).max(axis=0)
        of_nulls = np.where(np.isnan(stacked[:, :1]), -np.inf, stacked[:, 1:]).max(axis=0)
        none = np.isneginf(observed)
        scores[ANY] = np.where(none, np.nan, np.vstack([observed, of_nulls]))
    rows = []
    for layer, values in scores.items():
        found = stats.compare(values[0], values[1:], rounding=SOLVER_ROUNDING)
        adjusted = np.full(len(pairs), np.nan)
        for family in set(families.tolist()):
            adjusted[families == family] = stats.benjamini_hochberg(found.p[families == family])
        for i, (subject, roi) in enumerate(pairs):
            columns = targets_of.get((subject, roi), [])
            p = nulls[layer].p[columns] if layer != ANY else np.empty(0)
            rows.append(
                {
                    "layer": layer,
                    "subject": subject,
                    "roi": roi,
                    "score": float(values[0, i]),
                    "p": float(found.p[i]),
                    "p_adjusted": float(adjusted[i]),
                    "null_mean": float(found.null_mean[i]),
                    "null_sd": float(found.null_sd[i]),
                    "num_targets": len(columns),
                    "num_significant": int((stats.benjamini_hochberg(p) <= LEVEL).sum()),
                }
            )
    return rows
