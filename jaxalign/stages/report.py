"""Score rows -> tables, figures and one HTML page."""

import dataclasses
import functools
import json
from collections.abc import Mapping

import pandas as pd

from jaxalign.data import protocols
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.report import html, inference, plots, tables
from jaxalign.stages import Job, Step, Upstream

VERSION = 9
SUMMARY = "summary.txt"
ENCODED = "rows.parquet"  # as the encode stage names them
PARTITION = "partition.parquet"
SIGNIFICANCE = "significance.parquet"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the report stage."""

    title: str = "Brain alignment"


_ALIGNMENT = (
    "The one score of the protocol over all subjects: what it reports, the raw score, the ceiling; "
    "of a shuffled protocol also the raw score in contiguous folds of the same data."
)
_MARGINS = (
    "Best layer by the mean over subjects, and its margin over the second, with a 95 % interval; "
    "both are picked on the scores shown."
)
_CONTROLS = (
    "Layers chosen inside the training data. Subjects: mean of the paired differences, 95 % "
    "interval. Group best: highest score of any layer, a maximum, and so never below layer 0."
)
_BEYOND = (
    "R2 out of sample, raw (negative values are not clipped), of the network alone, of all "
    "controls together, and of both with a penalty for each; at the layer that explains most of "
    "the group, a maximum and so optimistic. omega: percent of the network's that the controls "
    "explain too."
)
_ORDERS = {
    "shift": "Orders: responses shifted circularly within each run, which keeps their "
    "autocorrelation. Exact for stationary runs.",
    "block": "Orders: blocks of neighbouring samples permuted within each run. What crosses the "
    "edge of a block is lost, so blocks must be long beside the autocorrelation.",
    "row": "Orders: samples permuted within each run, as if they were independent. For time series "
    "such tests reject far too often.",
}
_MODELS = (
    "Layers chosen inside the training data. First minus second, mean over subjects, 95 % interval "
    "over subjects and folds; paired t and Wilcoxon tests over subjects, d_z and rank-biserial "
    "correlation, adjusted over regions by Benjamini-Hochberg."
)
_SIGNIFICANCE = (
    "Largest score of any layer, against the largest of any layer with responses in each other "
    "order, everything fitted anew. p_adjusted: Benjamini-Hochberg over regions; of single "
    "subjects over subjects and regions, significant at .05. No p is less than 1 / (1 + "
    "num_orders)."
)


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the one report of the run."""
    artefact = Artefact(
        workdir=job.workdir,
        stage="report",
        name="",
        settings={"version": VERSION} | dataclasses.asdict(config),
        inputs=tuple(upstream["encode"]),
        cost="tables, figures, page",
        latest_only=True,
    )
    planted = upstream["simulate"][0] if "simulate" in upstream else None
    make = functools.partial(_report, config, planted)
    return [Step(artefact=artefact, make=make, shows=SUMMARY)]


