"""Scores and properties of many models -> tidy findings: gains, correlations, layers, regions."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxalign.errors import InputError
from jaxalign.reporting.findings import (
    aw2024,
    correlations,
    depth,
    gains,
    oota2025,
    published_checks,
)
from jaxalign.reporting.findings import model_scores as model_scores_lib
from jaxalign.reporting.findings import rows as finding_rows
from jaxalign.reporting.findings.model_scores import AVERAGE, BEHAVIORAL
from jaxalign.reporting.findings.options import Options

PRINTED = "average as printed"  # by a paper: rounded from numbers with more digits than its table's
CHECKS = {"aw2024": aw2024.checks, "oota2025": oota2025.checks}

# What the tables hold, for pages and readers of the files.
LEGENDS = {
    "gain": gains.LEGEND,
    "correlation": correlations.LEGEND,
    "brain_behavior": correlations.LEGEND_BEHAVIOR,
    "units": correlations.LEGEND_UNITS,
    "ceiling": "Noise ceilings that are the same for all models.",
    "depth": depth.LEGEND,
    "layer_selection": depth.LEGEND_SELECTION,
    "published_correlation": aw2024.LEGEND,
    "figure_contrast": oota2025.LEGEND_FIGURE,
    "roi_contrast": oota2025.LEGEND_ROIS,
}


class Found(NamedTuple):
    """Tidy tables; those without rows have their columns."""

    findings: pd.DataFrame  # `finding_rows.COLUMNS`
    remarks: pd.DataFrame  # `finding_rows.REMARKS`: why a number is undefined
    checks: pd.DataFrame  # `published_checks.COLUMNS`: published numbers next to these
    model_scores: pd.DataFrame  # `model_scores.COLUMNS`
    rois: pd.DataFrame  # the same, for each region
    pairs: pd.DataFrame  # `gains.PAIRS`: each tuned model and its base
    profiles: pd.DataFrame  # `depth.PROFILES`: layers of each model
    published: pd.DataFrame  # `aw2024.PUBLISHED`: the correlation table that was published


def of_run(
    scores: pd.DataFrame,
    models: pd.DataFrame,
    options: Options | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> Found:
    """Find what scores and properties of models say together.

    Args:
      scores: score rows in the schema of `io.rows`.
      models: properties, one row per model (index `model`), as `literature.properties.wide` gives
        them.
      options: how models are compared.
      tables: figures of a paper as `literature.published.table` gives them, by name
        ("aw2024/correlations"); what is not there is left out.

    Raises:
      InputError: if there is one model only, a model has two rows of properties or two scores on a
        data set, a property that is asked for is not there, the base of a tuned model is not, or a
        table that `options.paper` needs is not.
    """
    options, tables = options or Options(), tables or {}
    summary = model_scores_lib.model_scores(scores)
    summary = pd.concat([summary, *_printed(summary, tables)], ignore_index=True)
    found = _compare(summary, models, options)
    if "aw2024/correlations" in tables:
        found += aw2024.correlations(tables["aw2024/correlations"], confidence=options.confidence)
    found += oota2025.contrasts(tables, confidence=options.confidence)
    rows = finding_rows.table(found)
    return Found(
        findings=rows,
        remarks=finding_rows.remarks(found),
        checks=checks(options.paper, rows) if options.paper else published_checks.table([]),
        model_scores=summary,
        rois=model_scores_lib.model_scores(scores, by_roi=True),
        pairs=gains.pairs(_outcomes(summary, options), _joined(summary, models)),
        profiles=depth.profiles(scores),
        published=aw2024.published(tables.get("aw2024/correlations"), rows),
    )


def checks(name: str, findings: pd.DataFrame) -> pd.DataFrame:
    """Hold the numbers that a paper printed against findings from its own tables.

    Args:
      name: of the paper, one of `CHECKS`.
      findings: rows with `finding_rows.COLUMNS`.

    Returns:
      Rows with `published_checks.COLUMNS`: the quantity, what was published, what was found, how
      far rounding lets them differ, whether they agree, and a remark.

    Raises:
      InputError: if the name is not known, or a finding is not there.
    """
    if name not in CHECKS:
        raise InputError(f"published numbers must be those of {', '.join(CHECKS)}, got {name!r}.")
    return CHECKS[name](findings)


def _compare(summary, models, options) -> list[finding_rows.Finding]:
    joined = _joined(summary, models)
    families = sorted(set(joined.family) - {""}) if "family" in joined else []
    unknown = [name for name in options.apart if name not in families]
    if unknown:
        raise InputError(
            f"apart must be families of models, of {', '.join(families) or 'none'}: {unknown[0]!r}."
        )
    outcomes = _outcomes(summary, options)
    return [
        *gains.findings(outcomes, joined, options),
        *correlations.findings(outcomes, joined, options),
        *correlations.by_units(summary, joined, options),
        *_ceilings(outcomes),
        *depth.findings(outcomes, models, options),
    ]


def _joined(summary: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return the properties of the models that have scores; NaN of those without properties."""
    twice = models.index[models.index.duplicated()]
    if len(twice):
        raise InputError(f"properties must have one row per model: {twice[0]} has two.")
    scored = list(dict.fromkeys(summary.model))
    if len(scored) < 2:
        raise InputError(f"findings are about several models: scores have only {scored[0]}.")
    joined = models.reindex(scored)
    for name in ("family", "base"):
        if name in joined:
            joined[name] = joined[name].fillna("")
    return joined


