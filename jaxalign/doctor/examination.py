"""All checks of a model, one after the other, and the page of what they found."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxalign.doctor import findings, reference, states, tokens
from jaxalign.doctor.findings import FAILED, OK, WARNING, Finding
from jaxalign.doctor.patient import CONTEXT, Patient
from jaxalign.io import run_dir
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page

_CAPTIONS = {
    "layers": "Each layer: what it is, whether it has passed a final norm, its width, the median "
    "length of its vectors and their median distance from the centre, and the unit with most of "
    "the variance.",
    "precision_by_layer": "Distance of states in short types from those in float32, in units of "
    "the spread of a layer, at the median token.",
    "precision_by_position": "The same by quarters of the row, at the median layer and token.",
    "tokens": "Tokens of the first parts: those that make their vectors, those that make their "
    "surprisal, and where they stand.",
}


class Record(NamedTuple):
    """What was found: findings, and tables by name."""

    findings: Sequence[Finding]
    tables: Mapping[str, pd.DataFrame]


def examine(examined: Patient, *, tell: Callable[[str], object]) -> Record:
    """Make all checks of a model.

    Args:
      examined: the model and its texts.
      tell: is given a line for each finding, as soon as it is there.
    """
    found: list[Finding] = []

    def add(*news: Finding) -> None:
        found.extend(news)
        for x in news:
            tell(f"{x.status:<12}{x.check}: {x.said}")

    tables: dict[str, pd.DataFrame] = {}
    add(Finding("files and network", OK, _network(examined)))
    add(*tokens.whose_tokens(examined))
    if any(x.status == FAILED and x.check.startswith("the tokenizer") for x in found):
        return Record(found, tables)
    news, tables["tokens"] = tokens.what_is_read(examined)
    add(*news, *tokens.chat(examined))
    network = examined.load()
    news, vectors = states.same_however_passed(examined, network)
    add(*news)
    add(*states.head_and_surprisal(examined, network))
    news, tables["layers"] = states.layers(examined, np.asarray(vectors))
    add(*news)
    news, tables["precision_by_layer"], positions = states.precisions(examined, network)
    tables["precision_by_position"] = positions
    add(*news)
    add(reference.against_transformers(examined, network))
    return Record(found, {name: table for name, table in tables.items() if len(table)})


def _network(examined: Patient) -> str:
    model = examined.model
    what = "causal" if model.causal else "not causal"
    rounded = f", weights rounded to {model.quantization}" if model.quantization else ""
    head = "with a head" if model.predicts else "without a head"
    return (
        f"{model.design}, {what}, {head}, {model.num_parameters:,} parameters in "
        f"{model.config.num_layers} blocks of width {model.config.width}, rows of up to "
        f"{model.config.max_length} tokens{rounded}; every tensor has its place"
    )


def page(examined: Patient, record: Record) -> Page:
    """Lay what was found out as a page."""
    count = {x: sum(y.status == x for y in record.findings) for x in findings.STATUSES}
    name = examined.model.name
    failed = [x.check for x in record.findings if x.status == FAILED]
    warned = [x.check for x in record.findings if x.status == WARNING]
    lead = f"{name}: {count[OK]} checks passed, {count[WARNING]} with a warning, "
    lead += f"{count[FAILED]} failed, {count[findings.SKIPPED]} could not be made."
    if failed:
        lead += f" Do not trust its numbers before this is mended: {', '.join(failed)}."
    elif warned:
        lead += f" Look at: {', '.join(warned)}."
    table = findings.table(record.findings)
    sections = [Section("Checks", tables=[("What was asked, and the answer.", table)])]
    for title, names in (
        ("Layers", ("layers",)),
        ("Precision", ("precision_by_layer", "precision_by_position")),
        ("Tokens", ("tokens",)),
    ):
        shown = [(_CAPTIONS[x], record.tables[x]) for x in names if x in record.tables]
        if shown:
            sections.append(Section(title, tables=shown))
    stimuli = examined.stimuli
    versions = run_dir.versions("jax", "flax", "tokenizers")
    lines = [
        f"commit {run_dir.git_commit() or 'unknown'}",
        ", ".join(f"{package} {version}" for package, version in versions.items()),
        f"{len(stimuli)} parts of {len(set(stimuli.passage))} passages, context {CONTEXT}",
    ]
    return Page(
        title=f"Examination of {name}",
        lead=lead,
        sections=sections,
        tables={"checks": table, **record.tables},
        summary=lead + "\n",
        provenance="\n".join(lines),
        unprinted=tuple(record.tables),
    )