def _report(config: Config, planted: Artefact | None, artefact: Artefact) -> dict:
    joined = [x for x in artefact.inputs if x.settings.get("partition")]
    permuted = [x for x in artefact.inputs if x.settings.get("permutations")]
    others = [*joined, *permuted, *(x for x in artefact.inputs if x.settings.get("ceiling"))]
    scored = [x for x in artefact.inputs if x not in others]
    rows = pd.concat([rows_lib.read(x.path / ENCODED) for x in scored])
    rows = rows.reset_index(drop=True)
    rows_lib.write(artefact.path / "scores.parquet", rows.to_dict("records"))
    alignments = [x.facts()["alignment"] for x in scored]
    alignments = [x for x in alignments if x is not None]
    found = {
        # The Parquet file has the values of single folds and the versions too.
        "scores": rows.drop(columns=[*rows_lib.LISTS, "versions"]),
        "rois": tables.by_roi(rows),
        "layers": tables.layer_margins(rows),
        "controls": tables.against_controls(rows),
    }
    if rows[rows.control_of == ""].model.nunique() > 1:
        found["models"] = inference.between_models(rows)
    if alignments:
        found["alignment"] = pd.DataFrame(alignments)
    if joined:
        parts = pd.concat([rows_lib.read(x.path / PARTITION) for x in joined])
        found["partition"] = parts.drop(columns="versions")
        found["beyond"] = tables.beyond_controls(parts)
    if permuted:
        tests = pd.concat([rows_lib.read(x.path / SIGNIFICANCE) for x in permuted])
        found["permutations"] = tests.drop(columns="versions")
        found["significance"] = inference.significance(tests)
    for name, table in found.items():
        _write(artefact, f"{name}.csv", table.to_csv(index=False).encode())
    models = list(dict.fromkeys(rows[rows.control_of == ""].model))
    figures = {f"layers_{model}": plots.layer_profiles(rows, model) for model in models}
    figures["rois"] = plots.roi_bars(rows)
    for name, svg in figures.items():
        _write(artefact, f"{name}.svg", svg)
    left_out = sorted({s for x in artefact.inputs for s in x.facts()["left_out"]})
    remarks = _remarks(rows, left_out, planted, found["layers"])
    _write(artefact, SUMMARY, _summary(config, remarks, found).encode())
    page = _page(config, rows, remarks, found, figures, artefact)
    _write(artefact, "index.html", page.encode())
    files = [f"{name}.csv" for name in found] + [f"{name}.svg" for name in figures]
    files += ["scores.parquet", SUMMARY, "index.html"]
    return {"num_rows": len(rows), "files": files}


def _write(artefact: Artefact, name: str, data: bytes) -> None:
    run_dir.write_atomic(artefact.path / name, data)


def _remarks(
    rows: pd.DataFrame, left_out: list[str], planted: Artefact | None, layers: pd.DataFrame
) -> list[str]:
    """Say in sentences what the tables do not show by themselves."""
    subjects = [s for s in dict.fromkeys(rows.subject) if s != tables.GROUP]
    remarks = []
    if left_out:
        remarks.append(
            f"Left out, {len(left_out)} of {len(subjects) + len(left_out)} subjects, because "
            f"every target is constant: {', '.join(left_out)}."
        )
    if planted is not None:
        remarks += _planted(rows, planted, layers)
    undefined = int(rows.num_nan.sum())
    if undefined:
        remarks.append(
            f"{undefined} scores of a target in a fold are undefined; a target with one of them "
            "enters no mean over targets, and a fold without any defined score makes the row's "
            "choice of a layer undefined."
        )
    if len(subjects) == 1:
        remarks.append(
            f"There is one column of subjects, {subjects[0]!r}: so no group, and no ceiling over "
            "subjects."
        )
    elif tables.GROUP not in set(rows.subject):
        remarks.append(
            "There is no group, and ceilings are undefined, because no target is there in every "
            "subject under the same roi and name."
        )
    edges = rows[(rows.control_of == "") & (rows.subject != tables.GROUP)]
    # Of a single penalty, each choice is at both ends.
    if not ((edges.alpha_low_share == 1) & (edges.alpha_high_share == 1)).all():
        remarks.append(
            "Penalties chosen at the ends of the grid, networks only: "
            f"{edges.alpha_low_share.mean():.1%} at the smallest, "
            f"{edges.alpha_high_share.mean():.1%} at the largest."
        )
    return remarks


