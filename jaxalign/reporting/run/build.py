"""Score rows and what is known of models -> a report: tables, charts, one page, a summary."""

from collections.abc import Mapping, Sequence

import pandas as pd

from jaxalign.io import rows as rows_lib
from jaxalign.reporting import charts, tables
from jaxalign.reporting.charts import Chart
from jaxalign.reporting.charts import instructions as charts_instructions
from jaxalign.reporting.charts import models as charts_models
from jaxalign.reporting.charts import parts as charts_parts
from jaxalign.reporting.charts import rois as charts_rois
from jaxalign.reporting.charts import training as charts_training
from jaxalign.reporting.findings import Found
from jaxalign.reporting.findings import model_scores as scores_lib
from jaxalign.reporting.page import Page, file_name
from jaxalign.reporting.run import comparisons, inference, normalized, sections, summary
from jaxalign.reporting.run.contents import Contents, Instructions

# Tables of many rows, which nobody prints.
_UNPRINTED = (
    "scores",
    "partition",
    "permutations",
    "profiles",
    "model_scores",
    "model_rois",
    "training",
)
_MOST_NETWORKS = 6  # that have a chart of their layers each
_MOST_NAMES = 6  # of data sets at the top


def build(contents: Contents) -> Page:
    """Make the report of a run.

    Raises:
      InputError: if a model was scored in several ways.
    """
    scores, models, found = contents.scores, contents.models, contents.found
    with_folds = scores[scores.fold_scores.map(len) > 0]
    folded = tables.main_way(with_folds, instruction=contents.instruction)
    made = {"scores": scores.drop(columns=[*rows_lib.LISTS, "versions"])}
    along = contents.along
    tuned = folded.model.isin(along.models) if along else folded.model != folded.model
    made |= _of_folds(folded, folded[~tuned]) if len(folded) else {}
    if along is not None:
        made |= {"training": along.points, "training_differences": along.differences}
    made |= _of_rows(contents)
    made |= _of_models(scores, models, found) if len(scores) else {}
    remarks = [*contents.remarks, *(summary.of_findings(found) if found is not None else ())]
    if len(folded):
        remarks += summary.remarks(folded, contents.left_out, contents.planted, made["layers"])
    if other := len(with_folds) - len(folded):
        asked = f"the instruction {contents.instruction!r}"
        remarks.append(
            "Models that were scored in several ways stand in the tables of regions and layers "
            f"with {asked if contents.instruction else 'no instruction'} and with all of their "
            f"units: {other} of {len(with_folds)} scores are not there."
        )
    remarks += _remarks(scores, models, found)
    # Of models along a training the last ones are drawn: the others have charts of their own.
    shown = folded[~tuned | folded.model.isin(along.finals)] if along else folded
    drawn = _charts(shown, made, models)
    if along is not None:
        charted = charts_training.of_run(along.points, charts.metric(folded[tuned]))
        drawn |= {chart.name: chart for chart in charted}
    if contents.normalized is not None:
        made["normalized"] = contents.normalized
        drawn |= _normalized(contents)
    made |= _of_instructions(contents.instructions)
    for source in contents.instructions:
        charted = charts_instructions.of_run(source.tables, lead=source.lead)
        drawn |= {chart.name: chart for chart in charted}
        remarks.append(f"Instructions: {source.notes[0]}")
    lead = summary.lead(folded, made) if len(folded) else ""
    return Page(
        title=contents.title,
        lead=lead or (summary.lead_of_models(scores, found) if len(scores) else ""),
        sections=sections.of_run(contents, made, drawn, remarks),
        tables=made,
        summary=summary.text(contents.title, [*remarks, *(along.sentences if along else ())], made),
        provenance=contents.provenance,
        tiles=_tiles(scores, made),
        unprinted=_UNPRINTED,
    )


