"""From scores of folds and targets to one score, and all that belongs to it."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxalign.core import features
from jaxalign.core.ceilings import ceiling as ceiling_lib
from jaxalign.core.features import Labels
from jaxalign.core.inference import stats
from jaxalign.core.metrics import mean_defined, median_defined
from jaxalign.core.scores.protocol import CEILING_FLOOR, Aggregation, Protocol


class Summary(NamedTuple):
    """Scores of folds and targets as a protocol summarises them."""

    score: float
    per_target: Float[np.ndarray, " v"]  # over folds
    per_fold: Float[np.ndarray, " k"]  # over targets


class Reference(NamedTuple):
    """The ceiling of a score, as its protocol summarises it, with an interval; NaN: unknown."""

    value: float
    low: float
    high: float
    per_target: Float[np.ndarray, " v"]


class AlignmentScore(NamedTuple):
    """A score, and all that belongs to it. NaN means undefined.

    Attributes:
      score: what the protocol reports: raw, or in relation to the ceiling. NaN where the ceiling is
        below the protocol's floor, which nothing can be divided by.
      raw: the metric, summarised over folds, targets and subjects.
      raw_low, raw_high: 95 % interval of `raw` for new subjects and stimuli, of one subject for new
        stimuli alone, see `interval`; NaN of a single test set, and of targets of several subjects
        pooled. It does not know that the best layer was taken. Of reading times over stories.
      ceiling: summarised as `raw` is; NaN where there is none.
      per_target: raw, over folds.
      per_fold: raw, over targets.
      alphas: penalties chosen, values of the protocol's grid; of all layers where layers are
        averaged.
      num_nan: (fold, target) pairs without a defined score.
      protocol: its name.
      folds_hash: of all indices of all folds.
      layers: layer that counts, for each fold and target; -1: the mean over all.
      per_layer: raw score of each layer.
      r2_per_target: coefficient of determination, over folds.
      contiguous: of a shuffled protocol, the raw score in contiguous folds of the same data.
      ceiling_low, ceiling_high: 95 % interval of a ceiling that was computed: over subjects
        (stories, of reading times). NaN where only a number was given, and where there are too few.
      ceiling_per_target: NaN where the ceiling is of the whole alone.
      num_repeated: test samples, over all folds, that present a stimulus that their fold trains on,
        as far as that is known.
      unclipped: `score` before it was cut to 0..1, where a protocol does that; else equal to it.
      num_below_floor: targets that have no score in relation to the ceiling, because theirs is
        below the floor (all, where the ceiling is of the whole); 0 where nothing is divided.
      ceiling_root: of a ceiling that is a reliability, as of reading times, its root: what |r| of
        a predictor without error is expected to be. NaN of other ceilings, and where the
        reliability is not positive.
      target_subjects, target_rois, target_names: labels of `per_target` and of all else that has an
        entry for each target; () of those that were not given. `jaxalign.per_target` joins them.
    """

    score: float
    raw: float
    raw_low: float
    raw_high: float
    ceiling: float
    per_target: Float[np.ndarray, " v"]
    per_fold: Float[np.ndarray, " k"]
    alphas: Float[np.ndarray, "*l k v"]
    num_nan: int
    protocol: str
    folds_hash: str
    layers: Int[np.ndarray, "k v"]
    per_layer: Float[np.ndarray, " l"]
    r2_per_target: Float[np.ndarray, " v"]
    contiguous: float
    ceiling_low: float
    ceiling_high: float
    ceiling_per_target: Float[np.ndarray, " v"]
    num_repeated: int = 0
    unclipped: float = np.nan
    num_below_floor: int = 0
    ceiling_root: float = np.nan
    target_subjects: Sequence[str] | Shaped[np.ndarray, " v"] = ()
    target_rois: Sequence[str] | Shaped[np.ndarray, " v"] = ()
    target_names: Sequence[str] | Shaped[np.ndarray, " v"] = ()

    def __repr__(self) -> str:
        """Say in a few lines what a notebook's cell should show; arrays by their sizes alone."""
        raw = _show(self.raw, self.raw_low, self.raw_high)
        ceiling = _show(self.ceiling, self.ceiling_low, self.ceiling_high)
        root = (
            "" if np.isnan(self.ceiling_root) else f", a reliability: root {self.ceiling_root:.4f}"
        )
        note = f", cut from {self.unclipped:.4f}" if abs(self.unclipped - self.score) > 0 else ""
        lines = [
            f"AlignmentScore of protocol {self.protocol}: {self.score:.4f}{note}",
            f"  raw {raw}, ceiling {ceiling}{root}",
        ]
        if self.num_below_floor:
            lines.append(
                f"  {self.num_below_floor} of {len(self.per_target)} targets have a ceiling below "
                "the floor, and no score in relation to it"
            )
        if not np.isnan(self.contiguous):
            lines.append(f"  raw in contiguous folds of the same data {self.contiguous:.4f}")
        if self.num_repeated:
            lines.append(f"  {self.num_repeated} test samples present what is trained on")
        if len(self.per_layer) > 1:
            counts = np.bincount(self.layers.ravel() + 1, minlength=1)
            often = "mean of all" if counts[0] else f"most often layer {counts.argmax() - 1}"
            lines.append(f"  {len(self.per_layer)} layers: {often}")
        lines.append(
            f"  {len(self.per_fold)} folds ({self.folds_hash}), {len(self.per_target)} targets, "
            f"{self.num_nan} undefined"
        )
        return "\n".join(lines)