def _planted(rows: pd.DataFrame, planted: Artefact, layers: pd.DataFrame) -> list[str]:
    settings = planted.settings
    model, layer = settings["model"], settings["layer"]
    remarks = [
        f"Planted: layer {layer} of {model}; weights drawn alike for all units, none of them or of "
        f"the leading components preferred; noise {settings['noise_sd']} times the signal."
    ]
    for best in layers[layers.model == model].itertuples():
        hit = "the planted layer" if best.best_layer == layer else f"NOT the planted layer {layer}"
        remarks.append(
            f"Best layer: {best.best_layer} ({hit}), mean r over {best.num_subjects} participants "
            f"{best.best_score:.3f}; margin over the second, layer {best.second_layer} "
            f"({best.second_score:.3f}): {best.margin:.3f}, 95 % interval "
            f"[{best.ci_low:.3f}, {best.ci_high:.3f}] over folds and participants, who share the "
            "signal."
        )
    # Ceilings are the responses' own: any row of a participant has them.
    own = rows[rows.subject != tables.GROUP].drop_duplicates(["subject", "roi"])
    remarks.append(
        f"Planted ceiling (noiseless signal against responses): {own.signal_ceiling.mean():.3f}; "
        f"leave-one-subject-out ceilings of the participants: {own.ceiling.mean():.3f}, from "
        f"{own.ceiling.min():.3f} to {own.ceiling.max():.3f}."
    )
    return remarks


