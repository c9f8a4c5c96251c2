"""The last job of a sweep, a configuration itself: scores of all jobs that are done, and a report.

python -m jaxalign.main --config=jaxalign/sweeps/together.py:<store>/sweeps/<name>
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from jaxalign import config
from jaxalign.errors import InputError
from jaxalign.io import place
from jaxalign.results import finished
from jaxalign.stages import collect, properties, report
from jaxalign.stages.artefacts import Scores
from jaxalign.sweeps import record as record_lib
from jaxalign.sweeps.record import RUN, Job

# Stages whose pages say something of models, which the findings compare scores with.
_OF_MODELS = ("behavior", "next_word")


def get_config(folder: str = "") -> ml_collections.ConfigDict:
    """Return the configuration that collects what the jobs of a sweep have scored.

    The title says how many of the jobs are in it, if not all are.

    Args:
      folder: of the sweep.

    Raises:
      InputError: if it is none, or no job with scores is done.
    """
    record = record_lib.read(pathlib.Path(folder).absolute())
    every = [x for x in record.jobs if x.kind == RUN]
    done = [x for x in every if x.is_done]
    runs = [path for job in done for path in _scores(job)]
    if not runs:
        raise InputError(f"no job of the sweep {folder} that has scores is done: see --status.")
    sources = [f"run:{x.folder}" for x in done if any(y.stage in _OF_MODELS for y in x.products)]
    packed = _packed(runs, sources if record.compares_models else None, record.together)
    if "report.title" not in record.together:
        packed = config.override(packed, {"report.title": record.folder.name})
    if len(done) < len(every):
        title = f"{packed.report.title} ({len(done)} of {len(every)} jobs)"
        packed = config.override(packed, {"report.title": title})
    return packed


def check(changes: Mapping[str, Any], *, compares_models: bool = True) -> None:
    """Check settings of the last job.

    Args:
      changes: the settings.
      compares_models: see `record.Record`.

    Raises:
      InputError: if one is unknown or has a value that it cannot have.
    """
    if "collect.runs" in changes:
        raise InputError("together(): collect.runs must be left out: they are the sweep's jobs.")
    try:
        config.unpack(_packed(["."], [] if compares_models else None, changes))
    except InputError as error:
        raise InputError(f"together(): {error}") from error


def _packed(
    runs: Sequence[str], sources: Sequence[str] | None, changes: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Return the configuration.

    Sources None: models have several protocols, which are named with them, and there is no stage
    that compares models by what is known of them.
    """
    collected = collect.Config(runs=tuple(runs), name_protocols=sources is None)
    stages = {"collect": collected, "report": report.Config()}
    if sources is not None:
        stages["properties"] = properties.Config(sources=("zoo",))
    packed = config.override(config.pack(config.Common(), **stages), changes)
    if sources is None:
        return packed
    # What jobs have measured of models counts beside what else is known of them.
    known = (*packed.properties.sources, *sources)
    return config.override(packed, {"properties.sources": known})


def _scores(job: Job) -> list[str]:
    """Return where the score rows of a run are: in its report, or one file for each artefact."""
    scored = [x for x in job.products if x.kind == Scores.kind]
    if scored and any(x.stage == finished.REPORT for x in job.products):
        return [job.folder]
    return [str(place.at(x.path) / finished.ROWS) for x in scored]
