"""Scores of subsets of subjects -> rows of extrapolated ceilings, and the curves behind them."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from jaxalign.core import features, folds, metrics
from jaxalign.core.ceilings import extrapolation, subsets
from jaxalign.core.ceilings.ceiling import Ceiling
from jaxalign.core.ceilings.saturation import Family
from jaxalign.core.ceilings.subsets import SubsetScores
from jaxalign.core.inference.resampling import Bootstrap
from jaxalign.data.schema import GROUP, Responses
from jaxalign.io import arrays
from jaxalign.io import rows as rows_lib
from jaxalign.io.place import Place
from jaxalign.results import ceilings
from jaxalign.results.ceilings import Kind, row

OVER_SCORES = "scores of subsets"
_REMARK = "fewer than two sizes of subsets have a score"
KINDS: dict[Kind, Family] = {
    Kind("extrapolated", interval=OVER_SCORES, remark=_REMARK): "exponential",
    Kind("extrapolated_reliability", interval=OVER_SCORES, remark=_REMARK): "reliability",
}
JACKKNIFE = "subjects, each left out"
PREDICTED = "subjects predicted"
SCORES = "subset_scores.npz"
CURVES = "curves"  # table: averages and fitted curves, by ROI and number of subjects
# Numbers of subjects at which fitted curves are drawn, up to this multiple of those there are.
NUM_POINTS, BEYOND = 60, 2.0


class Extrapolate(NamedTuple):
    """How ceilings are extrapolated."""

    alphas: Sequence[float]  # penalties; see `subsets.score`
    subsets_per_subject: int  # see `subsets.balanced_members`
    num_sizes: int  # likewise
    num_curves: int  # bootstraps of each target's curve


class Saved(NamedTuple):
    """Scores of subsets, in one array."""

    r: Float[np.ndarray, " m"]
    chosen: Bool[np.ndarray, "c s"]


def rows(
    responses: Responses,
    splits: Sequence[folds.Split],
    how: Bootstrap,
    extrapolate: Extrapolate,
    *,
    folder: Place,
    progress: Callable[[Sequence], Iterable],
) -> list[dict]:
    """Predict subjects from others, and extrapolate to infinitely many.

    Each target is predicted from all targets of the other subjects. An ROI's ceiling is the median
    over its targets in all subjects. Its interval leaves out each subject in turn where every
    subset was scored, and resamples the subjects predicted otherwise.

    Args:
      responses: of all subjects.
      splits: training and test samples.
      how: intervals over subjects are found.
      extrapolate: how ceilings are.
      folder: where scores are kept, for a run that was interrupted, and `CURVES` are written.
      progress: wraps the list of chunks of subsets.
    """
    subjects = list(dict.fromkeys(responses.subject))
    if len(subjects) < 3:
        remark = f"needs at least 3 subjects, there are {len(subjects)}"
        data = ceilings.shared(responses)
        return [
            one | {"average": "median"}
            for kind in KINDS
            for one in ceilings.undefined_rois(kind, data, remark)
        ]
    chosen = subsets.balanced_members(
        len(subjects),
        per_subject=extrapolate.subsets_per_subject,
        num_sizes=extrapolate.num_sizes,
        rng=how.rng,
    )
    scores = _scores(responses, splits, chosen, extrapolate.alphas, folder / SCORES, progress)
    rows, drawn = [], []
    for kind, family in KINDS.items():
        for roi, columns in features.members(responses.roi).items():
            keep = np.isin(np.arange(len(responses.roi)), columns)
            of_roi = extrapolation.of_targets(scores, keep)
            found = extrapolation.extrapolate(
                of_roi,
                family=family,
                num_resamples=extrapolate.num_curves,
                confidence=how.confidence,
            )
            over, interval = _over_subjects(of_roi, found.targets.value, family, how)
            rows += _of_roi(kind, responses, columns, found, over, interval)
            drawn.append(_curve(family, of_roi, found).assign(kind=kind.name, roi=roi))
    table = pd.concat(drawn, ignore_index=True)
    table = table.reindex(columns=["kind", "roi", *table.columns.drop(["kind", "roi"])])
    rows_lib.write_table(folder / CURVES, table)
    return rows


def _scores(responses, splits, chosen, alphas, path, progress) -> SubsetScores:
    """Score all subsets, or read what an interrupted run has scored."""
    places = features.members(responses.subject)
    columns = tuple(places.values())
    shapes = [(int(chosen[:, i].sum()), len(splits), len(held)) for i, held in enumerate(columns)]
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    saved = arrays.read(path, Saved)
    if saved is not None and np.array_equal(saved.chosen, chosen) and len(saved.r) == ends[-1]:
        parts = np.split(saved.r, ends[:-1])
        r = tuple(x.reshape(shape) for x, shape in zip(parts, shapes, strict=True))
        return SubsetScores(r, chosen, columns, tuple(places))
    standard = ceilings.standardized(responses)
    scores = subsets.score(
        standard, responses.subject, splits, alphas=alphas, chosen=chosen, progress=progress
    )
    arrays.write(path, Saved(np.concatenate([x.ravel() for x in scores.r]), chosen))
    return scores


def _over_subjects(scores, values, family, how: Bootstrap) -> tuple[Ceiling, str]:
    """Return the ROI's ceiling with an interval over subjects, and what the interval is over."""
    sizes = scores.subsets.sum(axis=1)
    every = 2 ** len(scores.subjects) - len(scores.subjects) - 1
    if len(sizes) == every and len(scores.subjects) > 3:
        over = extrapolation.leave_subjects_out(scores, family=family, confidence=how.confidence)
        return over, JACKKNIFE
    options = {"confidence": how.confidence, "num_resamples": how.num_resamples}
    over = extrapolation.resample_subjects(values, scores.columns, rng=how.rng, **options)
    return over, PREDICTED


