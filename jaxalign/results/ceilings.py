"""Ceilings of arrays -> rows in the schema of `io.rows.CEILINGS`, by target and by ROI."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxalign.core import features, metrics
from jaxalign.core.ceilings import ceiling
from jaxalign.core.ceilings.ceiling import Ceiling
from jaxalign.core.inference import stats
from jaxalign.data.schema import GROUP, Responses
from jaxalign.results import targets

OVER_SUBJECTS = "subjects"
OVER_BLOCKS = "blocks of samples"
# Ends of the interval of a mean over targets are means of their ends, as if all moved together.
ENDS = ", mean of the targets' ends"
FEW_SUBJECTS = "fewer than two subjects have it"


class Shared(NamedTuple):
    """Targets that all subjects have, and that vary in at least two."""

    Y: Float[np.ndarray, "s v n"]  # standardised; 0 where the target is constant
    varies: Bool[np.ndarray, "s v"]
    subject: list[str]
    roi: list[str]
    target: list[str]
    left_out: dict[str, int]  # targets of each ROI that some subject lacks, or fewer than two vary

    @property
    def whose(self) -> "Whose":
        """Return the group and its targets."""
        names = list(zip(self.roi, self.target, strict=True))
        return Whose(GROUP, names, len(self.subject), self.left_out)


class Whose(NamedTuple):
    """A subject or the group, and the targets that its ceilings are of."""

    subject: str
    names: Sequence[tuple[str, str]]  # ROI and target of each
    num_subjects: int = 1  # behind the ceilings of ROIs
    left_out: Mapping[str, int] = {}  # further targets of each ROI that have no ceiling


class Kind(NamedTuple):
    """A kind of ceiling, as its rows say it."""

    name: str
    scale: str = "r"  # what the values are
    interval: str = OVER_BLOCKS  # what the interval resamples; "": there is none
    remark: str = "constant, or no variance is left"  # why the ceiling of a target is undefined


def standardized(responses: Responses) -> Float[np.ndarray, "n v"]:
    """Standardise as the encode stage does: in TRs within each run, single stimuli over all.

    Args:
      responses: all.

    Returns:
      Responses; those of a constant target are 0.
    """
    values = np.where(responses.constant, 0.0, responses.values.astype(np.float64))
    return features.standardize(values, targets.runs_of(responses))


def shared(responses: Responses) -> Shared:
    """Find the targets that subjects have in common.

    Args:
      responses: of all subjects.
    """
    common = targets.shared_by_all(responses)
    every = dict.fromkeys(zip(responses.roi, responses.target, strict=True))
    left_out = dict.fromkeys(responses.roi, 0)
    for roi, _ in every.keys() - set(common.names):
        left_out[roi] += 1
    return Shared(
        Y=standardized(responses)[:, common.columns.T].transpose(1, 2, 0),
        varies=common.varies.T,
        subject=list(dict.fromkeys(responses.subject)),
        roi=[roi for roi, _ in common.names],
        target=[target for _, target in common.names],
        left_out=left_out,
    )


def row(kind: Kind, subject: str, roi: str, target: str, **others) -> dict:
    """Return one row without its provenance; what is not given is undefined, or empty.

    Args:
      kind: of ceiling.
      subject: or the group.
      roi: region.
      target: "": all of the ROI's.
      **others: further columns.
    """
    undefined = dict.fromkeys(("value", "ci_low", "ci_high", "p", "p_adjusted"), float("nan"))
    texts = dict.fromkeys(("average", "interval", "remark"), "")
    counts = {"num_subjects": 0, "num_targets": 0, "num_undefined": 0}
    keys = {
        "kind": kind.name,
        "scale": kind.scale,
        "subject": subject,
        "roi": roi,
        "target": target,
    }
    return keys | texts | undefined | counts | others


def undefined_rois(kind: Kind, data: Shared, remark: str) -> list[dict]:
    """Return a row per ROI in which a ceiling is undefined.

    Args:
      kind: of ceiling.
      data: whose ROIs; all of them, with or without shared targets.
      remark: why.
    """
    rows = []
    for roi, missing in data.left_out.items():
        num = missing + data.roi.count(roi)
        counts = {"num_undefined": num, "num_subjects": len(data.subject)}
        rows.append(row(kind, GROUP, roi, "", average="mean", remark=remark, **counts))
    return rows


def over_subjects(
    kind: Kind,
    values: Float[np.ndarray, "s v"],
    left_out: Float[np.ndarray, "s s v"],
    data: Shared,
    confidence: float,
) -> list[dict]:
    """Rows of correlations of subjects: of each target and ROI, and their means over subjects.

    Args:
      kind: of ceiling, whose intervals are of a jackknife over subjects.
      values: of each subject and shared target; NaN where undefined.
      left_out: the same without each subject, from `ceiling.without_each_subject`.
      data: whose they are.
      confidence: coverage of the intervals.
    """
    rows = []
    of_each = ceiling.over_subjects(values, left_out, confidence=confidence)
    means, counts = by_roi(values, data.roi)
    s, v = values.shape
    means_left, _ = by_roi(left_out.reshape(s * s, v), data.roi)
    means_left = means_left.reshape(s, s, -1)
    rois = ceiling.over_subjects(means, means_left, confidence=confidence)
    for roi in data.left_out:
        of_roi = np.flatnonzero([x == roi for x in data.roi])
        common = {"average": "mean", "interval": kind.interval}
        if roi not in counts:
            remark = _nothing_shared(data.left_out[roi])
            rows.append(
                row(kind, GROUP, roi, "", num_undefined=data.left_out[roi], remark=remark)
                | {"average": "mean"}
            )
            continue
        place = list(counts).index(roi)
        undefined = int(np.isnan(values[:, of_roi]).all(axis=0).sum()) + data.left_out[roi]
        rows.append(
            row(kind, GROUP, roi, "", num_targets=len(of_roi) + data.left_out[roi] - undefined)
            | common
            | _numbers(rois, place)
            | {"num_undefined": undefined}
            | ({"remark": _partly(undefined)} if undefined else {})
        )
        for s, subject in enumerate(data.subject):
            num = int(np.isnan(values[s, of_roi]).sum())
            rows.append(
                row(kind, subject, roi, "", average="mean", value=float(means[s, place]))
                | {"num_subjects": 1, "num_targets": len(of_roi) - num, "num_undefined": num}
                | ({"remark": _constant(num, len(of_roi))} if num else {})
            )
        for v in of_roi.tolist():
            counts_of = {"num_targets": 1, "num_undefined": int(np.isnan(values[:, v]).sum())}
            rows.append(
                row(kind, GROUP, roi, data.target[v], interval=kind.interval)
                | _numbers(of_each, v)
                | counts_of
                | ({"remark": kind.remark} if np.isnan(of_each.value[v]) else {})
            )
            for s, subject in enumerate(data.subject):
                value = float(values[s, v])
                remark = "constant in a block of samples, or throughout" if value != value else ""
                rows.append(
                    row(kind, subject, roi, data.target[v], value=value, remark=remark)
                    | {"num_subjects": 1, "num_targets": 1, "num_undefined": int(value != value)}
                )
    return rows


def of_targets(
    kind: Kind, found: Ceiling, whose: Whose, *, rois: Ceiling | None = None
) -> list[dict]:
    """Rows of each target, and of each ROI's mean over targets.

    Args:
      kind: of ceiling.
      found: of each target, `num` the subjects behind it.
      whose: subject or group, and its targets.
      rois: of each ROI in order; None: means of values and of ends of intervals over targets.
    """
    rows = []
    roi_of = [roi for roi, _ in whose.names]
    places = features.members(roi_of)
    is_mean_of_ends = rois is None and kind.interval != ""
    if rois is None:
        value, low, high = by_roi(np.stack(found[:3]), roi_of)[0]
        rois = Ceiling(value, low, high, np.zeros(len(value), int))
    order = list(places)
    for roi in dict.fromkeys([*roi_of, *whose.left_out]):
        columns = places.get(roi, np.empty(0, int))
        left_out = whose.left_out.get(roi, 0)
        undefined = int(np.isnan(found.value[columns]).sum()) + left_out
        note = _partly(undefined) if len(columns) else _nothing_shared(undefined)
        rows.append(
            row(kind, whose.subject, roi, "", average="mean", remark=note if undefined else "")
            | (_numbers(rois, order.index(roi)) if len(columns) else {})
            | {
                "interval": kind.interval + (ENDS if is_mean_of_ends and len(columns) > 1 else ""),
                "num_subjects": whose.num_subjects,
                "num_targets": len(columns) + left_out - undefined,
                "num_undefined": undefined,
            }
        )
        for i in columns.tolist():
            note = kind.remark if np.isnan(found.value[i]) else ""
            name = whose.names[i][1]
            rows.append(
                row(kind, whose.subject, roi, name, interval=kind.interval, remark=note)
                | _numbers(found, i)
                | {"num_targets": 1, "num_undefined": int(note != "")}
            )
    return rows


def add_significance(
    rows: list[dict],
    values: Float[np.ndarray, " v"],
    nulls: Float[np.ndarray, "q v"],
    data: Shared,
) -> None:
    """Put p-values into the group's rows: of targets, and of ROIs by means over targets.

    Adjusted over targets, and over ROIs, after Benjamini and Hochberg.

    Args:
      rows: of one kind; changed in place.
      values: ISC of each shared target, averaged over subjects or pairs.
      nulls: the same of subjects moved apart.
      data: whose they are.
    """
    means, names = by_roi(np.vstack([values, nulls]), data.roi)
    of_rois = stats.compare(means[0], means[1:], rounding=1e-10).p
    of_each = stats.compare(values, nulls, rounding=1e-10).p
    p = dict(zip(((roi, "") for roi in names), of_rois, strict=True))
    adjusted = dict(zip(p, stats.benjamini_hochberg(of_rois), strict=True))
    keys = list(zip(data.roi, data.target, strict=True))
    p |= dict(zip(keys, of_each, strict=True))
    adjusted |= dict(zip(keys, stats.benjamini_hochberg(of_each), strict=True))
    for one in rows:
        key = (one["roi"], one["target"])
        if one["subject"] == GROUP and key in p:
            one["p"], one["p_adjusted"] = float(p[key]), float(adjusted[key])


def by_roi(
    values: Float[np.ndarray, "m v"], roi: Sequence[str]
) -> tuple[Float[np.ndarray, "m g"], dict[str, int]]:
    """Average over the targets of each ROI where they are defined.

    Args:
      values: one column per target.
      roi: of each.

    Returns:
      Means, NaN where no target is defined; and the ROIs in their order with their targets' number.
    """
    places = features.members(list(roi))
    found = np.full((len(values), len(places)), np.nan)
    for i, columns in enumerate(places.values()):
        found[:, i] = metrics.mean_defined(values[:, columns], axis=1)
    return found, {name: len(columns) for name, columns in places.items()}


def _numbers(found: Ceiling, i: int) -> dict:
    names = ("value", "ci_low", "ci_high", "num_subjects")
    return {name: x[i].item() for name, x in zip(names, found, strict=True)}


def _partly(num: int) -> str:
    return f"{num} targets are undefined and in no mean"


def _nothing_shared(num: int) -> str:
    return f"none of {num} targets is in every subject and varies in two"


def _constant(num: int, of: int) -> str:
    return f"{num} of {of} targets are constant in a block of samples, or throughout"
