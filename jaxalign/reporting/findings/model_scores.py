"""Score rows -> one score per data set and model, with how its layer was chosen."""

import numpy as np
import pandas as pd

from jaxalign.errors import InputError
from jaxalign.reporting import tables

AVERAGE = "average"  # data set of means over data sets
ALL_ROIS = "all"
ALL_UNITS = "all"
BEHAVIORAL = "abs pearson r"  # metric of reading times, which are no part of an average over brains

NESTED = "inside the training data"
SINGLE = "one layer"
ON_TEST = "best on the test scores, as no inner splits were scored"
PUBLISHED = "as published"

# What must be the same for scores to be of one thing.
KEYS = ["dataset", "model", "metric", "protocol", "instruction", "units"]
COLUMNS = (
    *KEYS,
    "roi",
    "num_units",
    "num_layers",
    "score",
    "ci_low",
    "ci_high",
    "ceiling",
    "num_subjects",
    "selection",
    "best_layer",
    "best_score",
    "optimism",
)


def model_scores(rows: pd.DataFrame, *, by_roi: bool = False) -> pd.DataFrame:
    """Reduce score rows to one row per data set and model.

    Of rows with folds the layer is chosen inside the training data (`tables.nested_layer`), subject
    by subject and region by region; the score is the mean over regions and subjects who have all of
    them, with an interval for new subjects and stimuli (`tables.interval`). Without subjects the
    group's mean response takes their place. Published rows stay as they are.

    Args:
      rows: score rows in the schema of `io.rows`; controls are left out.
      by_roi: a row for each region instead of their mean.

    Returns:
      Rows with `COLUMNS`: `selection` says how the layer was chosen; `best_layer` has the highest
      mean on the test scores (NaN: undefined, or not named by a paper), `best_score` is that mean,
      an optimistic one, and `optimism` by how much it exceeds `score`. `units` is "all", or their
      number where a model was also scored with more of them. Rows of the data set "average" are
      means over the data sets (of one metric, reading times not counted) of models that have all
      of these, without interval.

    Raises:
      InputError: if a layer of a model has two rows for the same subject and region, or there is no
        network.
    """
    networks = rows[rows.control_of == ""]
    if not len(networks):
        raise InputError("score rows must hold a network, found none.")
    networks = _unique(with_units(networks))
    found = []
    for key, kept in networks.groupby(KEYS, sort=False):
        parts = kept.groupby("roi", sort=False) if by_roi else [(_roi(kept), kept)]
        found += [
            dict(zip(KEYS, key, strict=True)) | {"roi": roi} | _of_one(part) for roi, part in parts
        ]
    return pd.DataFrame([*found, *_averages(found)], columns=COLUMNS)


def with_units(networks: pd.DataFrame) -> pd.DataFrame:
    """Add the column `units`: "all" where a model's layer has most, else their number.

    Args:
      networks: score rows.
    """
    most = networks.groupby(["dataset", "model", "layer"]).num_units.transform("max")
    units = networks.num_units.astype(str).where(networks.num_units < most, ALL_UNITS)
    return networks.assign(units=units)


def _unique(rows: pd.DataFrame) -> pd.DataFrame:
    """Refuse what was scored twice.

    Where one of two runs draws as many units as the narrowest network has, that network has the
    same score in both, with all of its units; its rows are kept once.
    """
    keys = [*KEYS, "layer", "subject", "roi"]
    first = rows.groupby(keys)[["fingerprint", "score"]].transform("first")
    again = rows.duplicated(keys) & (rows.fingerprint != first.fingerprint)
    rows = rows[~(again & (rows.num_units > 0) & (rows.score == first.score))]
    twice = rows[rows.duplicated(keys)]
    if len(twice):
        row = twice.iloc[0]
        raise InputError(
            f"scores must have one row per model, layer, subject and ROI: {row.model} has two on "
            f"{row.dataset} ({row.protocol}, layer {row.layer}, subject {row.subject!r}, ROI "
            f"{row.roi!r})."
        )
    return rows


def _roi(kept: pd.DataFrame) -> str:
    return kept.roi.iloc[0] if kept.roi.nunique() == 1 else ALL_ROIS


