"""Reports of score rows: a page, figures and tables in a folder."""

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from jaxalign import runner
from jaxalign.api import frames
from jaxalign.api.frames import Path
from jaxalign.api.runs import BenchmarkScore
from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io import rows as rows_lib
from jaxalign.literature import properties, property_sources, protocols, published
from jaxalign.reporting import findings
from jaxalign.reporting.charts import Chart
from jaxalign.reporting.page import PAGE, Page
from jaxalign.reporting.run import build
from jaxalign.reporting.run.contents import Contents
from jaxalign.results import finished

FILES = "files.json"  # names and hashes of what a report has written, which the next one replaces
REPORT = "files of a report of jaxalign"

Scores = pd.DataFrame | BenchmarkScore | Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """A report, and where it lies.

    Attributes:
      title: of the page.
      lead: what was found, in a sentence or two.
      summary: tables and remarks as text.
      tables: by the names of their files, `<name>.csv`; of comparisons of models "findings".
      charts: by the names of their files, `<name>.svg` and `<name>.pdf`.
      page: the file to open.
      files: names of all files.
    """

    title: str
    lead: str
    summary: str
    tables: Mapping[str, pd.DataFrame]
    charts: Mapping[str, Chart]
    page: pathlib.Path
    files: Sequence[str]

    def __repr__(self) -> str:
        """Say in a few lines what a notebook's cell should show."""
        return (
            f"{self.title}: {self.lead}\n"
            f"  {len(self.tables)} tables ({', '.join(self.tables)}), {len(self.charts)} figures\n"
            f"  {self.page}"
        )


def report(
    scores: Scores | Sequence[Scores],
    *,
    models: pd.DataFrame | Path | None = None,
    path: Path = "report",
    title: str = "Brain alignment",
    compare: Mapping[str, Any] | None = None,
) -> WrittenReport:
    """Write a report of scores: one page that opens from disk, figures for papers, tables.

    Args:
      scores: rows (`load_scores`, or any part of them), what `score` has returned for recordings,
        work directories, "published:aw2024" and the like, or several of these.
      models: what is known of the models, by which they are then compared (size, family, what they
        were tuned from, benchmarks of knowledge): a frame or CSV file with a row per model, a
        column or index `model`, and any columns of `jaxalign/literature/properties.py`;
        "published:aw2024" and the like. None: they are not compared.
      path: folder to write to; a report that is there is replaced. A file of the same name that no
        report has written, or that has changed since, is refused and stays as it is.
      title: of the page.
      compare: how models are compared: fields of `jaxalign.reporting.findings.Options`, such as
        `{"paper": "aw2024", "apart": ("gpt2",)}`.

    Returns:
      The tables and charts, and where they lie.

    Raises:
      InputError: if rows lack a column, are there twice or hold no model; if a model was scored in
        several ways (instructions, numbers of units, protocols); if a property is not known, a base
        is missing, or there is one model only to compare; if the folder cannot be written.

    Example:
      >>> import jaxalign
      >>> found = jaxalign.score("path/to/model", "path/to/data", "jaxalign", controls=["position"])
      >>> written = jaxalign.report(found, path="runs/page", title="One model")
      >>> written.page.name, written.tables["rois"].roi.tolist()
      ('index.html', ['A', 'B'])
    """
    place.refuse_urls("path", os.fspath(path))
    folder = pathlib.Path(path).absolute()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"path must be a folder, but {folder} is a file.")
    runner.check_address_space()
    several = isinstance(scores, Sequence) and not isinstance(scores, str)
    given = list(cast(Sequence[Scores], scores)) if several else [cast(Scores, scores)]
    rows = _together([_rows(x) for x in given])
    known = None if models is None else _properties(models)
    found = None
    options = _options(compare or {})
    if known is not None:
        printed = published.tables_behind(rows.protocol.unique())
        found = findings.of_run(rows, known, options, printed)
    elif compare:
        raise InputError(f"compare needs models, whose properties are known: got {compare} alone.")
    contents = Contents(
        scores=rows,
        models=known,
        found=found,
        instruction=options.instruction,
        alignments=[row for x in given if isinstance(x, BenchmarkScore) for row in _whole(x)],
        title=title,
        descriptions=protocols.descriptions(rows.protocol),
        provenance=_provenance(rows),
    )
    made = build.build(contents)
    files = _write(made, rows, folder)
    return WrittenReport(
        title=made.title,
        lead=made.lead,
        summary=made.summary,
        tables=made.tables,
        charts=made.charts,
        page=folder / PAGE,
        files=files,
    )