def _show(value, low, high):
    ends = "" if np.isnan(low) else f" (95 % interval {low:.4f} to {high:.4f})"
    return f"{value:.4f}{ends}"


def summarize(
    values: Float[np.ndarray, "k v"], rule: Aggregation, subjects: Labels | None = None
) -> Summary:
    """Summarise scores over folds, targets and subjects.

    Args:
      values: score of each fold and target; NaN where undefined.
      rule: in which order, and how.
      subjects: of each target; None: all are of one.
    """
    if rule.undefined == "zero":
        values = np.nan_to_num(values, nan=0.0)
    skip = rule.undefined != "drop_target"
    over_folds = mean_defined(values, axis=0) if skip else values.mean(axis=0)
    v = values.shape[1]
    labels = ["" for _ in range(v)]
    if subjects is not None and rule.subjects == "mean":
        labels = subjects
    by_subject = list(features.members(labels).values())
    targets = mean_defined if rule.targets == "mean" else median_defined

    def over_targets(x):  # [... v]
        return mean_defined(
            np.stack([targets(x[..., index], axis=-1) for index in by_subject]), axis=0
        )

    per_fold = over_targets(values)
    score = mean_defined(per_fold, axis=0) if rule.first == "targets" else over_targets(over_folds)
    return Summary(float(score), over_folds, per_fold)


def interval(
    values: Float[np.ndarray, "k v"],
    rule: Aggregation,
    subjects: Labels | None = None,
    confidence: float = 0.95,
    *,
    is_correlation: bool = False,
) -> tuple[float, float]:
    """Return the interval of a summary over subjects and folds, by `stats.crossed_interval`.

    Each subject's targets are summarised in each fold as the rule says. The interval is shifted to
    lie about the summary, which equals the mean of these values only where both are means.

    Args:
      values: see `summarize`.
      rule: likewise.
      subjects: likewise; None: all targets are of one, and folds alone speak.
      confidence: coverage.
      is_correlation: lay it out on the scale of Fisher's z; see `stats.fisher_ends`.

    Returns:
      NaN with a single test set, which does not show how scores depend on its stimuli (an interval
      over subjects alone covered the truth in 92.7 % where subjects share no signal, and in less
      where they do). NaN where the targets of several subjects are pooled: the median over all of
      them is no mean over subjects. NaN where no subject has a score in every fold.
    """
    v = values.shape[1]
    labels = [""] * v if subjects is None else subjects
    by_subject = list(features.members(labels).values())
    if len(values) < 2 or (rule.subjects == "pooled" and len(by_subject) > 1):
        return np.nan, np.nan
    if rule.undefined == "drop_target":
        values = np.where(np.isnan(values).any(axis=0), np.nan, values)
    found = stats.crossed_interval(
        np.stack([summarize(values[:, index], rule).per_fold for index in by_subject]), confidence
    )
    score, half = summarize(values, rule, subjects).score, (found.high - found.low) / 2
    return stats.fisher_ends(score, half) if is_correlation else (score - half, score + half)


