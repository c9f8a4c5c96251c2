"""Values of CKA and RSA -> tables, charts, what the run prints, and the page."""

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from jaxalign.core.inference import stats
from jaxalign.reporting import charts
from jaxalign.reporting import tables as score_tables
from jaxalign.reporting.charts import Chart, Panels, marks, tip
from jaxalign.reporting.charts import rois as charts_rois
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page

ALL_LAYERS = -1  # in the place of a layer: units chosen from all of them
MEASURES = {
    "cka": "linear CKA",
    "cka_debiased": "linear CKA, debiased",
    "rsa_pearson": "RSA, 1 - Pearson r",
    "rsa_cosine": "RSA, 1 - cosine",
}
_KEYS = ["dataset", "model", "control_of", "units"]
_BEST = (
    "Best layer of the mean over subjects (of the group's mean response where there is no "
    "subject), a maximum and so optimistic, with a 95 % t interval over subjects; untrained: the "
    "best layer of the same network with random weights."
)
_SHIFTED = (
    " above_null: the value of detrended responses minus the mean of those for features that are "
    "shifted within runs; it has no interval over subjects, because all share the features; p: of "
    "the group's, not corrected for the choice of the layer."
)
_OF_SHIFTS = ["above_null", "p", "num_shifts"]
_MOST_NUMBERS = 13  # layers of a matrix whose cells have their number


