"""Activations of sentences and non-words -> masks of language-selective and of random units."""

import dataclasses
import functools
import io
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxalign.checks import NotNegative, Rule, check
from jaxalign.core import localizer as core
from jaxalign.data import localizer
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing import work
from jaxalign.reporting import page as page_lib
from jaxalign.reporting.page import SUMMARY
from jaxalign.reporting.pages import localizer as report
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages.artefacts import Activations, Masks, Page

VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the localisation stage."""

    # Of the units of all layers, rounded down; as many random units are drawn from the rest.
    percent: Annotated[float, Rule("lie above 0 and be at most 50", lambda x: 0 < x <= 50)] = 1.0
    num_units: NotNegative = 0  # instead of `percent`, if not 0
    embedding: bool = False  # whether units of layer 0 can be chosen

    def __post_init__(self):
        check(self, "localize")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the masks of each network, with its own weights or random ones, and their report.

    Raises:
      InputError: if the stimuli are not those of a localiser, or there are too few units.
    """
    localizer.conditions(job.dataset.stimuli.stimulus_id)
    steps = []
    for stores in (artefacts.trained(upstream), artefacts.untrained(upstream)):
        for model, source in stores.items():
            num, size = _num_units(config, source), _size(config, source)
            if not 1 <= num <= size // 2:
                raise InputError(
                    f"localize must choose between 1 and {size // 2} units of {model}, half of "
                    f"its {size}, got {num}: see localize.percent and localize.num_units."
                )
            artefact = Artefact(
                workdir=job.root,
                stage="localize",
                kind=Masks.kind,
                name=source.artefact.name,
                settings={
                    "version": VERSION,
                    "seed": job.seed,
                    "num_units": num,
                    "embedding": config.embedding,
                },
                inputs=(source.artefact,),
                cost=f"{num} of {size} units",
            )
            make = functools.partial(_localize, config, job, source)
            taken = work.small(host_s=1.0, disk_bytes=float(size))
            steps.append(Step(artefact=artefact, make=make, work=taken))
    page = Artefact(
        workdir=job.workdir,
        stage="localize",
        kind=Page.kind,
        name="report",
        settings={"version": VERSION, "page": page_lib.VERSION},
        inputs=tuple(step.artefact for step in steps),
        cost="tables, charts, page",
        latest_only=True,
    )
    write = functools.partial(_report, config)
    return [*steps, Step(artefact=page, make=write, work=work.PAGE, shows=SUMMARY)]


def _size(config: Config, source: Activations) -> int:
    """Units that can be chosen."""
    return source.width * (source.num_layers + config.embedding)


def _num_units(config: Config, source: Activations) -> int:
    return config.num_units or int(_size(config, source) * config.percent / 100)


def _localize(config: Config, job: Job, source: Activations, artefact: Artefact) -> dict:
    t, halves = _contrast(config, source)
    num = _num_units(config, source)
    try:
        language = core.top_units(t, num)
        control = core.random_units(language, ~np.isnan(t), np.random.default_rng(job.seed))
        half = core.HalfT(*[np.nan] * 3) if halves is None else core.half_t(halves, num)
    except ValueError as error:
        raise InputError(f"localize {artefact.name}: {error}") from error
    buffer = io.BytesIO()
    np.savez(buffer, language=language, random=control, t=t)
    run_dir.write_atomic(artefact.path / Masks.UNITS, buffer.getvalue())
    common = source.names
    rows = report.by_layer({"language": language, "random": control}, t)
    rows = rows.assign(**common, **{f"half_t_{x}": value for x, value in half._asdict().items()})
    rows_lib.write_table(
        artefact.path / Masks.TABLE, rows[[*common, *rows.columns.drop(list(common))]]
    )
    return {"num_units": num, "num_undefined": int(np.isnan(t).sum())}


def _contrast(
    config: Config, source: Activations
) -> tuple[Float[np.ndarray, "L u"], Float[np.ndarray, "2 L u"] | None]:
    """Return t of each unit over all items, and over every second one and the rest.

    The latter is None where there are fewer than four items of a condition.
    """
    opened = source.open()
    kind = np.array(localizer.conditions(source.stimulus_ids()))
    items = [np.flatnonzero(kind == x) for x in (localizer.CONDITION, localizer.CONTROL)]
    t = np.full((opened.shape[0], opened.shape[2]), np.nan)
    halves = None if min(map(len, items)) < 4 else np.full((2, *t.shape), np.nan)
    for layer in range(0 if config.embedding else 1, len(t)):
        values = opened.read_layer(layer)
        t[layer] = core.welch_t(*(values[own] for own in items))
        for i in () if halves is None else range(2):
            halves[i, layer] = core.welch_t(*(values[own[i::2]] for own in items))
    return t, halves


def _report(config: Config, artefact: Artefact) -> dict:
    """Lay out the units of all networks as a page."""
    tables = [rows_lib.read_table(x.path / Masks.TABLE) for x in artefact.inputs]
    layers = pd.concat(tables, ignore_index=True)
    networks = {}
    for source, own in zip(artefact.inputs, tables, strict=True):
        with (source.path / Masks.UNITS).open("rb") as opened, np.load(opened) as file:
            name = f"{own.model.iloc[0]} {own.control_of.iloc[0]}".strip()
            networks[name] = report.Units(file["t"], file["language"], file["random"])
    # Within the work directory: the page is the same wherever that lies.
    places = [(x.path / Masks.UNITS).relative_to(x.workdir) for x in artefact.inputs]
    paths = dict(zip(networks, places, strict=True))
    found = report.Found(layers, networks, paths, config.embedding)
    page = report.page(found, page_lib.provenance(artefact, run_dir.git_commit()))
    return {"num_networks": len(networks), "files": page.write(artefact.path, parquet=True)}