def _outcomes(summary: pd.DataFrame, options: Options) -> pd.DataFrame:
    """Return one score per outcome and model, with all of its units."""
    part = summary[summary.units == model_scores_lib.ALL_UNITS]
    several = part.groupby(["dataset", "metric", "model"]).instruction.transform("nunique") > 1
    part = part[~several | (part.instruction == options.instruction)]
    if several.any() and not (part.instruction == options.instruction).any():
        raise InputError(
            f"instruction must be one that models were given: {options.instruction!r} is not among "
            f"{sorted(set(summary.instruction))}."
        )
    twice = part[part.duplicated(["dataset", "metric", "model"])]
    if len(twice):
        row = twice.iloc[0]
        protocols = part[(part.model == row.model) & (part.dataset == row.dataset)].protocol
        raise InputError(
            f"scores must have one row per model and data set: {row.model} has several on "
            f"{row.dataset} ({row.metric}; protocols {', '.join(sorted(set(protocols)))})."
        )
    metrics = part.groupby("dataset").metric.transform("nunique")
    names = part.dataset.where(metrics == 1, part.dataset + " (" + part.metric + ")")
    return part.assign(
        outcome=names,
        is_behavioral=part.metric == BEHAVIORAL,
        is_average=part.dataset.isin((AVERAGE, PRINTED)),
    )


def _ceilings(outcomes: pd.DataFrame) -> list[finding_rows.Finding]:
    """Report ceilings that are the same for all models, which published ones are."""
    found = []
    for name, part in outcomes.groupby("outcome", sort=False):
        # Scores that were printed divided by their ceiling have one of 1, which says nothing.
        if part.ceiling.notna().all() and part.ceiling.nunique() == 1 and part.ceiling.iloc[0] != 1:
            value = finding_rows.number(float(part.ceiling.iloc[0]), n=len(part))
            found.append(finding_rows.Finding("ceiling", "all", "", str(name), "ceiling", value))
    return found


def _printed(summary: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> list[pd.DataFrame]:
    """Add the average that a paper printed, as an outcome of its own."""
    part = summary[(summary.dataset == AVERAGE) & (summary.protocol == "published:aw2024")]
    if "aw2024/models" not in tables or not len(part):
        return []
    printed = tables["aw2024/models"].set_index("model").average.reindex(part.model)
    ceilings = tables.get("aw2024/noise_ceilings")
    ceiling = np.nan
    if ceilings is not None:
        ceiling = float(ceilings.set_index("dataset").ceiling["average"])
    scores = printed.to_numpy(float)
    return [part.assign(dataset=PRINTED, score=scores, best_score=scores, ceiling=ceiling)]
