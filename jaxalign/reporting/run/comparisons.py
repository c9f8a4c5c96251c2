"""Findings about many models -> the frames that the page shows: models, points, correlations."""

import numpy as np
import pandas as pd

from jaxalign.reporting import findings as findings_lib
from jaxalign.reporting.findings import model_scores as scores_lib
from jaxalign.reporting.findings.gains import MEAN_OF_DATASETS

POOLED, WITHIN = "pooled", "within a family"
_SUBSETS = ("tuned", "all", "vanilla")  # the paper's comes first
# Numbers of models that a chart shows, with the label of the axis and whether it is logarithmic.
PROPERTIES = {
    "num_parameters": ("parameters", True),
    "mmlu": ("MMLU, share correct", False),
    "bbh": ("BBH, share correct", False),
    "behavior": ("behavioural alignment, |r| with reading times", False),
    "nwp_loss": ("loss of next-word prediction, nats", False),
    "training_tokens": ("training tokens", True),
}
# Names of predictors that are computed from properties.
_LABELS = {
    "log10_num_parameters": "log10 of parameters",
    "log10_num_units": "log10 of units per layer",
    "training_tokens": "training tokens",
    "log10_training_tokens": "log10 of training tokens",
}
_MOST_PANELS = 6
_GAINS = ("mean_percent", "mean_percent_by_base", "num_higher")


