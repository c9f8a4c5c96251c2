"""Scores divided by the ceilings of their own targets -> rows of subjects and ROIs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import features
from jaxalign.core.ceilings import repeats
from jaxalign.core.metrics import mean_defined
from jaxalign.core.scores import alignment, layers, scoring
from jaxalign.core.scores.protocol import Protocol
from jaxalign.core.solver import cv
from jaxalign.data.presentations import SignalToNoise
from jaxalign.data.schema import Responses

MEAN_OF_LAYERS = -1


class Chosen(NamedTuple):
    """What counts of the layers of a network, for the targets of the subjects."""

    r: Float[np.ndarray, "k v"]  # what the protocol reports of each fold and target
    r2: Float[np.ndarray, "k v"]
    layer: Int[np.ndarray, "k v"]  # place among the layers; `MEAN_OF_LAYERS`


def choose(results: Mapping[int, cv.Nested], responses: Responses, protocol: Protocol) -> Chosen:
    """Take the mean over layers where the protocol does, else those chosen in training.

    Each fold, subject and ROI has one layer, as in the rows (`core.scores.layers`): a layer that is
    best on the test scores is never taken, whatever the protocol does in its own score.

    Args:
      results: of each layer.
      responses: whose targets come first among those of the results.
      protocol: of kind "encoding".
    """
    v = len(responses.target)
    scores = np.stack([scoring.scores_of(x, protocol)[:, :v] for x in results.values()])
    r2 = np.stack([x.r2[:, :v] for x in results.values()])
    if protocol.aggregation.layers == "mean" and len(results) > 1:
        mean = np.full(scores.shape[1:], MEAN_OF_LAYERS)
        return Chosen(mean_defined(scores, axis=0), mean_defined(r2, axis=0), mean)
    inner = np.stack([x.inner_score[:, :v] for x in results.values()])
    places = list(zip(responses.subject, responses.roi, strict=True))
    choice = layers.choose_for_groups(inner, places)
    return Chosen(layers.take(scores, choice), layers.take(r2, choice), choice.layer)


def over_folds(values: Float[np.ndarray, "k v"], protocol: Protocol) -> Float[np.ndarray, " v"]:
    """Average over folds; NaN where one is undefined, unless the protocol leaves it out."""
    skip = protocol.aggregation.undefined != "drop_target"
    return mean_defined(values, axis=0) if skip else values.mean(axis=0)


def published_roots(
    found: Sequence[SignalToNoise], responses: Responses, tested: Sequence[str]
) -> Float[np.ndarray, " v"]:
    """Return the root of the published noise ceiling of each target, joined by its name.

    Args:
      found: of every subject.
      responses: whose targets are wanted.
      tested: stimuli on which models are tested, of which trials are counted.

    Returns:
      What a correlation with the mean responses can reach; NaN of a target of which no ratio is
      published.
    """
    roots = {}
    wanted = set(tested)
    for one in found:
        kept = np.array([x in wanted for x in one.stimulus_id], bool)
        share = repeats.of_ncsnr(one.ratio, one.repeats[kept])
        names = zip(one.roi, one.target, strict=True)
        values = np.sqrt(share).tolist()
        roots |= {(one.subject, *x): value for x, value in zip(names, values, strict=True)}
    columns = zip(responses.subject, responses.roi, responses.target, strict=True)
    return np.array([roots.get(x, np.nan) for x in columns], np.float64)


def by_subject_and_roi(
    score: Float[np.ndarray, " v"],
    ceiling: Float[np.ndarray, " v"],
    responses: Responses,
    protocol: Protocol,
) -> list[dict]:
    """Divide the score of each target by its ceiling, and average over those of a subject and ROI.

    Args:
      score: of each target of the subjects.
      ceiling: likewise; NaN where it is not known.
      responses: whose targets these are.
      protocol: says from which ceiling on is divided.

    Returns:
      `subject`, `roi`, `score` (raw) and `ceiling` (means over the targets that count in
      `normalized`), `normalized`, `num_targets`, `num_below_floor` (ceiling too low to divide by),
      and `num_undefined` (score or ceiling not defined).
    """
    is_low, ratios = alignment.ratio(score, ceiling, protocol.ceiling_floor)
    rows = []
    places = features.members(list(zip(responses.subject, responses.roi, strict=True)))
    for (subject, roi), columns in places.items():
        used = columns[np.isfinite(ratios[columns])]
        rows.append(
            {
                "subject": subject,
                "roi": roi,
                "score": float(mean_defined(score[used])),
                "ceiling": float(mean_defined(ceiling[used])),
                "normalized": float(mean_defined(ratios[used])),
                "num_targets": len(columns),
                "num_below_floor": int(is_low[columns].sum()),
                "num_undefined": len(columns) - len(used) - int(is_low[columns].sum()),
            }
        )
    return rows