def _rows(scores: Scores) -> pd.DataFrame:
    """Return the score rows of whatever stands for them."""
    if isinstance(scores, BenchmarkScore):
        if "roi" not in scores.rows:
            raise InputError(
                f"scores must be of recordings, but {scores.benchmark} has no regions; its own "
                f"page is in {scores.workdir}."
            )
        return scores.rows
    if not isinstance(scores, pd.DataFrame):
        return frames.load_scores(scores)
    if lost := [name for name in rows_lib.SCHEMA.names if name not in scores]:
        raise InputError(
            f"scores must have the columns of jaxalign/io/rows.py, but {', '.join(lost)} are not "
            "there: begin with jaxalign.load_scores."
        )
    return scores.reset_index(drop=True)


def _together(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    if not found or not any(map(len, found)):
        raise InputError("scores must hold rows, got none.")
    rows = pd.DataFrame(pd.concat(found, ignore_index=True)[rows_lib.SCHEMA.names])
    if not (rows.control_of == "").any():
        raise InputError("scores must hold those of a model, found controls alone.")
    return frames.once(rows)


def _properties(models: pd.DataFrame | Path) -> pd.DataFrame:
    """Return what is known of models, checked, in the layout of `literature.properties.wide`."""
    if isinstance(models, pd.DataFrame):
        table = models if "model" in models else models.reset_index(names="model")
        part = [
            properties.row(row["model"], name, value, "given")
            for row in table.to_dict("records")
            for name, value in row.items()
            if name != "model" and value is not None and value == value and value != ""
        ]
        rows = properties.table(part, where="models")
    elif str(models).startswith(rows_lib.PUBLISHED):
        rows = published.properties(str(models).removeprefix(rows_lib.PUBLISHED))
    else:
        file = pathlib.Path(models)
        if not file.is_file():
            raise InputError(f"models must be a frame or a CSV file: there is none at {file}.")
        rows = property_sources.read_csv(file)
    return properties.wide(properties.join([rows]))


def _options(compare: Mapping[str, Any]) -> findings.Options:
    names = [field.name for field in dataclasses.fields(findings.Options)]
    if unknown := [x for x in compare if x not in names]:
        raise InputError(f"compare must have keys among {', '.join(names)}, got {unknown[0]!r}.")
    return findings.Options(**compare)


def _whole(score: BenchmarkScore) -> list[dict]:
    """Return the one score of the protocol of a model and of its controls, as tables have them."""
    every = {(score.model, ""): score.alignment}
    every |= {(name, score.model): part for name, part in score.controls.items()}
    names = ("protocol", "folds_hash", "score", "raw", "raw_low", "raw_high")
    names += ("ceiling", "ceiling_low", "ceiling_high", "contiguous", "num_nan")
    return [
        {
            "model": model,
            "control_of": control_of,
            "layers": sorted(set(part.layers.ravel().tolist())),
        }
        | {name: getattr(part, name) for name in names}
        for (model, control_of), part in every.items()
    ]


def _provenance(rows: pd.DataFrame) -> str:
    lines = []
    for name in ("git_commit", "versions", "fingerprint"):
        part = [x or "unknown" for x in dict.fromkeys(rows[name])]
        lines.append(f"{name.replace('_', ' ')} {', '.join(part)}")
    return "\n".join(lines)


def _write(made: Page, rows: pd.DataFrame, folder: pathlib.Path) -> list[str]:
    """Write a report in the place of one before it, and never over a file of anybody else.

    Raises:
      InputError: if a file of the same name was not written here, or has changed since.
    """
    run_dir.check_writable(folder)
    before = _written(folder / FILES)
    is_own = lambda name: run_dir.hash_file(folder / name) in before.get(name, ())
    with tempfile.TemporaryDirectory(dir=folder, prefix=".report-") as name:
        drawn = pathlib.Path(name)
        files = [*made.write(drawn), finished.TABLE]
        rows_lib.write(drawn / finished.TABLE, rows.to_dict("records"))
        taken = [x for x in files if (folder / x).exists() and not is_own(x)]
        if not before and (folder / FILES).exists():
            taken.append(FILES)
        if taken:
            raise InputError(
                f"path must be a folder without files of these names that no report has written, "
                f"but {folder} has {len(taken)}: {', '.join(taken[:4])}"
                f"{', ...' if len(taken) > 4 else ''}; move them, or choose another path."
            )
        hashes = {x: [run_dir.hash_file(drawn / x)] for x in files}
        # Both, until all files are in their place: a call that was killed has written either.
        both = {x: [*before.get(x, ()), *hashes.get(x, ())] for x in {**before, **hashes}}
        run_dir.write_json(folder / FILES, {REPORT: both})
        for name in before:
            if (folder / name).is_file() and is_own(name):
                (folder / name).unlink()
        for name in files:
            os.replace(drawn / name, folder / name)
    run_dir.write_json(folder / FILES, {REPORT: hashes})
    return files


def _written(index: pathlib.Path) -> dict[str, list[str]]:
    """Return the hashes of the files that a report has written; nothing if there was none."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    listed = found.get(REPORT) if isinstance(found, dict) else None
    if not isinstance(listed, dict):
        return {}
    return {os.path.basename(name): list(hashes) for name, hashes in listed.items()}