def tables(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Lay values out by layer, and name the best layers.

    Args:
      scores: of the stage similarity, one row per model, layer, subject, ROI and measure.

    Returns:
      `profiles`: for each model, ROI, measure and layer the group's value, and the mean over
      subjects with its interval; both also above the mean of their nulls (`above_null`; NaN of
      single stimuli), without an interval, since subjects share the features; and the group's p.
      `best`: their best layers, and those of untrained networks.
    """
    found = []
    for key, kept in scores.groupby([*_KEYS, "roi", "measure", "layer"], sort=False):
        kept = kept.assign(above=kept.detrended - kept.null_mean)
        subjects = kept[kept.subject != score_tables.GROUP]
        group = kept[kept.subject == score_tables.GROUP]
        of_group = lambda name, group=group: float(group[name].iloc[0]) if len(group) else np.nan
        interval = stats.mean_interval(subjects.value.to_numpy(float))
        found.append(
            dict(zip([*_KEYS, "roi", "measure", "layer"], key, strict=True))
            | {
                "group": of_group("value"),
                "group_above_null": of_group("above"),
                "p": of_group("p"),
                "subjects_mean": interval.mean,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "above_null": float(subjects.above.mean()),
                "num_subjects": interval.n,
                "num_shifts": int(kept.num_shifts.max()),
            }
        )
    profiles = pd.DataFrame(found)
    return {"profiles": profiles, "best": _best(profiles)}


def _best(profiles: pd.DataFrame) -> pd.DataFrame:
    values = profiles.subjects_mean.where(profiles.subjects_mean.notna(), profiles.group)
    above = profiles.above_null.where(profiles.subjects_mean.notna(), profiles.group_above_null)
    best = {}
    for key, kept in profiles.assign(value=values, above_null=above).groupby(
        [*_KEYS, "roi", "measure"], sort=False
    ):
        kept = kept.dropna(subset="value")
        best[key] = kept.loc[kept.value.idxmax()] if len(kept) else None
    found = []
    for key, row in best.items():
        dataset, model, control_of, units, roi, measure = key
        if control_of:
            continue
        untrained = best.get((dataset, "untrained", model, units, roi, measure))
        defined = row is not None
        found.append(
            {
                "dataset": dataset,
                "model": model,
                "units": units,
                "roi": roi,
                "measure": measure,
                "layer": str(row.layer) if defined and row.layer != ALL_LAYERS else "–",
                **{
                    name: float(row[name]) if defined else np.nan
                    for name in ("value", "ci_low", "ci_high", "group", *_OF_SHIFTS[:-1])
                },
                "untrained": np.nan if untrained is None else float(untrained.value),
                "num_subjects": int(row.num_subjects) if defined else 0,
                "num_shifts": int(row.num_shifts) if defined else 0,
            }
        )
    return pd.DataFrame(found)


def draw(scores: pd.DataFrame, matrix: pd.DataFrame) -> tuple[list[Chart], list[Chart]]:
    """Draw the profile of each model over layers, and its matrix of layers x layers.

    Args:
      scores: as of `tables`.
      matrix: one row per network and pair of layers; may be empty.
    """
    lines, matrices = {}, []
    low = float(np.nanmin([0.0, *matrix.cka_debiased])) if len(matrix) else 0.0
    for model in dict.fromkeys(scores[scores.control_of == ""].model):
        kept = scores[(scores.model == model) & (scores.control_of == "")]
        kept = pd.concat([kept, scores[scores.control_of == model]])
        if (kept.layer != ALL_LAYERS).all() and kept.value.notna().any():
            lines[model] = _lines(kept)
        pairs = matrix[(matrix.model == model) | (matrix.control_of == model)]
        if len(pairs):
            matrices.append(layer_matrix(pairs, model, low=low))
    ends = charts_rois.ends(lines.values()) if lines else {}
    drawn = [
        profiles(charts_rois.Lines(data, model, "similarity", ends))
        for model, data in lines.items()
    ]
    return drawn, matrices


def _lines(scores: pd.DataFrame) -> pd.DataFrame:
    """Return means over subjects with 95 % intervals, or the group's where there is no subject.

    Args:
      scores: of one network, and of the same untrained; some value is defined.
    """
    subjects = scores[scores.subject != score_tables.GROUP]
    shown = subjects if len(subjects) else scores
    keys = ["measure", "roi", "model", "control_of", "layer", "num_layers"]
    found = []
    for key, kept in shown.groupby(keys, sort=False):
        measure, roi, features, control_of, layer, num_layers = key
        interval = stats.mean_interval(kept.value.to_numpy(float))
        found.append(
            {
                "level": MEASURES[measure],
                "roi": roi,
                "features": features,
                "layer": layer,
                "score": interval.mean,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "ceiling": np.nan,
                "_layered": num_layers > 0,
                "_network": control_of == "",
            }
        )
    # Of a measure that is undefined everywhere there is nothing to draw.
    data = pd.DataFrame(found)
    return data[data.groupby("level").score.transform(lambda x: x.notna().any())]


def profiles(lines: charts_rois.Lines) -> Chart:
    """Draw similarity against layers: a row of panels for each measure, a panel for each ROI.

    Args:
      lines: the levels are measures.
    """
    data, model = lines.data, lines.model
    text = (
        f"Lines: similarity against layers of {model}, a row of panels for each of "
        f"{', '.join(dict.fromkeys(data.level))}, a panel for each of "
        f"{', '.join(dict.fromkeys(data.roi))}; bands: 95 % intervals over subjects."
    )
    title = f"Similarity against layers: {model}"
    return charts_rois.profiles(lines, f"profiles_{model}", title, text)


def layer_matrix(pairs: pd.DataFrame, model: str, *, low: float) -> Chart:
    """Draw debiased CKA of layers x layers, of a network and its untrained counterpart.

    Args:
      pairs: one row per network and pair of layers, either way round.
      model: the network.
      low: where the colours of all networks begin.
    """
    name = (pairs.model + " " + pairs.control_of).str.strip()
    data = pairs[["layer", "other", "cka", "cka_debiased"]].assign(network=name)
    networks, num = list(dict.fromkeys(name)), pairs.layer.nunique()
    numbers = data.cka_debiased.map(lambda x: "" if x != x else f"{x:.2f}".replace("0.", ".", 1))
    data["_text"] = numbers if num <= _MOST_NUMBERS else ""
    chart = marks.heat_map(
        alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        alt.Y("other:O", title="layer", sort="descending", axis=alt.Axis(labelOverlap=True)),
        alt.Color(
            "cka_debiased:Q",
            scale=alt.Scale(scheme="viridis", domain=[low, 1]),
            legend=alt.Legend(title="linear CKA, debiased"),
        ),
        alt.Text("_text:N"),
        [
            tip("network", digits=""),
            tip("layer", digits="d"),
            tip("other", "other layer", "d"),
            tip("cka_debiased", "CKA, debiased"),
            tip("cka", "CKA"),
        ],
        middle=0.6,
    ).properties(height=charts.height(num, 24))
    text = (
        f"Heat map: debiased linear CKA of each layer with each other layer of {model}, on the "
        f"samples that are compared with the responses; a panel for each of {', '.join(networks)}."
    )
    return charts.finish(
        f"layers_{model}",
        f"Layers with layers: {model}",
        text,
        charts.facet(chart, "network", networks, columns=2),
        data,
        Panels(len(networks), 30 * min(num, _MOST_NUMBERS), left=60),
    )


def remarks(table: pd.DataFrame) -> list[str]:
    """Say what is undefined in the values of one network, and why."""
    found = []
    undefined = table[table.value.isna()]
    single = undefined[undefined.measure.str.startswith("rsa") & (undefined.num_targets == 1)]
    if len(single):
        found.append(
            f"RSA is undefined in {len(single[['subject', 'roi']].drop_duplicates())} of "
            f"{len(table[['subject', 'roi']].drop_duplicates())} subjects and ROIs: one target "
            "is no pattern."
        )
    if len(undefined) > len(single):
        found.append(
            f"{len(undefined) - len(single)} of {len(table)} values are undefined: features or "
            "responses are constant, or samples too few."
        )
    return found


def summary(scores: pd.DataFrame) -> str:
    """Name the best layer of each network, ROI and measure, of the group or of subjects."""
    networks = scores.groupby(["model", "control_of"], sort=False)
    return "".join(_summary(f"{m} {of}".strip(), kept) for (m, of), kept in networks)


def _summary(name: str, table: pd.DataFrame) -> str:
    units = table.units.iloc[0]
    chosen = units != "all"
    what = f"{units} units" if chosen else "best layers"
    lines = ["", f"Similarity of {name} with {table.dataset.iloc[0]}, {what}:"]
    kept = table[table.subject == score_tables.GROUP]
    who = "the group's mean response"
    if kept.value.isna().all():
        kept, who = table[table.subject != score_tables.GROUP], "mean over subjects"
    layers = kept.groupby(["roi", "measure", "layer"], sort=False).value.mean().reset_index()
    for roi, part in layers.groupby("roi", sort=False):
        cells = []
        for measure in dict.fromkeys(table.measure):
            values = part[part.measure == measure].set_index("layer").value.dropna()
            where = "" if chosen else f" (layer {values.idxmax()})" if len(values) else ""
            best = f"{values.max():.3f}{where}" if len(values) else "undefined"
            cells.append(f"{measure} {best}")
        lines.append(f"  {roi}: " + ", ".join(cells))
    caution = "" if chosen else "; a maximum over layers is optimistic"
    lines.append(f"  Of {who}{caution}.")
    return "\n".join([*lines, *(f"  {remark}" for remark in remarks(table))]) + "\n"


def lead(best: pd.DataFrame) -> str:
    """Say where the first defined measure is highest."""
    defined = best.dropna(subset="value")
    if defined.empty:
        return "No value is defined."
    kept = defined[defined.measure == defined.measure.iloc[0]]
    row = kept.loc[kept.value.idxmax()]
    where = f"layer {row.layer}" if row.units == "all" else f"its {row.units} units"
    untrained = "" if np.isnan(row.untrained) else f" (untrained {row.untrained:.3f})"
    return (
        f"On {row.dataset}, {row.model} is most alike {row.roi} by {MEASURES[row.measure]}: "
        f"{row.value:.3f}{untrained} at {where}."
    )


def page(
    scores: pd.DataFrame, matrix: pd.DataFrame, left_out: Sequence[str], provenance: str
) -> Page:
    """Lay the values of all networks out as a page.

    Args:
      scores: as of `tables`.
      matrix: one row per network and pair of layers; may be empty.
      left_out: subjects of whom every target is constant.
      provenance: preformatted text.
    """
    found = tables(scores)
    return Page(
        title=f"Similarity without fitting: {scores.dataset.iloc[0]}",
        lead=lead(found["best"]),
        sections=_sections(scores, matrix, found, left_out),
        tables={"scores": scores, "layer_matrix": matrix} | found,
        summary=summary(scores),
        provenance=provenance,
        unprinted=("scores", "layer_matrix", "profiles"),
    )


def _sections(
    scores: pd.DataFrame,
    matrix: pd.DataFrame,
    found: Mapping[str, pd.DataFrame],
    left_out: Sequence[str],
) -> list[Section]:
    said = [
        f"{f'{model} {of}'.strip()}: {remark}"
        for (model, of), kept in scores.groupby(["model", "control_of"], sort=False)
        for remark in remarks(kept)
    ]
    if left_out:
        said.insert(0, f"Left out, because every target is constant: {', '.join(left_out)}.")
    row = scores.iloc[0]
    comparisons = ", ".join(x for x in dict.fromkeys(scores.comparison) if x)
    methods = (
        f"{row.num_samples} samples; context {row.context}, tokens pooled by {row.pooling}. "
        "Nothing is fitted, and so nothing is held out. CKA compares inner products of samples; "
        "it grows with the number of units even if nothing is shared, which the debiased form "
        "corrects (Kornblith et al. 2019; Song et al. 2012). RSA compares dissimilarities of "
        f"samples{f' by {comparisons} correlation' if comparisons else ''} "
        f"(Kriegeskorte et al. 2008). {_null(scores)}"
    )
    drawn, matrices = draw(scores, matrix)
    of_shifts = scores.num_shifts.max() > 0
    best = found["best"].drop(columns=["dataset", *([] if of_shifts else _OF_SHIFTS)])
    best = [(_BEST + _SHIFTED * int(of_shifts), best)]
    return [
        *([Section("What to know first", text=said)] if said else []),
        Section("Model and brain", tables=best, charts=drawn),
        *([Section("Layers and layers", charts=matrices)] if matrices else []),
        Section("Methods", text=[methods]),
    ]


def _null(scores: pd.DataFrame) -> str:
    """Say what a value is to be compared with."""
    num = scores.num_shifts.max()
    if not num:
        return "Compare with the untrained network."
    return (
        "Samples near in time are alike on both sides, whatever the text: compare with the "
        f"untrained network, and with the same features shifted circularly within runs, {num} "
        "times, against responses without their drifts (a polynomial of second degree per run)."
    )