def without_fit(
    protocol: Protocol,
    raw: float,
    *,
    interval: tuple[float, float] = (np.nan, np.nan),
    ceiling: Reference | None = None,
    num_nan: int = 0,
    folds_hash: str = "",
) -> AlignmentScore:
    """Return the score of a protocol that fits nothing, and so has no folds, penalties or layers.

    Args:
      protocol: of kind "reading_time" or "next_word".
      raw: the metric.
      interval: its ends.
      ceiling: None: there is none.
      num_nan: words that do not count.
      folds_hash: of those that do; "": not known.
    """
    known = ceiling or reference(np.nan, 1, protocol.aggregation)
    is_low, divided = divide(raw, known.value, protocol)
    is_reliability = protocol.ceiling == "split_half"
    one, nothing = np.array([raw]), np.full((1, 1), np.nan)
    return AlignmentScore(
        score=clip(divided, protocol),
        raw=float(raw),
        raw_low=interval[0],
        raw_high=interval[1],
        ceiling=known.value,
        per_target=one,
        per_fold=one,
        alphas=nothing,
        num_nan=num_nan,
        protocol=protocol.name,
        folds_hash=folds_hash,
        layers=np.zeros((1, 1), int),
        per_layer=one,
        r2_per_target=nothing[0],
        contiguous=np.nan,
        ceiling_low=known.low,
        ceiling_high=known.high,
        ceiling_per_target=known.per_target,
        unclipped=float(divided),
        num_below_floor=int(is_low),
        ceiling_root=float(ceiling_lib.root(np.array(known.value))) if is_reliability else np.nan,
    )


def divide(
    raw: float | Float[np.ndarray, "..."],
    ceiling: float | Float[np.ndarray, "..."],
    protocol: Protocol,
) -> tuple[Bool[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Divide scores by ceilings, as a protocol does.

    Args:
      raw: scores.
      ceiling: broadcast with them; NaN where there is none.
      protocol: says whether scores are divided, and from which ceiling on.

    Returns:
      Where a ceiling is below the protocol's floor, in the shape of ceilings; and the scores, which
      are NaN there. Undivided scores where the protocol divides none.
    """
    if protocol.normalize == "none":
        return np.zeros(np.shape(ceiling), bool), np.asarray(raw, np.float64)
    return ratio(raw, ceiling, protocol.ceiling_floor)


def ratio(
    raw: float | Float[np.ndarray, "..."],
    ceiling: float | Float[np.ndarray, "..."],
    floor: float = CEILING_FLOOR,
) -> tuple[Bool[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Divide scores by the ceilings that are not below a floor; `divide` asks a protocol for it.

    Args:
      raw: scores.
      ceiling: broadcast with them; NaN where there is none.
      floor: the lowest ceiling that divides.

    Returns:
      Where a ceiling is below the floor, in the shape of ceilings; and the ratios, NaN there.
    """
    known = np.asarray(ceiling, np.float64)
    is_low = np.asarray(known < floor)
    return is_low, np.asarray(np.asarray(raw, np.float64) / np.where(is_low, np.nan, known))


def clip(score: float | Float[np.ndarray, ""], protocol: Protocol) -> float:
    """Cut a score to 0..1 where the protocol does."""
    return float(np.clip(score, 0.0, 1.0) if protocol.normalize == "clip" else score)


def remarks(found: AlignmentScore, protocol: Protocol) -> list[str]:
    """Say where a score was cut to its ceiling, and where that is too near to 0 to divide by."""
    said = []
    if found.unclipped > found.score:
        said.append(
            f"{found.protocol} cuts {found.unclipped:.3f} (raw {found.raw:.3f}, ceiling "
            f"{found.ceiling:.3f}) to {found.score:.3f}: `unclipped` and `raw` keep what it was."
        )
    if found.num_below_floor:
        said.append(
            f"{found.num_below_floor} of {len(found.per_target)} targets have a ceiling below "
            f"{protocol.ceiling_floor:g}, which {found.protocol} does not divide by: they have no "
            "score in relation to it."
        )
    return said


def reference(
    values: float | Float[np.ndarray, " v"],
    num_targets: int,
    rule: Aggregation,
    subjects: Labels | None = None,
) -> Reference:
    """Summarise a ceiling as scores are, without an interval; undefined ones are left out.

    Args:
      values: of the whole, or of each target.
      num_targets: v.
      rule: over targets and subjects.
      subjects: of each target; see `summarize`.
    """
    array = np.asarray(values, np.float64)
    if not array.ndim:
        return Reference(float(array), np.nan, np.nan, np.full(num_targets, np.nan))
    # Skipped even where an undefined score counts as 0: an unknown ceiling is not a ceiling of 0.
    skipping = dataclasses.replace(rule, undefined="skip")
    return Reference(summarize(array[None], skipping, subjects).score, np.nan, np.nan, array)
