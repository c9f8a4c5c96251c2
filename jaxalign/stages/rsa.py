"""Activations x dissimilarities of people -> RSA of every layer, under its noise ceiling.

For data sets that publish dissimilarities and not responses; others go through `similarity`.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float
from tqdm import tqdm

from jaxalign import stopping
from jaxalign.checks import Names, among, check, differ, one_of, some
from jaxalign.core import features
from jaxalign.core import similarity as core
from jaxalign.core.ceilings import rdms as ceilings
from jaxalign.data.dissimilarities import Dissimilarities
from jaxalign.data.images import lowlevel
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.reporting import page as page_lib
from jaxalign.reporting import tables as score_tables
from jaxalign.reporting.page import SUMMARY
from jaxalign.reporting.pages import rsa as report
from jaxalign.reporting.tables import GROUP
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages.artefacts import Activations, Page, RdmControls, Similarity

VERSION = 2
PIXELS = "pixels"  # the images themselves, unit by unit
LOW_LEVEL = ("luminance", "color", "gabor")  # see data/images/lowlevel.py


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the stage."""

    # How dissimilar two images are in a layer: 1 - r over its units, or 1 - cosine.
    distances: Annotated[Names, among(core.DISTANCES), some("name at least one")] = ("pearson",)
    comparison: Annotated[str, one_of(core.COMPARISONS)] = "spearman"  # of RDMs; or "pearson"
    standardize: bool = False  # features to unit variance over the images
    layers: Annotated[tuple[int, ...], differ] = ()  # of every network; (): all

    def __post_init__(self):
        check(self, "rsa")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one table for each network, one of controls and ceilings, and their page.

    Raises:
      InputError: if the data set has no dissimilarities, or a layer is not there.
    """
    people = job.dataset.dissimilarities
    settings = {
        "version": VERSION,
        "dataset": job.dataset.name,
        "stimuli_hash": job.dataset.stimuli.hash,
        "dissimilarities_hash": people.hash,
        "distances": list(config.distances),
        "comparison": config.comparison,
    }
    stores = (artefacts.networks(upstream), artefacts.untrained(upstream))
    steps = []
    for source in (x for found in stores for x in found.values()):
        source.check_layers("rsa", config.layers)
        layers = config.layers or source.layers
        artefact = Artefact(
            workdir=job.root,
            stage="rsa",
            kind=Similarity.kind,
            name=source.artefact.name,
            settings=settings | {"layers": list(layers), "standardize": config.standardize},
            inputs=(source.artefact,),
            cost=f"{len(layers)} layers, {people.values.shape[1]} pairs",
        )
        make = functools.partial(_compare, config, job, source)
        steps.append(Step(artefact=artefact, make=make))
    has_images = job.dataset.stimuli.pixels is not None
    controls = Artefact(
        workdir=job.root,
        stage="rsa",
        kind=RdmControls.kind,
        name="controls and ceilings",
        settings=settings | ({"low_level": lowlevel.VERSION} if has_images else {}),
        cost=f"{(1 + len(LOW_LEVEL)) * has_images + len(people.others)} controls",
    )
    steps.append(Step(artefact=controls, make=functools.partial(_controls, config, job)))
    page = Artefact(
        workdir=job.workdir,
        stage="rsa",
        kind=Page.kind,
        name="report",
        settings={"version": VERSION, "page": page_lib.VERSION},
        inputs=tuple(step.artefact for step in steps),
        cost="tables, charts, page",
        latest_only=True,
    )
    return [*steps, Step(artefact=page, make=_report, shows=SUMMARY)]


def _subjects(config: Config, people: Dissimilarities) -> dict[str, Float[np.ndarray, " m"]]:
    """Return the dissimilarities of each subject, and of their mean, ready to be compared."""
    own = people.by_subject.mean(axis=1)
    found = dict(zip(people.subjects, own, strict=True)) | {GROUP: own.mean(axis=0)}
    return {name: core.comparable(x, config.comparison) for name, x in found.items()}


def _rows(
    config: Config, subjects: Mapping[str, np.ndarray], rdm: np.ndarray, common: Mapping
) -> list[dict]:
    """Compare one matrix of dissimilarities with those of every subject."""
    ready = core.comparable(rdm, config.comparison)
    return [
        {**common, "subject": name, "comparison": config.comparison, "value": float(own @ ready)}
        for name, own in subjects.items()
    ]


def _compare(config: Config, job: Job, source: Activations, artefact: Artefact) -> dict:
    start = time.monotonic()
    people = job.dataset.dissimilarities
    subjects = _subjects(config, people)
    row = {name: i for i, name in enumerate(source.stimulus_ids())}
    if source.absent:
        raise InputError(
            f"rsa needs activations of every image: {source.label} answered nothing about "
            f"{len(source.absent)} of {len(row)}; use --config.extract.answer_pooling=prompt_last."
        )
    if lost := [x for x in people.stimulus_id if x not in row]:
        raise InputError(f"rsa: activations of {source.model} must have a row for {lost[0]!r}.")
    order = [row[x] for x in people.stimulus_id]
    common = {
        "dataset": job.dataset.name,
        **source.names,
        "num_layers": source.num_layers,
        "context": source.reading["context"],
        "pooling": source.reading["pooling"],
        "instruction": source.reading["instruction"],
        "units": "all",
        "num_samples": len(order),
        "fingerprint": artefact.fingerprint,
        "git_commit": run_dir.git_commit(),
        "roi": people.roi,
    }
    found = []
    layers = config.layers or source.layers
    done = tqdm(layers, desc=f"rsa {artefact.name}", unit=" layers", mininterval=1.0)
    for layer in stopping.watch(done):
        X = source.read_layer(layer)[order]
        if config.standardize:
            X = features.standardize(X.astype(np.float64), [""] * len(X))
        for distance in config.distances:
            of_layer = {"layer": layer, **source.layer_columns(layer), "measure": _name(distance)}
            found += _rows(config, subjects, core.rdm(X, distance), common | of_layer)
    table = pd.DataFrame(found)
    rows_lib.write_table(artefact.path / Similarity.SCORES, table)
    return {
        "num_nan": int(table.value.isna().sum()),
        "seconds": round(time.monotonic() - start, 3),
    }


def _name(distance: str) -> str:
    return f"rsa_{distance}"


def _controls(config: Config, job: Job, artefact: Artefact) -> dict:
    """Compare pixels, and what the data set has of others, and find the noise ceiling."""
    people, stimuli = job.dataset.dissimilarities, job.dataset.stimuli
    subjects = _subjects(config, people)
    found = []
    if stimuli.pixels is not None:
        place = {name: i for i, name in enumerate(stimuli.stimulus_id)}
        order = [place[x] for x in people.stimulus_id]
        images = stimuli.pixels.read(order)
        if len({x.shape for x in images}) > 1:
            raise InputError("rsa: images must have one size to be compared pixel by pixel.")
        flat = np.stack([x.reshape(-1) for x in images]).astype(np.float64)
        features_of = {PIXELS: flat}
        features_of |= {x: lowlevel.of_images(x, stimuli.pixels)[order] for x in LOW_LEVEL}
        for name, X in features_of.items():
            found += _rows(config, subjects, core.rdm(X, "pearson"), {"control": name})
    for name, rdm in people.others.items():
        found += _rows(config, subjects, rdm, {"control": name})
    bounds = ceilings.bounds(people.by_subject, config.comparison)
    table = pd.DataFrame({"subject": people.subjects, **bounds._asdict()})
    rows_lib.write_table(artefact.path / RdmControls.CONTROLS, pd.DataFrame(found))
    rows_lib.write_table(artefact.path / RdmControls.CEILINGS, table)
    return {"num_controls": len({row["control"] for row in found})}


def _report(artefact: Artefact) -> dict:
    """Lay out the values of all networks as a page."""
    scores = pd.concat(
        [
            rows_lib.read_table(x.artefact.path / Similarity.SCORES)
            for x in artefacts.among(Similarity, artefact.inputs)
        ],
        ignore_index=True,
    )
    [others] = artefacts.among(RdmControls, artefact.inputs)
    controls, bounds = (
        rows_lib.read_table(others.artefact.path / name)
        for name in (RdmControls.CONTROLS, RdmControls.CEILINGS)
    )
    provenance = page_lib.provenance(artefact, scores.git_commit.iloc[0])
    scores = score_tables.names_with_instructions(scores)
    page = report.page(scores, controls, bounds, provenance)
    return {"num_rows": len(scores), "files": page.write(artefact.path, parquet=True)}