def _of_one(kept: pd.DataFrame) -> dict:
    """Summarise the rows of one model on one data set."""
    people = kept[kept.subject != tables.GROUP]
    kept = people if len(people) else kept
    facts = {"num_units": int(kept.num_units.max()), "num_layers": int(kept.num_layers.max())}
    num_folds = kept.fold_scores.map(len)
    if not num_folds.any():
        return facts | _published(kept)
    if num_folds.nunique() > 1:
        row = kept.iloc[0]
        raise InputError(
            f"rows of {row.model} on {row.dataset} must have equally many folds, found "
            f"{sorted(set(num_folds))}."
        )
    best_layer, best = _best_on_test(kept)
    inner = np.array(kept.fold_inner_r2.tolist(), float)
    if kept.layer.nunique() > 1 and not np.isfinite(inner).any():
        selection, chosen = ON_TEST, kept[kept.layer == best_layer]
    else:
        selection = NESTED if kept.layer.nunique() > 1 else SINGLE
        chosen = tables.nested_layer(kept)
    is_r = tables.are_correlations(kept)
    found = tables.interval(over_rois(chosen, "fold_scores"), is_correlation=is_r)
    ceilings = over_rois(chosen, "fold_ceilings").map(np.mean)
    return facts | {
        "score": found.mean,
        "ci_low": found.low,
        "ci_high": found.high,
        "ceiling": float(ceilings.mean()) if len(ceilings) else np.nan,
        "num_subjects": found.n,
        "selection": selection,
        "best_layer": best_layer,
        "best_score": best,
        "optimism": best - found.mean,
    }


def _published(kept: pd.DataFrame) -> dict:
    layers = kept.groupby("layer").score.agg(lambda x: x.mean(skipna=False))
    single = len(layers) == 1
    return {
        "score": layers.iloc[0] if single else layers.max(),
        "ci_low": np.nan,
        "ci_high": np.nan,
        "ceiling": kept.ceiling.mean(),
        "num_subjects": 0,  # not known
        "selection": PUBLISHED if layers.index[0] < 0 else SINGLE if single else ON_TEST,
        "best_layer": _named(int(layers.idxmax())) if layers.notna().any() else np.nan,
        "best_score": layers.max(),
        "optimism": np.nan,
    }


def over_rois(chosen: pd.DataFrame, column: str) -> pd.Series:
    """Average each subject's folds over regions; subjects who lack a region are left out.

    Args:
      chosen: one row per subject and region.
      column: a list over folds.

    Returns:
      An array over folds for each subject.
    """
    num_rois = chosen.roi.nunique()
    whole = chosen.groupby("subject").filter(lambda kept: len(kept) == num_rois)
    if not len(whole):
        return pd.Series(dtype=object)
    return whole.groupby("subject")[column].agg(lambda x: np.array(x.tolist(), float).mean(axis=0))


def _named(layer: int) -> float:
    """Return a layer; NaN where it is the best of a paper, which does not name it."""
    return float(layer) if layer >= 0 else np.nan


def _best_on_test(kept: pd.DataFrame) -> tuple[float, float]:
    """Find the layer with the highest mean over the subjects and regions that all layers have."""
    wide = kept.pivot(index=["subject", "roi"], columns="layer", values="score")
    means = wide.dropna(axis=1, how="all").dropna().mean()
    if not means.notna().any():
        return np.nan, np.nan
    return float(means.idxmax()), float(means.max())


def _averages(found: list[dict]) -> list[dict]:
    """Average over data sets, for models that have a score on all of them."""
    brains = [row for row in found if row["metric"] != BEHAVIORAL]
    averages = []
    alike = ["metric", "instruction", "units", "roi"]
    for key, kept in pd.DataFrame(brains, columns=COLUMNS).groupby(alike, sort=False):
        num_datasets = kept.dataset.nunique()
        if num_datasets < 2:
            continue
        for model, rows in kept.groupby("model", sort=False):
            if rows.dataset.nunique() < num_datasets or len(rows) > num_datasets:
                continue
            averages.append(
                dict(zip(alike, key, strict=True))
                | {
                    "dataset": AVERAGE,
                    "model": model,
                    "protocol": " + ".join(dict.fromkeys(rows.protocol)),
                    "num_units": rows.num_units.max(),
                    "num_layers": rows.num_layers.max(),
                    "score": rows.score.mean(skipna=False),
                    "ceiling": rows.ceiling.mean(skipna=False),
                    "num_subjects": 0,
                    "selection": " + ".join(dict.fromkeys(rows.selection)),
                    "best_layer": np.nan,
                    "best_score": rows.best_score.mean(skipna=False),
                    "optimism": rows.optimism.mean(skipna=False),
                }
            )
    return averages
