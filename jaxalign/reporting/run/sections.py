"""Tables and charts -> the sections of the page, in their order."""

from collections.abc import Mapping, Sequence

import pandas as pd

from jaxalign.reporting import findings as findings_lib
from jaxalign.reporting import html
from jaxalign.reporting.charts import Chart
from jaxalign.reporting.html import Section
from jaxalign.reporting.run import comparisons, methods, normalized, summary
from jaxalign.reporting.run.contents import Contents

_MODELS = (
    "Each model with what is known of it, and its score on each data set: raw, not divided by a "
    "ceiling. Headings sort, undefined values stand last; the filter takes words in any order."
)
_FINDINGS = (
    "Mean gains by instruction tuning, and correlations: pooled, and within families. p adjusted: "
    "Benjamini-Hochberg, for gains over the data sets of a subset, for correlations with "
    "properties over the predictors of one subset and outcome, for those with behaviour over the "
    "brain data sets of one subset, for published ones over the 11 categories; averages over data "
    "sets stand alone. Single pairs and further statistics are in findings.csv."
)
_WINNERS = (
    "Best instruction of each region and its margin over the second, both picked on these scores, "
    "so that the margin is above 0 by construction; 95 % interval over subjects and folds. num "
    "agree: subjects in whom it is best too. p: of the two exchanging their predictions of single "
    "images; of the two best of several it needs no correction for that."
)
_DIFFERENCES = (
    "Arms of a training, first minus second at the same step, seed by seed and fold by fold: mean "
    "score over regions and people, layers chosen inside the training data. 95 % interval for "
    "other seeds and stimuli; p adjusted: Benjamini-Hochberg over all rows of a data set."
)
_OF_INSTRUCTIONS = ("winners_", "concepts_", "shares_", "instruction_", "venn_")
_ROWS_CHECKS = (
    "Published numbers and what the published tables give, with the difference that rounding "
    "allows."
)


def of_run(
    contents: Contents,
    tables: Mapping[str, pd.DataFrame],
    charts: Mapping[str, Chart],
    remarks: Sequence[str],
) -> list[Section]:
    """Return the sections that have something in them.

    Args:
      contents: what the report is made of.
      tables: the report's, by name.
      charts: likewise.
      remarks: what to know first.
    """
    pick = lambda *starts: [x for name, x in charts.items() if name.startswith(starts)]
    parts = [
        Section("What to know first", text=remarks),
        _protocol(tables),
        _findings(tables, charts),
        _checks(tables),
        _models(tables),
        Section("Alignment and properties of models", charts=pick("scatter_")),
        Section("Instruction tuning", charts=pick("pairs")),
        _along(contents, tables, pick("along_")),
        Section("Brain views", text=contents.not_drawn, figures=contents.figures),
        Section(
            "Regions",
            tables=_one(tables, "rois", summary.GROUP_AND_SUBJECTS + _OPTIMISTIC),
            charts=pick("rois", "matrix_"),
        ),
        _normalized(tables, pick("normalized_"), contents),
        Section(
            "Layers",
            tables=_one(tables, "layers", summary.MARGINS),
            charts=pick("layers_", "depth"),
        ),
        _controls(tables),
        Section("Between models", tables=_one(tables, "models", summary.MODELS)),
        _permutations(tables),
        Section(
            "Beyond controls",
            tables=_one(tables, "beyond", summary.BEYOND),
            charts=pick("beyond"),
        ),
        _instructions(
            tables, pick("winners_", "concepts_", "shares_", "instruction_", "venn_"), contents
        ),
        Section("Methods", text=methods.paragraphs(contents)),
    ]
    return [x for x in parts if x.text or x.tables or x.figures or x.charts]


_OPTIMISTIC = (
    " The group's is a maximum over layers and so optimistic; the subjects' has a 95 % interval."
)


def _one(
    tables: Mapping[str, pd.DataFrame], name: str, caption: str
) -> list[tuple[str, pd.DataFrame]]:
    if name not in tables or tables[name].empty:
        return []
    return [(caption, summary.shown(tables[name]))]


def _protocol(tables: Mapping[str, pd.DataFrame]) -> Section:
    return Section("Protocol", tables=_one(tables, "alignment", summary.ALIGNMENT))


def _findings(tables: Mapping[str, pd.DataFrame], charts: Mapping[str, Chart]) -> Section:
    if "findings" not in tables:
        return Section("Findings")
    found = tables["findings"]
    shown = comparisons.headline(found)
    counts = shown.statistic.str.startswith("num_")
    shown = shown.assign(value=_mixed(shown.value, counts))
    names = dict.fromkeys(found.analysis)
    notes = [findings_lib.LEGENDS[x] for x in names if x in findings_lib.LEGENDS]
    published = _one(
        tables,
        "published_correlations",
        "The published correlation table, with intervals and p found again from the published r. "
        "p adjusted: Benjamini-Hochberg over these 11 tests.",
    )
    undefined = tables.get("findings_remarks", pd.DataFrame())
    if len(undefined):
        notes.append(f"{len(undefined)} numbers are undefined; findings_remarks.csv says why.")
    return Section(
        "Findings",
        notes=notes,
        charts=[charts[name] for name in ("correlations",) if name in charts],
        tables=[(_FINDINGS, shown), *published],
    )