def outcomes(scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row per outcome and model, with all units: an outcome is a data set and metric.

    Args:
      scores: as `model_scores.model_scores` gives them.
    """
    part = scores[(scores.units == scores_lib.ALL_UNITS)]
    metrics = part.groupby("dataset").metric.transform("nunique") > 1
    name = part.dataset.where(~metrics, part.dataset + " (" + part.metric + ")")
    several_instructions = (
        part.groupby(["dataset", "metric", "model"]).instruction.transform("nunique") > 1
    )
    name = name.where(~several_instructions, name + ": " + part.instruction)
    several = part.groupby(["dataset", "metric", "model"]).protocol.transform("nunique") > 1
    return part.assign(outcome=name.where(~several, name + ", " + part.protocol))


def models_table(scores: pd.DataFrame, models: pd.DataFrame | None) -> pd.DataFrame:
    """Return a row per model: its properties, and its score on each data set.

    Args:
      scores: as `model_scores.model_scores` gives them.
      models: properties, one row per model (index `model`), or None.

    Returns:
      Columns `model`, the properties that any of the models has, and the outcomes.
    """
    wide = outcomes(scores).pivot(index="model", columns="outcome", values="score")
    order = list(dict.fromkeys(outcomes(scores).outcome))
    wide = wide.loc[list(dict.fromkeys(scores.model)), order]
    if models is not None:
        known = models.reindex(wide.index)
        known["tuned"] = [
            "" if x is None or x != x else "tuned" if x else "vanilla" for x in known.tuned
        ]
        texts = [name for name in known if not pd.api.types.is_numeric_dtype(known[name])]
        known[texts] = known[texts].fillna("")
        empty = (known.isna() | (known == "")).all()
        kept = known.loc[:, ~empty]
        wide = kept.join(wide.rename(columns={x: f"{x} (score)" for x in wide if x in kept}))
    return wide.reset_index(names="model")


def points(scores: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return brain scores with the properties of their models, for scatter plots and pairs.

    Args:
      scores: as `model_scores.model_scores` gives them.
      models: properties, one row per model (index `model`).

    Returns:
      One row per data set and model: `dataset` (the outcome), `model`, `score`, and the properties.
      The average comes first; reading times, which are a property here, and what a paper printed
      in addition to its own figures are left out.
    """
    part = outcomes(scores)
    part = part[(part.metric != scores_lib.BEHAVIORAL) & (part.dataset != findings_lib.PRINTED)]
    order = list(dict.fromkeys(part.outcome))
    order = sorted(order, key=lambda x: not x.startswith(scores_lib.AVERAGE))[:_MOST_PANELS]
    part = part[part.outcome.isin(order)].sort_values(
        "outcome", key=lambda x: x.map(order.index), kind="stable"
    )
    part = part[["outcome", "model", "score", "ceiling"]].rename(columns={"outcome": "dataset"})
    known = models.drop(columns=["score", "ceiling", "dataset"], errors="ignore")
    return part.merge(known, left_on="model", right_index=True, how="left").assign(
        family=lambda x: x.family.fillna(""), base=lambda x: x.base.fillna("")
    )


def label(predictor: str) -> str:
    """Name a predictor for charts and sentences, as on the axes of scatter plots."""
    known = PROPERTIES.get(predictor, (predictor.replace("_", " "), False))[0]
    return _LABELS.get(predictor, known)


def correlations(findings: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return Pearson correlations of an outcome, pooled and within families.

    Args:
      findings: rows with `findings.rows.COLUMNS`.
      outcome: the data set.

    Returns:
      The rows, `pool` ("tuned"), `family` ("" of a whole pool), `scope`, and `relation`, what the
      predictor is called; predictor by predictor, the pooled one of each set of models first.
    """
    part = findings[
        (findings.analysis == "correlation")
        & (findings.statistic == "pearson")
        & (findings.outcome == outcome)
        & findings.value.notna()
    ]
    of = _subsets(part)
    # Sets of models with one family more or less are in the file, and too many for a chart.
    part = part[of.pool.isin(_SUBSETS) & ~of.is_other]
    scope = np.where(part.subset.isin(_SUBSETS), POOLED, WITHIN)
    rank = of.pool[part.index].map(_SUBSETS.index)
    predictors = list(dict.fromkeys(part.predictor))
    part = part.assign(
        pool=of.pool,
        family=of.family,
        scope=scope,
        _p=part.predictor.map(predictors.index),
        _rank=rank,
    )
    part["relation"] = part.predictor.map(label)
    order = ["_p", "_rank", "scope"]
    return part.sort_values(order, kind="stable").drop(columns=["_p", "_rank"])


def _subsets(findings: pd.DataFrame) -> pd.DataFrame:
    """Divide the names of subsets ("tuned, T5", "all, without GPT2") into pool and the rest.

    Returns:
      Columns `pool`; `family`, "" of a whole pool; and `is_other`: with one family more or less.
    """
    parts = [name.partition(", ") for name in findings.subset]
    return pd.DataFrame(
        {
            "pool": [pool for pool, _, _ in parts],
            "family": [rest for _, _, rest in parts],
            "is_other": [rest.startswith(("with ", "without ")) for _, _, rest in parts],
        },
        index=findings.index,
    ).astype({"pool": str, "family": str, "is_other": bool})


def headline(findings: pd.DataFrame) -> pd.DataFrame:
    """Return the findings that a page has room for: mean gains, and Pearson correlations.

    Correlations are over all models, and over the first of tuned, all and vanilla models that is
    there: pooled, and within its families.
    """
    of = _subsets(findings)
    first = next((x for x in _SUBSETS if x in set(of.pool)), "")
    part = (of.pool == first) & ~of.is_other
    correlations = ["correlation", "brain_behavior"]
    kept = np.select(
        [findings.analysis == "gain", findings.analysis.isin(correlations)],
        [
            findings.statistic.isin(_GAINS) & ~of.is_other,
            (findings.statistic == "pearson") & (part | (findings.subset == "all")),
        ],
        True,
    )
    return findings[kept.astype(bool)].reset_index(drop=True)


def gain(findings: pd.DataFrame) -> pd.Series | None:
    """Return the mean gain by tuning that papers report first: the mean of the data sets' means.

    With a single data set it is the gain there; None where nothing was tuned.
    """
    part = findings[
        (findings.analysis == "gain")
        & (findings.subset == "all")
        & (findings.statistic == "mean_percent")
        & findings.value.notna()
    ]
    if part.empty:
        return None
    mean = part[part.outcome == MEAN_OF_DATASETS]
    return (mean if len(mean) else part).iloc[0]


def brief(findings: pd.DataFrame) -> pd.DataFrame:
    """Return the findings that a terminal has room for: mean gains, correlations, contrasts.

    Correlations that are pooled, contrasts of the mean of all tuned models.
    """
    kept = findings.subset.isin(_SUBSETS) & (findings.n > 1)
    gains = findings[kept & (findings.statistic == "mean_percent")]
    pearson = findings[kept & (findings.statistic == "pearson")]
    first = _first_outcome(pearson)
    contrasts = findings[
        (findings.analysis == "figure_contrast") & findings.predictor.str.startswith("mean of")
    ]
    return pd.concat([gains, first, contrasts]).reset_index(drop=True)


def _first_outcome(rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        return rows
    has_average = (rows.outcome == scores_lib.AVERAGE).any()
    return rows[rows.outcome == (scores_lib.AVERAGE if has_average else rows.outcome.iloc[0])]


def failed(checks: pd.DataFrame) -> pd.DataFrame:
    """Return the published numbers that do not follow; unknown ones are left out."""
    has_failed = [x is not pd.NA and not pd.isna(x) and not x for x in checks.follows]
    return checks[np.array(has_failed, bool)]  # of an empty list pandas takes no column
