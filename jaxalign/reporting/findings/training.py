"""Scores along trainings: by arm and step with the spread over seeds, and differences of arms."""

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxalign.core.inference import stats
from jaxalign.reporting import tables

START = "its own step 0"  # what an arm is compared with, beside other arms
FROZEN = "frozen"  # the arm that must not move
MMLU = "mmlu"  # property of models
_KEYS = ["dataset", "base"]
POINTS = (
    *_KEYS,
    "arm",
    "step",
    "tokens",
    "target_tokens",
    "num_seeds",
    "score",
    "seed_low",
    "seed_high",
    "loss",
    "mmlu",
)
DIFFERENCES = (
    *_KEYS,
    "first",
    "second",
    "step",
    "difference",
    "ci_low",
    "ci_high",
    "num_seeds",
    "num_folds",
    "p",
    "p_adjusted",
)


class Along(NamedTuple):
    """What was found along trainings.

    Attributes:
      points: a row for each data set, arm and step: mean over seeds, the least and the largest.
      differences: a row for each pair of arms at a step, and for each arm against its step 0.
      sentences: what follows of them, in words.
      finals: names of the models after the last step of each training.
      models: names of all models along the trainings.
    """

    points: pd.DataFrame
    differences: pd.DataFrame
    sentences: tuple[str, ...]
    finals: frozenset[str]
    models: frozenset[str]


def of_run(
    rows: pd.DataFrame, tuned: pd.DataFrame, properties: pd.DataFrame | None = None
) -> Along | None:
    """Find how scores move along trainings.

    The score of a model is the mean over regions, and over people if there are any, with the layer
    chosen inside the training data. Arms are compared seed by seed and fold by fold, as they see
    the same rows in the same order; intervals are for other seeds and other stimuli (people are
    those who were recorded).

    Args:
      rows: score rows of networks and controls, each scored in one way.
      tuned: a row for each model, as the stage tune writes them.
      properties: of models (index `model`), of which MMLU is shown; None: nothing is known.

    Returns:
      None if none of the models was scored.
    """
    networks = rows[(rows.control_of == "") & rows.model.isin(tuned.model)]
    if networks.empty:
        return None
    nested = tables.nested_layer(networks)
    folds = {key: _folds(part) for key, part in nested.groupby(["dataset", "model"], sort=False)}
    points, differences = [], []
    for dataset in dict.fromkeys(nested.dataset):
        there = tuned[np.array([(dataset, x) in folds for x in tuned.model], bool)]
        for base, part in there.groupby("base", sort=False):
            of = {row.Index: folds[dataset, row.model] for row in part.itertuples()}
            keys = {"dataset": dataset, "base": base}
            points += [keys | x for x in _points(part, of, properties)]
            found = list(_differences(part, of))
            adjusted = stats.benjamini_hochberg(np.array([x["p"] for x in found]))
            differences += [
                keys | x | {"p_adjusted": p} for x, p in zip(found, adjusted, strict=True)
            ]
    of_arms = pd.DataFrame(points, columns=POINTS)
    compared = pd.DataFrame(differences, columns=DIFFERENCES)
    last = tuned.groupby(["base", "arm", "training_seed"]).step.transform("max")
    return Along(
        of_arms,
        compared,
        tuple(_sentences(of_arms, compared)),
        frozenset(tuned.model[tuned.step == last]),
        frozenset(tuned.model),
    )


def _folds(nested: pd.DataFrame) -> Float[np.ndarray, " k"]:
    """Average scores of folds over regions and people; without people the group's."""
    people = nested[nested.subject != tables.GROUP]
    kept = people if len(people) else nested
    return np.mean(np.stack(kept.fold_scores.tolist()), axis=0)


def _points(
    part: pd.DataFrame,
    folds: Mapping[int, Float[np.ndarray, " k"]],
    properties: pd.DataFrame | None,
) -> Iterator[dict]:
    for (arm, step), seeds in part.groupby(["arm", "step"], sort=False):
        scores = np.array([folds[i].mean() for i in seeds.index])
        mmlu = np.nan
        if properties is not None and MMLU in properties:
            mmlu = properties[MMLU].reindex(seeds.model).astype(float).mean()
        yield {
            "arm": arm,
            "step": step,
            "tokens": float(seeds.tokens.mean()),
            "target_tokens": float(seeds.target_tokens.mean()),
            "num_seeds": len(seeds),
            "score": scores.mean(),
            "seed_low": scores.min(),
            "seed_high": scores.max(),
            "loss": float(seeds.loss.mean()),
            "mmlu": mmlu,
        }


def _differences(
    part: pd.DataFrame, folds: Mapping[int, Float[np.ndarray, " k"]]
) -> Iterator[dict]:
    """Compare arms at each step that both have, and each with its own step 0, seed by seed."""
    at = {(x.arm, x.step, x.training_seed): folds[x.Index] for x in part.itertuples()}
    arms, seeds = list(dict.fromkeys(part.arm)), list(dict.fromkeys(part.training_seed))
    for step in sorted(set(part.step)):
        pairs = [(a, b, (a, step), (b, step)) for a, b in itertools.combinations(arms, 2)]
        if step:
            pairs += [(a, START, (a, step), (a, 0)) for a in arms]
        for first, second, one, other in pairs:
            both = [x for x in seeds if (*one, x) in at and (*other, x) in at]
            if both:
                values = np.stack([at[(*one, x)] - at[(*other, x)] for x in both])
                yield {"first": first, "second": second, "step": step} | _compared(values)


def _compared(values: Float[np.ndarray, "s k"]) -> dict[str, float]:
    found = stats.crossed_interval(values)
    return {
        "difference": found.mean,
        "ci_low": found.low,
        "ci_high": found.high,
        "num_seeds": found.n,
        "num_folds": values.shape[1],
        "p": stats.crossed_p(values),
    }


def _sentences(points: pd.DataFrame, differences: pd.DataFrame) -> Iterator[str]:
    for (dataset, base), part in differences.groupby(_KEYS, sort=False):
        own = points[(points.dataset == dataset) & (points.base == base)]
        last = part[part.step == part.groupby("first").step.transform("max")]
        last = last[last.step > 0]
        where = f"{base} on {dataset}, after the last step"
        moved = last[(last["first"] != FROZEN) | (last.second != START)]
        told = [x for x in moved.itertuples() if x.p_adjusted < 0.05]
        for x in told:
            above = "above" if x.difference > 0 else "below"
            yield (
                f"{where}: {x.first} is {above} {x.second} by {abs(x.difference):.3f} "
                f"[{x.ci_low:.3f}, {x.ci_high:.3f}] (p adjusted {x.p_adjusted:.2g})."
            )
        silent = [x for x in moved.itertuples() if not x.p_adjusted < 0.05]
        if silent:
            shown = "; ".join(
                f"{x.first} minus {x.second} {x.difference:+.3f} [{x.ci_low:.3f}, {x.ci_high:.3f}]"
                for x in silent
            )
            yield f"{where}, nothing follows from these differences: {shown}."
        frozen = part[(part["first"] == FROZEN) & (part.second == START)]
        if len(frozen):
            most = frozen.difference.abs().max()
            yield (
                f"{base} on {dataset}: the arm that is not trained differs by exactly 0 from its "
                "beginning, as it must."
                if most == 0
                else f"{base} on {dataset}: the arm that is not trained differs by up to "
                f"{most:.3g} from its beginning, so that something else than training moves scores."
            )
        if own.num_seeds.max() == 1:
            yield (
                f"{base} on {dataset}: each arm was trained with one seed, so that nothing is "
                "known of how seeds differ; intervals are over folds alone."
            )
