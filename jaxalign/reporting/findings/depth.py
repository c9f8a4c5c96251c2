"""Layers of models of different depth: profiles, depth of the best layer, cost of choosing it."""

import numpy as np
import pandas as pd

from jaxalign.core.inference import association, stats
from jaxalign.reporting import tables
from jaxalign.reporting.findings import correlations
from jaxalign.reporting.findings import model_scores as model_scores_lib
from jaxalign.reporting.findings.options import Options
from jaxalign.reporting.findings.rows import Finding

LEGEND = (
    "Correlation over models of size (log10 parameters) with the relative depth of the layer that "
    "is best on the test scores: layer / number of layers, 0 is the embedding. p_adjusted: "
    "Benjamini-Hochberg over data sets of one statistic."
)
LEGEND_SELECTION = (
    "By how much the best layer on the test scores exceeds the layer chosen inside the training "
    "data, averaged over models, with Student's t interval: what looking at the test scores adds."
)
PROFILES = (
    *model_scores_lib.KEYS,
    "layer",
    "num_layers",
    "relative_depth",
    "score",
    "ci_low",
    "ci_high",
    "num_subjects",
)


def profiles(rows: pd.DataFrame) -> pd.DataFrame:
    """Score every layer of each network, averaged over subjects and regions.

    Args:
      rows: score rows in the schema of `io.rows`.

    Returns:
      Rows with `PROFILES`, of networks with several layers: means over the subjects who have all
      regions, with a 95 % interval for new subjects and stimuli; of published layers the mean
      without one.
    """
    networks = rows[(rows.control_of == "") & (rows.layer >= 0) & (rows.num_layers > 0)]
    found = []
    for key, kept in model_scores_lib.with_units(networks).groupby(
        model_scores_lib.KEYS, sort=False
    ):
        if kept.layer.nunique() < 2:
            continue
        people = kept[kept.subject != tables.GROUP]
        for layer, part in (people if len(people) else kept).groupby("layer"):
            value = stats.Interval(part.score.mean(skipna=False), np.nan, np.nan, 0)
            if part.fold_scores.map(len).all():
                folds = model_scores_lib.over_rois(part, "fold_scores")
                is_r = tables.are_correlations(part)
                value = tables.interval(folds, is_correlation=is_r)
            num_layers = int(part.num_layers.iloc[0])
            found.append((*key, layer, num_layers, layer / num_layers, *value))
    return pd.DataFrame(found, columns=PROFILES)


def findings(summary: pd.DataFrame, models: pd.DataFrame, options: Options) -> list[Finding]:
    """Correlate size with the depth of the best layer, and average what choosing it there adds.

    Args:
      summary: rows of `model_scores`.
      models: properties, index `model`.
      options: how models are compared.
    """
    kept = summary[(summary.units == model_scores_lib.ALL_UNITS) & (summary.best_layer >= 0)]
    kept = kept[(kept.num_layers > 0) & (kept.selection != model_scores_lib.SINGLE)]
    found = []
    for (dataset, metric), part in kept.groupby(["dataset", "metric"], sort=False):
        subset = f"all ({metric})"
        sizes = correlations.log_sizes(models).reindex(part.model).to_numpy()
        if np.isfinite(sizes).any():
            depth = (part.best_layer / part.num_layers).to_numpy(float)
            for name, measure in (
                ("pearson", association.pearson),
                ("spearman", association.spearman),
            ):
                value = measure(sizes, depth, confidence=options.confidence)
                outcome = f"relative depth, {dataset}"
                found.append(
                    Finding("depth", subset, correlations.SIZE, outcome, name, value, name)
                )
        if part.optimism.notna().any():
            mean = stats.mean_interval(part.optimism.to_numpy(float), confidence=options.confidence)
            value = association.Association(*mean[:3], np.nan, mean.n)
            found.append(
                Finding("layer_selection", subset, "layer", str(dataset), "optimism", value)
            )
    return found
