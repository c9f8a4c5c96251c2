"""Score rows of other runs, and of papers, for the report of this one."""

import dataclasses
import functools
from typing import Annotated

import pandas as pd

from jaxalign.checks import Names, among, check
from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io import rows as rows_lib
from jaxalign.io.place import Place
from jaxalign.io.run_dir import Artefact
from jaxalign.literature import published as published_lib
from jaxalign.results import finished
from jaxalign.stages import Job, Step, Upstream
from jaxalign.stages.artefacts import CollectedScores

VERSION = 1
# What tells two scores apart; of one metric, one instruction, and as many units.
KEYS = ("dataset", "model", "control_of", "layer", "subject", "roi", "protocol")
KEYS += ("metric", "instruction", "num_units")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the collect stage."""

    # Figures of papers: names of literature/published.py.
    published: Annotated[Names, among(published_lib.NAMES)] = ()
    # Workdirs of other runs: the scores of their report, or of encode where there is no report.
    # Files of rows that encode wrote can stand for the latter.
    runs: Names = ()
    # Whether a model that was scored on a data set under several protocols is called "MODEL,
    # PROTOCOL", so that a report can show them side by side: it refuses rows of one model that were
    # scored in several ways.
    name_protocols: bool = False

    def __post_init__(self):
        check(self, "collect")
        if not self.published and not self.runs:
            raise InputError("collect must have something in published or runs, got neither.")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Read all rows, and plan one file of them.

    Raises:
      InputError: if a workdir has no rows, or rows of another schema, or a score is there twice.
    """
    del upstream
    found = {f"published:{name}": published_lib.score_rows(name) for name in config.published}
    hashes = [published_lib.fingerprint(name) for name in config.published]
    for text in config.runs:
        workdir = place.at(text)
        if workdir.absolute() == job.workdir.absolute():
            raise InputError(
                f"collect.runs must be other runs: {text!r} is this one, whose own scores are "
                "reported anyway."
            )
        paths = _files(workdir)
        found[text] = pd.concat([rows_lib.read(x) for x in paths], ignore_index=True)
        hashes += [run_dir.hash_file(x) for x in paths]
    rows = _together(found)
    if config.name_protocols:
        rows = _with_protocols(rows)
    artefact = Artefact(
        workdir=job.root,
        stage="collect",
        kind=CollectedScores.kind,
        name="",
        settings={
            "version": VERSION,
            "rows_schema": rows_lib.SCHEMA_VERSION,
            "published": list(config.published),
            "hashes": hashes,
            **({"name_protocols": True} if config.name_protocols else {}),
            # What of the package the report reads with these rows.
            "papers": published_lib.papers_behind(rows.protocol.unique()),
            "has_instructions": bool((rows.instruction != "").any()),
        },
        cost=f"{len(rows)} rows of {rows.model.nunique()} models",
    )
    return [Step(artefact=artefact, make=functools.partial(_write, rows))]


def _files(workdir: Place) -> list[Place]:
    """Return the files of score rows of a run, of artefacts that are finished."""
    if workdir.name == finished.ROWS:
        run_dir.check_whole(workdir)
        return [workdir]
    found = finished.files(workdir, ("encode",))
    if not found:
        if not workdir.is_dir():
            raise InputError(f"collect.runs must be workdirs: there is no folder {str(workdir)!r}.")
        raise InputError(
            f"collect.runs: {workdir} must hold score rows: neither {finished.REPORT}/"
            f"{finished.TABLE} nor encode/*/{finished.ROWS} is there and finished."
        )
    return found


def _together(found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Put rows one after another, and refuse a score that is there twice."""
    named = [frame.assign(source=name) for name, frame in found.items()]
    rows = pd.concat(named, ignore_index=True)
    twice = rows[rows.duplicated(list(KEYS), keep=False)]
    if len(twice):
        first = twice.iloc[0]
        same = twice[(twice[list(KEYS)] == first[list(KEYS)]).all(axis=1)]
        known = [x for x in KEYS if first[x] != "" and (x != "num_units" or first[x])]
        what = ", ".join(f"{name} {first[name]}" for name in known)
        raise InputError(
            f"collect must find every score once, found {len(same)} of {what}: in "
            f"{' and in '.join(dict.fromkeys(same.source))}."
        )
    return rows.drop(columns="source")


def _with_protocols(rows: pd.DataFrame) -> pd.DataFrame:
    """Name the protocol of models that were scored on a data set under several."""
    is_model = rows.control_of == ""
    whose = rows.model.where(is_model, rows.control_of)
    several = rows.groupby([rows.dataset, whose]).protocol.transform("nunique") > 1
    named = whose + ", " + rows.protocol
    return rows.assign(
        model=rows.model.where(~(several & is_model), named),
        control_of=rows.control_of.where(~several | is_model, named),
    )


def _write(rows: pd.DataFrame, artefact: Artefact) -> dict:
    rows_lib.write(artefact.path / CollectedScores.ROWS, rows.to_dict("records"))
    return {"num_rows": len(rows), "num_models": int(rows.model.nunique())}
