"""RSA with published dissimilarities -> tables, charts, what the run prints, and the page."""

import numpy as np
import pandas as pd

from jaxalign.core.inference import stats
from jaxalign.reporting import tables as score_tables
from jaxalign.reporting.charts import Chart
from jaxalign.reporting.charts import rois as charts_rois
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page
from jaxalign.reporting.pages.similarity import MEASURES

_KEYS = ["dataset", "model", "control_of", "measure"]
_BEST = (
    "Best layer of the mean over subjects, a maximum and so optimistic, with a 95 % t interval "
    "over subjects; of_ceiling: divided by the lower bound of the noise ceiling; untrained: the "
    "best layer of the same network with random weights."
)
_CONTROLS = "Mean over subjects with its 95 % t interval."
_CEILINGS = (
    "Agreement of each subject's dissimilarities (mean over sessions) with the mean of the other "
    "subjects (lower), with the mean of all (upper), and between the subject's own sessions."
)


def _means(rows: pd.DataFrame) -> dict[str, float]:
    """Average over subjects, with the interval, and take the group's value beside it."""
    subjects = rows[rows.subject != score_tables.GROUP].value.to_numpy(float)
    group = rows[rows.subject == score_tables.GROUP].value
    interval = stats.mean_interval(subjects)
    return {
        "value": interval.mean,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "group": float(group.iloc[0]) if len(group) else np.nan,
    }


