"""What the figures of Oota et al. (2025) say: multimodal models against vision, CLIP and chance."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from jaxalign.reporting.findings import published_checks
from jaxalign.reporting.findings.rows import Finding, number

LEGEND_FIGURE = (
    "Instruction-tuned multimodal models minus each other feature set, normalised alignment read "
    "off a figure. The interval holds the error of reading both bars, at worst (+-.012): it is no "
    "confidence interval, and there is no p-value, since values of subjects were not published."
)
LEGEND_ROIS = (
    "Feature sets of instruction-tuned multimodal models minus ViT-H, means over 4 subjects, raw "
    "scores: the only unimodal set that the authors' repository has them of. "
    "The interval is Student's t (3 degrees of freedom) with the standard errors of both means, as "
    "if each had subjects of its own: that of the paired difference, which was not published, is "
    "narrower unless subjects' scores of the two are negatively correlated, which is not known. "
    "So it is likely too wide, and no p-value is made of it."
)
NUM_SUBJECTS = 4
TUNED, VISION = "instruction-tuned", "vision"
FIGURE, ROIS = "oota2025/fig2_digitised", "oota2025/roi_scores"

# Bars of the figure, and the feature sets of the repository that they can be of.
_SETS = {
    "InstructBLIP": "Salesforce/instructblip-vicuna-13b qformer",
    "IDEFICS": "HuggingFaceM4/idefics-9b-instruct",
    "mPLUG-OWL": "MAGAer13/mplug-owl-llama-7b language",
}
_VIT = "google/vit-huge-patch14-224-in21k"
_ROIS = {"pRF-Visual ROIs": "prf-visualrois", "FLOC-PLACES": "floc-places"}


def contrasts(tables: Mapping[str, pd.DataFrame], *, confidence: float = 0.95) -> list[Finding]:
    """Subtract all other feature sets from instruction-tuned multimodal models.

    Args:
      tables: of `published.table`, by name; those of other papers are passed over.
      confidence: of intervals over subjects.
    """
    found = []
    if FIGURE in tables:
        found += _of_figure(tables[FIGURE])
    if ROIS in tables:
        found += _of_rois(tables[ROIS], confidence)
    return found


def _feature_sets(table: pd.DataFrame) -> pd.Series:
    """Name feature sets as score rows do: by repository, and features where there are several."""
    several = table.groupby("repository").features.transform("nunique") > 1
    features = " " + table.features.str.removesuffix("_hidden_states")
    return table.repository + features.where(several, "")


def _of_figure(table: pd.DataFrame) -> list[Finding]:
    found = []
    for roi, part in table.groupby("roi", sort=False):
        tuned, others = part[part.kind == TUNED], part[part.kind != TUNED]
        for other in others.itertuples():
            for model in tuned.itertuples():
                value = model.normalised_alignment - other.normalised_alignment
                error = model.digitising_error + other.digitising_error
                found.append(_figure_row(roi, model.model, other.model, value, error))
            value = tuned.normalised_alignment.mean() - other.normalised_alignment
            error = tuned.digitising_error.mean() + other.digitising_error
            found.append(_figure_row(roi, "mean of multimodal models", other.model, value, error))
    return found


def _figure_row(roi, model, other, value, error) -> Finding:
    bounds = number(value, n=NUM_SUBJECTS, low=value - error, high=value + error)
    return Finding(
        "figure_contrast",
        str(roi),
        model,
        f"normalised alignment minus {other}",
        "difference",
        bounds,
    )


def _of_rois(table: pd.DataFrame, confidence: float) -> list[Finding]:
    quantile = float(stats.t.ppf((1 + confidence) / 2, NUM_SUBJECTS - 1))
    found = []
    table = table.assign(name=_feature_sets(table))
    for (metric, roi), part in table.groupby(["metric", "roi"], sort=False):
        tuned, others = part[part.kind == TUNED], part[part.kind == VISION]
        for other in others.itertuples():
            for model in tuned.itertuples():
                value = model.mean - other.mean
                half = quantile * float(np.hypot(model.sem, other.sem))
                found.append(
                    Finding(
                        "roi_contrast",
                        str(roi),
                        model.name,
                        f"{metric} minus {other.name}",
                        "difference",
                        number(value, n=NUM_SUBJECTS, low=value - half, high=value + half),
                    )
                )
    return found


def checks(findings: pd.DataFrame) -> pd.DataFrame:
    """Hold the order of bars in the figure against that of the scores in the authors' repository.

    Args:
      findings: rows with `findings.rows.COLUMNS`, of `contrasts`.

    Returns:
      See `findings.checks`; `published` is the difference from ViT-H in the figure, `found` that of
      raw Pearson correlations; they follow if they have the same sign, as scales differ.

    Raises:
      InputError: if a finding is not there.
    """
    rows = []
    for printed, roi in _ROIS.items():
        for bar, name in _SETS.items():
            key = ("figure_contrast", printed, bar, "normalised alignment minus ViT-H")
            figure = published_checks.find(findings, (*key, "difference"))
            part = ("roi_contrast", roi, name, f"pearson_r minus {_VIT}", "difference")
            raw = published_checks.find(findings, part)
            same = bool(np.sign(figure.value) == np.sign(raw.value))
            remark = (
                "The figure is divided by ceilings, the repository's scores are raw: only signs "
                "can be compared."
                if same
                else "The figure puts it above ViT-H, the repository's raw scores below. Those are "
                "averages over layers, of the first label of the region alone, and not divided by "
                "a ceiling: any of it may be the reason."
            )
            if raw.ci_low <= 0 <= raw.ci_high:
                remark += " The interval of the raw difference, likely too wide, holds 0."
            quantity = f"{bar} minus ViT-H in {printed}, sign; of {name}"
            rows.append((quantity, figure.value, raw.value, float("nan"), same, remark))
    return published_checks.table(rows)