def _summary(config: Config, remarks: list[str], found: dict[str, pd.DataFrame]) -> str:
    number = lambda x: html.cell(float(x))
    show = lambda table: table.to_string(index=False, float_format=number, na_rep="–")
    parts = [
        f"{config.title}: {', '.join(dict.fromkeys(found['scores'].dataset))}",
        *remarks,
        *(["", _ALIGNMENT, show(found["alignment"])] if "alignment" in found else []),
        "",
        "Group: best layer and its score. Subjects: layer chosen inside the training data.",
        show(_shown(found["rois"])),
        "",
    ]
    if len(found["layers"]):
        parts += [_MARGINS, show(_shown(found["layers"])), ""]
    if len(found["controls"]):
        parts += [f"Model minus control. {_CONTROLS}", show(_shown(found["controls"])), ""]
    if "models" in found:
        parts += [f"Between models. {_MODELS}", show(_shown(found["models"])), ""]
    if "significance" in found:
        parts += [f"Permutations. {_SIGNIFICANCE}", show(_shown(found["significance"])), ""]
    if "beyond" in found:
        parts += [f"Beyond controls. {_BEYOND}", show(_shown(found["beyond"])), ""]
    return "\n".join(parts)


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out of a table what is the same in all rows, or undefined in all."""
    if "group_score" in table and table.group_score.isna().all():
        table = table.drop(columns="group_layer")
    return table.drop(columns="dataset", errors="ignore").dropna(axis=1, how="all")


def _lead(dataset: str, found: dict[str, pd.DataFrame]) -> str:
    """Say what was found: the region predicted best, and which controls stay behind there."""
    rois = found["rois"].sort_values("subjects_score", ascending=False)
    best = rois.iloc[0]
    own = found["controls"]
    own = own[(own.model == best.model) & (own.roi == best.roi)]
    if best.num_subjects == 1:
        return _lead_of_one(dataset, best, own)
    ahead = [row.control for row in own.itertuples() if row.ci_low > 0]
    close = [row.control for row in own.itertuples() if not row.ci_low > 0]
    text = (
        f"On {dataset}, {best.model} predicts {best.roi} best: mean r over {best.num_subjects} "
        f"subjects {best.subjects_score:.3f} [{best.ci_low:.3f}, {best.ci_high:.3f}], ceiling "
        f"{best.subjects_ceiling:.3f}; group r {best.group_score:.3f}, ceiling "
        f"{best.group_ceiling:.3f}."
    )
    if ahead:
        text += f" The subjects' interval is above {', '.join(ahead)}"
        text += f", and not above {', '.join(close)}." if close else ": all its controls."
    elif close:
        text += f" The subjects' interval is above none of {', '.join(close)}."
    return text


def _lead_of_one(dataset: str, best, controls: pd.DataFrame) -> str:
    """Say the same of a single subject, who stands for no others."""
    text = f"On {dataset}, {best.model} predicts {best.roi} best: r {best.subjects_score:.3f}."
    if len(controls):
        each = ", ".join(f"{row.control} {row.control_score:.3f}" for row in controls.itertuples())
        text += f" Its controls: {each}."
    return text


def _page(config, rows, remarks, found, figures, artefact) -> str:
    dataset = rows.dataset.iloc[0]
    lead = _lead(dataset, found)
    found = {name: _shown(table) for name, table in found.items()}
    sections = [
        html.Section("What to know first", text=remarks),
        *(
            [html.Section("Protocol", tables=[(_ALIGNMENT, found["alignment"])])]
            if "alignment" in found
            else []
        ),
        html.Section(
            "Regions",
            tables=[
                (
                    "Group: best layer and its score, a maximum over layers and so optimistic. "
                    "Subjects: mean score, layer chosen inside the training data, 95 % interval.",
                    found["rois"],
                )
            ],
            figures=[
                (
                    "Bars: mean score over subjects of each model and its controls in each "
                    "region, with intervals and noise ceilings.",
                    figures["rois"],
                )
            ],
        ),
        html.Section(
            "Layers",
            tables=[(_MARGINS, found["layers"])] if len(found["layers"]) else [],
            figures=[
                (f"Lines: scores against layers of {name.removeprefix('layers_')}.", svg)
                for name, svg in figures.items()
                if name.startswith("layers_")
            ],
        ),
        html.Section(
            "Model minus control",
            text=[
                "A control that is ahead of the model has an interval below 0. 'layer 0' is the "
                "model's own embedding. Choosing among layers from noisy training data costs a "
                "model something that a control with a single layer does not pay."
            ],
            tables=[(_CONTROLS, found["controls"])],
        ),
    ]
    if "models" in found:
        sections.append(html.Section("Between models", tables=[(_MODELS, found["models"])]))
    if "significance" in found:
        orders = found["permutations"].orders.iloc[0]
        text = _ORDERS[orders]
        sections.append(
            html.Section(
                "Permutations", text=[text], tables=[(_SIGNIFICANCE, found["significance"])]
            )
        )
    if "beyond" in found:
        sections.append(html.Section("Beyond controls", tables=[(_BEYOND, found["beyond"])]))
    sections.append(html.Section("Methods", text=[_methods(rows, artefact.inputs[0].settings)]))
    provenance = json.dumps(artefact.describe(), indent=1)
    row = rows.iloc[0]
    versions = f"commit {row.git_commit or 'unknown'}\nversions {row.versions}\n{provenance}"
    return html.page(f"{config.title}: {dataset}", lead, sections, versions)


def _methods(rows: pd.DataFrame, settings: Mapping[str, object]) -> str:
    row = rows.iloc[0]
    num_folds = len(row.fold_scores)
    if row.protocol != protocols.NESTED_RIDGE:
        return (
            f"{row.num_samples} samples; context {row.context}, tokens pooled by {row.pooling}. "
            f"{protocols.describe(protocols.find(row.protocol))} Folds {row.folds_hash}."
        )
    folds = "contiguous outer folds"
    if settings["groups"] != "none":
        whole = {"passage": "passages", "dataset": "groups of the data set"}[settings["groups"]]
        drawn = f", drawn with seed {settings['group_seed']}" if settings["group_seed"] >= 0 else ""
        folds = f"outer folds of whole {whole}{drawn}"
    return (
        f"{row.num_samples} samples; context {row.context}, tokens pooled by {row.pooling}. "
        f"Ridge regression with a free intercept, {num_folds} {folds}, one penalty "
        "per target and fold chosen by squared error on inner folds (the other outer blocks); "
        "means and scales of features from training samples alone; responses in TRs standardised "
        "within each run. A score is the Pearson correlation of "
        "predicted and recorded responses in each held-out block, averaged over blocks, then over "
        "targets; scores are not divided by the ceiling. Ceilings are found on the same blocks: "
        "for a subject the correlation with the mean of the others, for the group the root of the "
        f"Spearman-Brown split-half reliability over subjects. Folds {row.folds_hash}."
    )
