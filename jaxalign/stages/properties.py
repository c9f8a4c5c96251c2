"""What is known of models: the zoo, published figures, lm-evaluation-harness, runs, own tables."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import pandas as pd
from absl import logging

from jaxalign.checks import Names, check, each, some
from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io import rows as rows_lib
from jaxalign.io.place import Place
from jaxalign.io.run_dir import Artefact
from jaxalign.literature import properties as lib
from jaxalign.literature import property_sources, published
from jaxalign.models import catalogue, table
from jaxalign.pricing import work
from jaxalign.results import finished
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages.artefacts import Activations, Page, Properties

VERSION = 2
OWN = "run"
# Stages of this run that say something of models.
READ = ("extract", "imported", "behavior", "next_word")


def _is_source(source: str) -> bool:
    kind, colon, rest = source.partition(":")
    return (kind in ("zoo", OWN) and not colon) or (
        kind in ("published", "lm_eval", OWN, "csv") and bool(rest)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the properties stage."""

    # In order; what a later one says overrides what an earlier one said:
    # "zoo": sizes and families in the table of models;
    # "published:NAME": figures of a paper (literature/published.py), such as "published:aw2024";
    # "lm_eval:PATH": results of lm-evaluation-harness, a file or a folder of results_*.json;
    # "run": this run's own losses, reading times and layers; "run:WORKDIR": those of another;
    # "csv:PATH": a table with a column `model` and columns named as properties or task:TASK:METRIC.
    sources: Annotated[
        Names,
        some("name at least one source"),
        each("be zoo, published:NAME, lm_eval:PATH, run, run:WORKDIR or csv:PATH", _is_source),
    ] = ("zoo",)
    # "NAME=OTHER": a model that a source calls NAME is OTHER here, for all sources but the zoo.
    rename: Annotated[
        tuple[str, ...], each("hold NAME=OTHER", lambda pair: all(pair.partition("=")))
    ] = ()

    def __post_init__(self):
        check(self, "properties")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Read all sources but this run's own, and plan one table of all.

    Raises:
      InputError: if a source is missing or malformed, or what they say does not hold together.
    """
    frames = {source: _read(config, source, job, upstream) for source in config.sources}
    stores, pages = [], []
    if OWN in config.sources:
        made = [x for stage in READ for x in upstream.get(stage, ())]
        kinds = (Activations.TRAINED, Activations.IMPORTED)
        stores = [x for x in artefacts.among(Activations, made) if x.artefact.kind in kinds]
        pages = [x.artefact for x in artefacts.among(Page, made)]
    else:
        lib.join(list(frames.values()))
    artefact = Artefact(
        workdir=job.root,
        stage="properties",
        kind=Properties.kind,
        name="",
        settings={
            "version": VERSION,
            "rows_schema": rows_lib.SCHEMA_VERSION,
            "sources": list(config.sources),
            "rename": list(config.rename),
            "content": [
                "" if frame is None else run_dir.hash_text(lib.content(frame))
                for frame in frames.values()
            ],
            # All that is read of activations; what they are, and of which weights, plays no part.
            "networks": [[x.model, x.num_layers, x.width] for x in stores],
        },
        inputs=tuple(pages),
        cost=f"{len(frames)} sources",
    )
    read = [x.path for x in (*(store.artefact for store in stores), *pages)]
    join = functools.partial(_join, config, frames, read)
    return [Step(artefact=artefact, make=join, work=work.TABLES)]


def _read(config: Config, source: str, job: Job, upstream: Upstream) -> pd.DataFrame | None:
    """Read a source; None of this run's own, which are not there yet."""
    kind, _, rest = source.partition(":")
    if source == OWN:
        if not any(upstream.get(stage) for stage in READ):
            raise InputError(
                f"properties.sources has 'run', so the run must have one of {', '.join(READ)}."
            )
        return None
    readers: Mapping[str, Callable[[], pd.DataFrame]] = {
        "zoo": _zoo,
        "published": lambda: published.properties(rest),
        "lm_eval": lambda: property_sources.read_harness(_existing(rest), table.by_repository()),
        OWN: lambda: property_sources.read_run(_other(rest, job)),
        "csv": lambda: property_sources.read_csv(_existing(rest)),
    }
    found = readers[kind]()
    return found if kind == "zoo" else _renamed(config, found, source)


def _zoo() -> pd.DataFrame:
    rows = [
        lib.row(model, name, value, "zoo" + (" (by model_type)" if name == "family" else ""))
        for model, known in catalogue.properties().items()
        for name, value in known.items()
    ]
    return lib.table(rows, where="the table of models")


def _renamed(config: Config, rows: pd.DataFrame, source: str) -> pd.DataFrame:
    names = dict(pair.split("=", 1) for pair in config.rename)
    renamed = lib.rename(rows, names)
    return lib.table(renamed.to_dict("records"), where=f"{source}, with properties.rename,")


def _existing(text: str) -> pathlib.Path:
    place.refuse_urls("properties.sources", text)
    path = pathlib.Path(text)
    if not path.exists():
        raise InputError(f"properties.sources must name files that are there: {text!r} is not.")
    return path


def _other(text: str, job: Job) -> Place:
    path = place.at(text)
    if path.absolute() == job.workdir.absolute():
        raise InputError(f"properties.sources must call this run itself 'run', got 'run:{text}'.")
    return path


def _join(
    config: Config,
    frames: Mapping[str, pd.DataFrame | None],
    paths: Sequence[Place],
    artefact: Artefact,
) -> dict:
    read = dict(frames)
    if OWN in read:
        own = property_sources.read_run(artefact.workdir, paths)
        read[OWN] = _renamed(config, own, OWN)
    joined = lib.join(list(read.values()))
    overridden = lib.num_overridden(joined)
    if overridden:
        logging.info(
            "properties: %d of %d values override those of an earlier source; %s says which",
            overridden,
            len(joined),
            artefact.path / Properties.ROWS,
        )
    rows = joined.to_dict("records")
    shared = finished.provenance(artefact.fingerprint)
    finished.write(artefact.path / Properties.ROWS, rows, shared, rows_lib.PROPERTIES)
    models = lib.wide(joined)
    run_dir.write_atomic(artefact.path / Properties.TABLE, lib.to_csv(models).encode())
    return {"num_models": len(models), "num_rows": len(rows), "num_overridden": overridden}