def _of_roi(kind: Kind, responses, columns, found, over, interval) -> list[dict]:
    value = found.targets.value
    undefined = int(np.isnan(value).sum())
    num_subjects = len(set(responses.subject))
    roi = responses.roi[columns[0]]
    note = f"{undefined} targets are undefined and in no median" if undefined else ""
    rows = [
        row(kind, GROUP, roi, "", average="median", remark=note, interval=interval)
        | {"ci_low": float(over.low), "ci_high": float(over.high)}
        | {"value": float(found.ceiling.value), "num_targets": len(value) - undefined}
        | {"num_subjects": num_subjects, "num_undefined": undefined}
    ]
    for place, column in enumerate(columns.tolist()):
        one, low, high, _ = (float(part[place]) for part in found.targets)
        note = kind.remark if np.isnan(one) else ""
        rows.append(
            row(kind, responses.subject[column], roi, responses.target[column], remark=note)
            | {"value": one, "ci_low": low, "ci_high": high, "interval": kind.interval}
            | {"num_subjects": num_subjects, "num_targets": 1, "num_undefined": int(note != "")}
        )
    return rows


def _curve(family, scores, found) -> pd.DataFrame:
    """Median over targets, at each number of subjects: of average scores, and of fitted curves."""
    sizes = np.unique(scores.subsets.sum(axis=1))
    measured = pd.DataFrame(
        {
            "num_subjects": sizes.astype(float),
            "what": "scores",
            "r": metrics.median_defined(extrapolation.averages(scores), axis=0),
        }
    )
    ahead = np.geomspace(2, BEYOND * len(scores.subjects), NUM_POINTS)
    v0, tau0 = found.v0, found.tau0
    fitted = []
    for x in ahead:
        if family == "exponential":
            height = -np.expm1(-x / tau0)
        else:
            height = np.sqrt((x - 1) / (x - 1 + tau0))
        # Where v0 is 0 there is no scale, and the curve is 0.
        y = np.where(v0 == 0, 0.0, v0 * height)
        fitted.append(float(metrics.median_defined(np.median(y, axis=0))))
    curve = pd.DataFrame({"num_subjects": ahead, "what": "fitted", "r": fitted})
    return pd.concat([measured, curve], ignore_index=True)
