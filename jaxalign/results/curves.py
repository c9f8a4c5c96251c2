"""Ceilings extrapolated over subjects -> rows, and the curves behind them."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from jaxalign.core import features, folds, metrics
from jaxalign.core.ceilings import extrapolation, subsets
from jaxalign.core.ceilings.saturation import Family
from jaxalign.core.ceilings.subsets import SubsetScores
from jaxalign.data.schema import GROUP, Responses
from jaxalign.io import arrays, run_dir
from jaxalign.results import ceilings
from jaxalign.results.ceilings import Setting, row

KINDS: dict[str, Family] = {
    "extrapolated": "exponential",
    "extrapolated_reliability": "reliability",
}
OVER_SCORES = "scores of subsets"
JACKKNIFE = "subjects, each left out"
PREDICTED = "subjects predicted"
SCORES = "subset_scores.npz"
# Numbers of subjects at which fitted curves are drawn, up to this multiple of those there are.
NUM_POINTS, BEYOND = 60, 2.0


class Saved(NamedTuple):
    """Scores of subsets, in one array."""

    r: Float[np.ndarray, " m"]
    chosen: Bool[np.ndarray, "c s"]


def rows(
    responses: Responses,
    splits: Sequence[folds.Split],
    how: Setting,
    *,
    alphas: Sequence[float],
    subsets_per_subject: int,
    num_sizes: int,
    num_curves: int,
    folder: pathlib.Path,
    curves: str,
    progress: Callable[[Sequence], Iterable],
) -> list[dict]:
    """Predict subjects from others, and extrapolate to infinitely many.

    Each target is predicted from all targets of the other subjects. An ROI's ceiling is the median
    over its targets in all subjects. Its interval leaves out each subject in turn where every
    subset was scored, and resamples the subjects predicted otherwise.

    Args:
      responses: of all subjects.
      splits: training and test samples.
      how: intervals.
      alphas: see `subsets.score`; several are chosen from for each subject.
      subsets_per_subject: see `subsets.balanced_members`.
      num_sizes: likewise.
      num_curves: bootstraps of each target's curve.
      folder: where scores are kept, for a run that was interrupted.
      curves: file of averages and fitted curves by ROI and number of subjects.
      progress: wraps the list of chunks of subsets.
    """
    subjects = list(dict.fromkeys(responses.subject))
    if len(subjects) < 3:
        remark = f"needs at least 3 subjects, there are {len(subjects)}"
        data = ceilings.shared(responses)
        return [
            one | {"average": "median"}
            for kind in KINDS
            for one in ceilings.undefined_rois(kind, "r", data, remark)
        ]
    chosen = subsets.balanced_members(
        len(subjects), per_subject=subsets_per_subject, num_sizes=num_sizes, rng=how.rng
    )
    scores = _scores(responses, splits, chosen, alphas, folder / SCORES, progress)
    rows, drawn = [], []
    for kind, family in KINDS.items():
        for roi in dict.fromkeys(responses.roi):
            keep = np.array([x == roi for x in responses.roi])
            own = extrapolation.of_targets(scores, keep)
            found = extrapolation.extrapolate(
                own, family=family, num_resamples=num_curves, confidence=how.confidence
            )
            rows += _of_roi(kind, family, roi, keep, responses, own, found, how)
            drawn.append(_curve(kind, family, roi, own, found))
    table = pd.concat(drawn, ignore_index=True)
    text = table.to_csv(index=False, na_rep="nan", lineterminator="\n")
    run_dir.write_atomic(folder / curves, text.encode())
    return rows


def _scores(responses, splits, chosen, alphas, path, progress) -> SubsetScores:
    """Score all subsets, or read what an interrupted run has scored."""
    places = features.members(responses.subject)
    columns = tuple(places.values())
    shapes = [(int(chosen[:, i].sum()), len(splits), len(own)) for i, own in enumerate(columns)]
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


def _of_roi(kind, family, roi, keep, responses, scores, found, how: Setting) -> list[dict]:
    value = found.targets.value
    undefined = int(np.isnan(value).sum())
    common = {
        "average": "median",
        "num_subjects": len(scores.subjects),
        "num_targets": len(value) - undefined,
        "num_undefined": undefined,
    }
    if undefined:
        common["remark"] = f"{undefined} targets are undefined and in no median"
    sizes = scores.subsets.sum(axis=1)
    every = 2 ** len(scores.subjects) - len(scores.subjects) - 1
    if len(sizes) == every and len(scores.subjects) > 3:
        over = extrapolation.leave_subjects_out(scores, family=family, confidence=how.confidence)
        interval = JACKKNIFE
    else:
        over = extrapolation.resample_subjects(
            value,
            scores.columns,
            rng=how.rng,
            confidence=how.confidence,
            num_resamples=how.num_resamples,
        )
        interval = PREDICTED
    ends = {"ci_low": float(over.low), "ci_high": float(over.high), "interval": interval}
    rows = [row(kind, "r", GROUP, roi, "", value=float(found.ceiling.value)) | ends | common]
    columns = np.flatnonzero(keep)
    for place, column in enumerate(columns.tolist()):
        one = {
            name: float(part[place])
            for name, part in zip(("value", "ci_low", "ci_high"), found.targets, strict=False)
        }
        missing = np.isnan(value[place])
        rows.append(
            row(kind, "r", responses.subject[column], roi, responses.target[column])
            | one
            | {"interval": OVER_SCORES, "num_subjects": len(scores.subjects), "num_targets": 1}
            | {"num_undefined": int(missing)}
            | ({"remark": "fewer than two sizes of subsets have a score"} if missing else {})
        )
    return rows


def _curve(kind, family, roi, scores, found) -> pd.DataFrame:
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
    both = pd.concat([measured, curve], ignore_index=True)
    both.insert(0, "roi", roi)
    both.insert(0, "kind", kind)
    return both