def _normalized(contents: Contents) -> dict[str, Chart]:
    """Draw normalised scores of each data set, each model by the instruction that stands for it."""
    drawn = {}
    kept = normalized.shown(contents.normalized, contents.instruction)
    for dataset, part in kept.groupby("dataset", sort=False):
        chart = normalized.heat_map(part, name=file_name(f"normalized_{dataset}"))
        if chart is not None:
            drawn[chart.name] = chart
    return drawn


def _of_instructions(sources: Sequence[Instructions]) -> dict[str, pd.DataFrame]:
    """Put the tables of the same name one below the other; each names its data set and model."""
    names = dict.fromkeys(name for source in sources for name in source.tables)
    return {
        name: pd.concat([x.tables[name] for x in sources if name in x.tables], ignore_index=True)
        for name in names
    }


def _of_folds(rows: pd.DataFrame, compared: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of rows with folds; of those compared each model with each other one."""
    found = {
        "rois": tables.by_roi(rows),
        "layers": tables.layer_margins(rows),
        "controls": tables.against_controls(rows),
    }
    if compared[compared.control_of == ""].model.nunique() > 1:
        found["models"] = inference.between_models(compared)
    return found


def _of_rows(contents: Contents) -> dict[str, pd.DataFrame]:
    found = {}
    if contents.alignments:
        found["alignment"] = pd.DataFrame(list(contents.alignments))
    if contents.partition is not None:
        found["partition"] = contents.partition.drop(columns="versions")
        found["beyond"] = tables.beyond_controls(contents.partition)
    if contents.significance is not None:
        found["permutations"] = contents.significance.drop(columns="versions")
        found["significance"] = inference.significance(contents.significance)
    return found


def _of_models(scores, models, found) -> dict[str, pd.DataFrame]:
    """Return the tables about models, and those of findings if there are any."""
    of_model = scores_lib.model_scores(scores) if found is None else found.model_scores
    by_roi = scores_lib.model_scores(scores, by_roi=True) if found is None else found.rois
    made = {
        "model_scores": of_model,
        "model_rois": by_roi,
        "models_and_scores": comparisons.models_table(of_model, models),
    }
    if models is not None:
        made["properties"] = models.reset_index(names="model")
    if found is not None:
        made["findings"] = found.findings
        others = {
            "findings_remarks": found.remarks,
            "checks": found.checks,
            "pairs": found.pairs,
            "profiles": found.profiles,
            "published_correlations": found.published,
        }
        made |= {name: table for name, table in others.items() if len(table)}
    return made


def _charts(folded, made: Mapping[str, pd.DataFrame], models) -> dict[str, Chart]:
    drawn: list[Chart | None] = []
    if models is not None:
        points = comparisons.points(made["model_scores"], models)
        for name, (label, log) in comparisons.PROPERTIES.items():
            if name in points:
                heading = f"Alignment against {label.split(',')[0]}"
                drawn.append(
                    charts_models.scatter(points, name, title=heading, label=label, log=log)
                )
        if len(points):
            drawn.append(charts_models.pairs(points))
        if "findings" in made and len(points):
            part = comparisons.correlations(made["findings"], points.dataset.iloc[0])
            if len(part):  # where there is a property to correlate with
                drawn.append(charts_models.forest(part))
    for dataset, part in folded.groupby("dataset", sort=False):
        of_set = _of_data_set(part)
        if folded.dataset.nunique() > 1:
            of_set = [
                charts.among_others(x, dataset)._replace(name=f"{x.name}_{dataset}") for x in of_set
            ]
        drawn += of_set
    if "model_rois" in made:
        drawn += _matrices(made["model_rois"])
    if "beyond" in made:
        drawn.append(_beyond(made["beyond"]))
    return {chart.name: chart for chart in drawn if chart is not None}


def _of_data_set(rows: pd.DataFrame) -> list[Chart]:
    """Draw regions and layers of a data set."""
    networks = rows[rows.control_of == ""]
    models = list(dict.fromkeys(networks.model))[:_MOST_NETWORKS]
    drawn = [
        charts_rois.roi_bars(rows),
        *charts_rois.layer_profiles(rows, models),
        charts_rois.depth(rows),
    ]
    return [chart for chart in drawn if chart is not None]


def _matrices(by_roi: pd.DataFrame) -> list[Chart | None]:
    named = comparisons.outcomes(by_roi)
    found = []
    for name, part in named.groupby("outcome", sort=False):
        part = part[part.dataset != scores_lib.AVERAGE]
        if not part.duplicated(["model", "roi"]).any() and len(part):
            title = f"Models by regions: {name}"
            found.append(charts_rois.roi_matrix(part, file_name(f"matrix_{name}"), title))
    return found


def _beyond(table: pd.DataFrame) -> Chart | None:
    group = table.group_unique.notna().any()
    kind = "group" if group else "subjects"
    part = pd.DataFrame(
        {
            "label": table.model,
            "panel": table.roi,
            "first": "the model",
            "second": "controls",
            "unique_first": table[f"{kind}_unique"],
            "shared": table[f"{kind}_shared"],
            "unique_second": table[f"{kind}_controls"] - table[f"{kind}_shared"],
        }
    )
    title = f"What models explain beyond {table.controls.iloc[0]}"
    return charts_parts.partition_bars(part, name="beyond", title=title, unit="R2 out of sample")


def _tiles(scores: pd.DataFrame, made: Mapping[str, pd.DataFrame]) -> list[tuple[str, str]]:
    """Return the numbers that stand out at the top."""
    networks = scores[scores.control_of == ""]
    count = lambda n, word: (str(n), word if n == 1 else f"{word}s")
    if scores.empty:
        return []
    names = list(dict.fromkeys(scores.dataset))
    tiles = [count(networks.model.nunique(), "model"), count(len(names), "data set")]
    if len(names) <= _MOST_NAMES:
        tiles[-1] = (tiles[-1][0], f"{tiles[-1][1]}: {', '.join(names)}")
    num_rois = len(set(networks.roi) - {""})
    if num_rois > 1:
        tiles.append(count(num_rois, "region"))
    people = set(networks.subject) - {tables.GROUP, rows_lib.ALL}
    if people:
        tiles.append(count(len(people), "subject"))
    if "findings" in made:
        gain = comparisons.gain(made["findings"])
        if gain is not None:
            kind = f"mean gain by tuning, {gain.outcome}, {gain.n} pairs"
            tiles.append((f"{gain.value:+.1f} %", kind))
    if "checks" in made:
        num = len(comparisons.failed(made["checks"]))
        tiles.append((str(num), "published numbers that do not follow"))
    return tiles


def _remarks(scores: pd.DataFrame, models: pd.DataFrame | None, found: Found | None) -> list[str]:
    """Warn of published scores and unknown models, and say what the checks found."""
    said = []
    networks = scores[scores.control_of == ""].model.unique()
    unknown = [] if models is None else [x for x in networks if x not in models.index]
    if unknown:
        said.append(
            f"Nothing is known of {len(unknown)} of {len(networks)} models, which are in no "
            f"comparison that needs their properties: {', '.join(unknown)}."
        )
    published = scores[scores.protocol.str.startswith(rows_lib.PUBLISHED)]
    if len(published):
        names = ", ".join(dict.fromkeys(published.protocol))
        said.append(
            f"{len(published)} of {len(scores)} scores are published figures ({names}), not "
            "computed here: the layer of each was chosen on the data that it is scored on, and "
            "nothing is known of folds and subjects."
        )
    if found is not None and len(found.checks):
        bad = comparisons.failed(found.checks)
        said.append(
            f"{len(bad)} published numbers do not follow from the published tables: "
            f"{'; '.join(bad.quantity)}."
            if len(bad)
            else "All published numbers follow."
        )
    return said