def _checks(tables: Mapping[str, pd.DataFrame]) -> Section:
    title = "Published numbers that do not follow from the published tables"
    if "checks" not in tables:
        return Section(title)
    checks = tables["checks"]
    bad = comparisons.failed(checks)
    said = [
        f"{row.quantity}: published {row.published:g}, found {row.found:.3g}. {row.remark}"
        for row in bad.itertuples()
    ]
    known = int(checks.follows.notna().sum())
    lead = f"{len(bad)} of the {known} published numbers that can be found again do not follow"
    if unknown := len(checks) - known:
        lead += f"; {unknown} more cannot be, for the reason that the table gives"
    lead += "."
    shown = checks.assign(
        follows=[
            "unknown" if x is pd.NA or x is None or x != x else "yes" if x else "no"
            for x in checks.follows
        ]
    )
    counts = (checks.tolerance == 0) & (checks.published % 1 == 0) & (checks.found % 1 == 0)
    numbers = ("published", "found", "tolerance")
    shown = shown.assign(**{name: _mixed(checks[name], counts) for name in numbers})
    return Section(title, text=[lead, *said], tables=[(_ROWS_CHECKS, shown)])


def _mixed(column: pd.Series, counts: pd.Series) -> pd.Series:
    """Turn those numbers of a column that are counts into integers."""
    return column.astype(object).mask(counts, html.integers(column.where(counts)))


def _models(tables: Mapping[str, pd.DataFrame]) -> Section:
    if "models_and_scores" not in tables:
        return Section("Models")
    table = tables["models_and_scores"]
    if len(table) < 2:
        return Section("Models")
    return Section("Models", tables=[(_MODELS, table.dropna(axis=1, how="all"))])


def _controls(tables: Mapping[str, pd.DataFrame]) -> Section:
    text = [
        "A control that is ahead of the model has an interval below 0. 'layer 0' is the "
        "model's own embedding. Choosing among layers from noisy training data costs a "
        "model something that a control with a single layer does not pay."
    ]
    found = _one(tables, "controls", summary.CONTROLS)
    return Section("Model minus control", text=text if found else (), tables=found)


def _instructions(
    tables: Mapping[str, pd.DataFrame], charts: Sequence[Chart], contents: Contents
) -> Section:
    won = tables.get("instruction_winners", pd.DataFrame())
    if len(won):
        # The texts of instructions are long, and stand above.
        won = won.drop(columns=["winner", "second"])
        won = won.rename(columns={"winner_label": "winner", "second_label": "second"})
        first = ["roi", "outcome", "winner", "second"]
        won = won[[*first, *(x for x in won if x not in first)]]
        alike = [x for x in ("dataset", "model") if won[x].nunique() == 1]
        won = won.drop(columns=alike)
    shown = [(_WINNERS, won)] if len(won) else []
    first = [source.notes[0] for source in contents.instructions]
    others = [note for source in contents.instructions for note in source.notes[1:]]
    return Section("Instructions", text=first, notes=others, charts=charts, tables=shown)


def _along(
    contents: Contents, tables: Mapping[str, pd.DataFrame], charts: Sequence[Chart]
) -> Section:
    if contents.along is None:
        return Section("Along training")
    return Section(
        "Along training",
        text=contents.along.sentences,
        charts=charts,
        tables=_one(tables, "training_differences", _DIFFERENCES),
    )


def _normalized(
    tables: Mapping[str, pd.DataFrame], charts: Sequence[Chart], contents: Contents
) -> Section:
    if "normalized" not in tables:
        return Section("Normalised alignment")
    table = normalized.shown(tables["normalized"], contents.instruction)
    hidden = ["model", "control_of", "instruction", "pooling", "num_subjects"]
    hidden += [x for x in ("dataset", "protocol") if table[x].nunique() == 1]
    table = table.drop(columns=hidden)
    table = table[["name", *(x for x in table if x != "name")]]
    return Section("Normalised alignment", charts=charts, tables=[(normalized.CAPTION, table)])


def _permutations(tables: Mapping[str, pd.DataFrame]) -> Section:
    if "significance" not in tables:
        return Section("Permutations")
    text = [summary.ORDERS[tables["permutations"].orders.iloc[0]]]
    return Section(
        "Permutations", text=text, tables=_one(tables, "significance", summary.SIGNIFICANCE)
    )