def tables(
    scores: pd.DataFrame, controls: pd.DataFrame, bounds: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Lay values out by layer, name the best layers, and average controls.

    Args:
      scores: of the stage rsa, one row per model, layer, subject and measure.
      controls: one row per control and subject.
      bounds: the noise ceiling, one row per subject.

    Returns:
      `profiles`, `best`, `controls`, `ceilings`.
    """
    keys = [*_KEYS, "num_layers", "layer", "layer_name", "final_norm"]
    profiles = pd.DataFrame(
        [
            dict(zip(keys, key, strict=True)) | _means(kept)
            for key, kept in scores.groupby(keys, sort=False, dropna=False)
        ]
    )
    lower = float(bounds.lower.mean())
    best = []
    for key, kept in profiles[profiles.control_of == ""].groupby(_KEYS, sort=False):
        _, model, _, measure = key
        defined = kept.dropna(subset="value")
        if not len(defined):
            continue
        row = defined.loc[defined.value.idxmax()]
        other = profiles[(profiles.control_of == model) & (profiles.measure == measure)].value
        best.append(
            {
                "model": model,
                "measure": measure,
                "layer": row.layer,
                "layer_name": row.layer_name,
                **{name: row[name] for name in ("value", "ci_low", "ci_high", "group")},
                "of_ceiling": row.value / lower,
                "untrained": other.max() if len(other) else np.nan,
            }
        )
    of_controls = [
        {"control": name} | _means(kept) for name, kept in controls.groupby("control", sort=False)
    ]
    return {
        "profiles": profiles,
        "best": pd.DataFrame(best),
        "controls": pd.DataFrame(of_controls),
        "ceilings": bounds,
    }


def draw(found: dict[str, pd.DataFrame], roi: str) -> list[Chart]:
    """Draw the profile of each network over layers, its controls, and the ceiling's lower bound.

    Args:
      found: from `tables`.
      roi: whose dissimilarities they are.
    """
    profiles, lower = found["profiles"], float(found["ceilings"].lower.mean())
    drawn = {}
    for model in dict.fromkeys(profiles[profiles.control_of == ""].model):
        own = profiles[
            ((profiles.model == model) & (profiles.control_of == ""))
            | (profiles.control_of == model)
        ]
        own = own[own.groupby("measure").value.transform(lambda x: x.notna().any())]
        if not len(own):
            continue
        layered = own.assign(features=own.model, _layered=True, _network=own.control_of == "")
        parts = [layered.assign(ceiling=np.where(layered._network, lower, np.nan))]
        for measure in dict.fromkeys(own.measure):
            parts.append(
                found["controls"].assign(
                    features=found["controls"].control,
                    measure=measure,
                    layer=0,
                    ceiling=np.nan,
                    _layered=False,
                    _network=False,
                )
            )
        data = pd.concat(parts, ignore_index=True)
        columns = ["features", "layer", "ci_low", "ci_high", "ceiling", "_layered", "_network"]
        level = data.measure.map(MEASURES)
        drawn[model] = data[columns].assign(score=data.value, level=level, roi=roi)
    ends = charts_rois.ends(drawn.values()) if drawn else {}
    charts = []
    for model, data in drawn.items():
        controls = ", ".join(dict.fromkeys(data[~data._layered].features))
        text = (
            f"Lines: agreement of the dissimilarities of images in each layer of {model} with "
            f"those in {roi}, mean over subjects with 95 % intervals; dashed levels: {controls}; "
            "dotted: the lower bound of the noise ceiling."
        )
        lines = charts_rois.Lines(data, model, "agreement of dissimilarities", ends)
        charts.append(
            charts_rois.profiles(lines, f"profiles_{model}", f"Layers of {model}: {roi}", text)
        )
    return charts


def _named(row: pd.Series) -> str:
    """Name a layer by its number, and what it is where that is known."""
    return f"layer {row.layer}" + (f" ({row.layer_name})" if row.layer_name else "")


def summary(found: dict[str, pd.DataFrame], roi: str) -> str:
    """Say which layers agree best, what controls reach, and the noise ceiling."""
    bounds = found["ceilings"]
    lines = ["", f"Dissimilarities of {roi}, mean over {len(bounds)} subjects:"]
    for _, row in found["best"].iterrows():
        untrained = "" if np.isnan(row.untrained) else f", untrained {row.untrained:.3f}"
        lines.append(
            f"  {row.model}, {MEASURES[row.measure]}: {row.value:.3f} at {_named(row)}{untrained}"
        )
    named = (f"{row.control} {row.value:.3f}" for _, row in found["controls"].iterrows())
    lines.append("  controls: " + ", ".join(named))
    lines.append(
        f"  noise ceiling: {bounds.lower.mean():.3f} to {bounds.upper.mean():.3f}; between "
        f"sessions of a subject {bounds.sessions.mean():.3f}"
    )
    return "\n".join(lines) + "\n"


def page(
    scores: pd.DataFrame, controls: pd.DataFrame, bounds: pd.DataFrame, provenance: str
) -> Page:
    """Lay everything out as a page.

    Args:
      scores: as of `tables`.
      controls: as of `tables`.
      bounds: as of `tables`.
      provenance: preformatted text.
    """
    found = tables(scores, controls, bounds)
    roi, row = scores.roi.iloc[0], scores.iloc[0]
    low, high = bounds.lower.mean(), bounds.upper.mean()
    lead = "No value is defined."
    if len(best := found["best"]):
        top = best.loc[best.value.idxmax()]
        lead = (
            f"{top.model} agrees best with {roi} at {_named(top)}: {top.value:.3f}, where the "
            f"noise ceiling is {low:.3f} to {high:.3f}."
        )
    methods = (
        f"{row.num_samples} images, tokens pooled by {row.pooling}. Nothing is fitted, and so "
        "nothing is held out: dissimilarities of all pairs of images in a layer are compared with "
        f"those of each subject, averaged over sessions, by {row.comparison} correlation "
        "(Kriegeskorte, Mur and Bandettini 2008). Pixels are compared by 1 - r of the images as "
        "they are. The bounds of the noise ceiling are those of Nili et al. (2014)."
    )
    undefined = scores[scores.value.isna()]
    said = []
    if len(undefined):
        which = ", ".join(dict.fromkeys(undefined.layer_name.astype(str)))
        said.append(
            f"Undefined in {which}: all images have the same pattern there, as CLS has before the "
            "first block."
        )
    return Page(
        title=f"Representational similarity: {row.dataset}",
        lead=lead,
        sections=[
            *([Section("What to know first", text=said)] if said else []),
            Section("Layers", tables=[(_BEST, best)], charts=draw(found, roi)),
            Section("Controls", tables=[(_CONTROLS, found["controls"])]),
            Section("Noise ceiling", tables=[(_CEILINGS, bounds)]),
            Section("Methods", text=[methods]),
        ],
        tables={"scores": scores} | found,
        summary=summary(found, roi),
        provenance=provenance,
        unprinted=("scores", "profiles"),
    )
