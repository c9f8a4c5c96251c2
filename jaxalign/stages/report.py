"""Score rows, and what is known of models -> tables, charts and one HTML page."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

import pandas as pd

from jaxalign.data import properties, protocols, published
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io.run_dir import Artefact
from jaxalign.reporting import build, findings, methods
from jaxalign.stages import Job, Step, Upstream

VERSION = 10
SUMMARY = build.SUMMARY
ROWS = "rows.parquet"  # as the encode and collect stages name them
PARTITION = "partition.parquet"
SIGNIFICANCE = "significance.parquet"
PROPERTIES = "properties.parquet"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the report stage."""

    title: str = "Brain alignment"
    # Of the comparison of models, which needs the stage properties; see report/findings.py.
    paper: str = ""  # whose printed numbers are held against its tables: "aw2024", "oota2025"
    apart: tuple[str, ...] = ()  # families that pooled numbers leave out, unless they name them
    predictors: tuple[str, ...] = ()  # properties to correlate with; (): all that vary
    instruction: str = ""  # whose scores count where a model was given several
    num_resamples: int = 9999

    def __post_init__(self):
        self.options(0)  # checks them

    def options(self, seed: int) -> findings.Options:
        """Return how models are compared.

        Raises:
          InputError: if a setting is out of range.
        """
        return findings.Options(
            paper=self.paper,
            apart=tuple(self.apart),
            predictors=tuple(self.predictors),
            instruction=self.instruction,
            num_resamples=self.num_resamples,
            seed=seed,
        )


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the one report of the run.

    Raises:
      InputError: if there is no stage with scores, or a paper is named whose tables are not read.
    """
    sources = [*upstream.get("encode", ()), *upstream.get("collect", ())]
    if not sources:
        raise InputError("a run must have the stage encode or collect, to have scores to report.")
    known = tuple(upstream.get("properties", ()))
    if config.paper and not known:
        raise InputError(
            f"report.paper needs the stage properties, to compare models: {config.paper!r}."
        )
    settings = {"version": VERSION} | dataclasses.asdict(config)
    if known:
        settings["seed"] = job.seed
    artefact = Artefact(
        workdir=job.workdir,
        stage="report",
        name="",
        settings=settings,
        inputs=(*sources, *known),
        cost="tables, charts, page",
        latest_only=True,
    )
    planted = upstream["simulate"][0] if "simulate" in upstream else None
    make = functools.partial(_report, config, job.seed, planted)
    return [Step(artefact=artefact, make=make, shows=SUMMARY)]


def _report(config: Config, seed: int, planted: Artefact | None, artefact: Artefact) -> dict:
    kinds = _by_kind(artefact.inputs)
    rows = _read(kinds["rows"], ROWS)
    rows_lib.write(artefact.path / "scores.parquet", rows.to_dict("records"))
    models = found = None
    if kinds["properties"]:
        models = properties.wide(_read(kinds["properties"], PROPERTIES))
        if rows[rows.control_of == ""].model.nunique() > 1:
            tables = {name: published.table(name) for name in _papers(rows)}
            found = findings.of_run(rows, models, config.options(seed), tables)
    encoded = [x for x in kinds["rows"] if x.stage == "encode"]
    alignments = [x.facts()["alignment"] for x in encoded]
    names = [x for x in dict.fromkeys(rows.protocol) if x in protocols.PROTOCOLS]
    report = build.build(
        rows,
        models=models,
        found=found,
        partition=_read(kinds["partition"], PARTITION) if kinds["partition"] else None,
        significance=_read(kinds["permutations"], SIGNIFICANCE) if kinds["permutations"] else None,
        alignments=[x for x in alignments if x is not None],
        title=config.title,
        left_out=sorted({s for x in artefact.inputs for s in x.facts().get("left_out", ())}),
        planted=None if planted is None else planted.settings,
        descriptions={name: protocols.describe(protocols.find(name)) for name in names},
        folds=_folds(encoded[0].settings) if encoded else "outer folds",
        provenance=_provenance(rows, artefact),
    )
    files = report.write(artefact.path)
    return {"num_rows": len(rows), "files": [*files, "scores.parquet"]}


def _by_kind(inputs: Sequence[Artefact]) -> dict[str, list[Artefact]]:
    """Sort what earlier stages have made by what is in it."""
    kinds = {name: [] for name in ("rows", "partition", "permutations", "ceiling", "properties")}
    for x in inputs:
        marks = [name for name in ("partition", "permutations", "ceiling") if x.settings.get(name)]
        if x.stage != "encode":
            marks = ["properties"] if x.stage == "properties" else []
        kinds[marks[0] if marks else "rows"].append(x)
    return kinds


def _read(artefacts: Sequence[Artefact], name: str) -> pd.DataFrame:
    rows = pd.concat([rows_lib.read(x.path / name) for x in artefacts])
    return rows.reset_index(drop=True)


def _papers(rows: pd.DataFrame) -> list[str]:
    """Return the names of the tables of the papers whose scores are here."""
    names = [x for x in dict.fromkeys(rows.protocol) if x.startswith(methods.PUBLISHED)]
    papers = sorted({x.removeprefix(methods.PUBLISHED).partition("-")[0] for x in names})
    files = [x for paper in papers for x in sorted((published.FOLDER / paper).glob("*.csv"))]
    return [x.relative_to(published.FOLDER).with_suffix("").as_posix() for x in files]


def _folds(settings: Mapping[str, object]) -> str:
    """Say what the outer folds of the encoding stage are."""
    if settings.get("groups", "none") == "none":
        return "contiguous outer folds"
    whole = {"passage": "passages", "dataset": "groups of the data set"}[settings["groups"]]
    drawn = f", drawn with seed {settings['group_seed']}" if settings["group_seed"] >= 0 else ""
    return f"outer folds of whole {whole}{drawn}"


def _provenance(rows: pd.DataFrame, artefact: Artefact) -> str:
    row = rows.iloc[0]
    described = json.dumps(artefact.describe(), indent=1)
    return f"commit {row.git_commit or 'unknown'}\nversions {row.versions}\n{described}"
