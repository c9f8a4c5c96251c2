"""Activations that somebody else computed -> a store of each network, as extraction makes it."""

import dataclasses
import functools
import importlib.metadata
import json
import pathlib
from typing import Annotated

import numpy as np

from jaxalign.checks import check, each, some
from jaxalign.data import controls
from jaxalign.data.formats import tables
from jaxalign.errors import InputError
from jaxalign.io import activation_files, run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.models import labels
from jaxalign.pricing import work
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages.artefacts import Activations

VERSION = 1
STIMULI = "stimuli"  # as `rows`: those of the data set, in its order
SHARD_STIMULI = 256  # stimuli of one file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the import stage."""

    # Files .npz (see io/activation_files.py) or .npy, or what the data set publishes, by name;
    # LABEL=FILE gives another name.
    models: Annotated[tuple[str, ...], some("name at least one file")]
    # What the rows of an .npy are: "stimuli", those of the data set in its order, or a CSV table
    # with their stimulus_id. An .npz says it itself.
    rows: str = ""
    # Numbers of the layers of an .npy; (): from 0, the embedding.
    layers: Annotated[tuple[int, ...], each("be integers >= 0", lambda layer: layer >= 0)] = ()
    # What is known of how the network read the files' stimuli; the report repeats it.
    context: Annotated[str, some("say what is known, or 'unknown'")] = "unknown"
    pooling: Annotated[str, some("say what is known, or 'unknown'")] = "unknown"

    def __post_init__(self):
        check(self, "imported")
        for name in ("rows", "layers"):
            if getattr(self, name) and not any(x.endswith(".npy") for x in self.models):
                raise InputError(
                    f"imported.{name} must be left out without an .npy, for other files say it "
                    f"themselves: got {getattr(self, name)!r}."
                )


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Open the files, and plan one store for each.

    Raises:
      InputError: if a file is missing or malformed, its rows are not known or are not the data
        set's stimuli, or two networks have the same name.
    """
    extracted = artefacts.trained(upstream) if "extract" in upstream else {}
    taken = {x.model for x in extracted.values()}
    steps = []
    for name in config.models:
        model, given = _find(config, job, name)
        if model in controls.CONTROLS:
            raise InputError(
                f"a model must not be called as a control is: give {name!r} as LABEL=FILE."
            )
        if model in taken:
            raise InputError(
                f"imported.models must have names of their own, found {model!r} twice: give one "
                "as LABEL=FILE."
            )
        taken.add(model)
        job.dataset.check_rows(given)
        artefact = Artefact(
            workdir=job.root,
            stage="imported",
            kind=Activations.IMPORTED,
            name=model,
            settings=_settings(job, model, given),
            cost=_cost(given),
        )
        size = _size(given)
        needed = lambda layout, size=size: work.Work(host_bytes=3.0 * size, disk_bytes=float(size))
        steps.append(Step(artefact=artefact, make=functools.partial(_import, given), work=needed))
    return steps


def _find(config: Config, job: Job, name: str) -> tuple[str, activation_files.Given]:
    """Open what a name of the data set or a path stands for; return what it is called, too."""
    if name in job.dataset.networks:
        return name, job.dataset.activations(name)
    label, place = labels.split(name)
    path = pathlib.Path(place)
    if path.suffix not in (".npz", ".npy") or not path.is_file():
        known = "".join(f", or {x!r} of {job.dataset.name}" for x in job.dataset.networks)
        raise InputError(f"imported.models must name a file .npz or .npy{known}: found {name!r}.")
    if path.suffix == ".npz":
        given = activation_files.open_npz(path)
    else:
        given = activation_files.open_npy(path, _rows(config, job, path), layers=config.layers)
    given = dataclasses.replace(given, context=config.context, pooling=config.pooling)
    return label or path.stem, given


def _rows(config: Config, job: Job, path: pathlib.Path) -> list[str]:
    """Return what the rows of an .npy are, as the configuration says."""
    if config.rows == STIMULI:
        return list(job.dataset.stimuli.stimulus_id)
    if not pathlib.Path(config.rows).is_file():
        raise InputError(
            f"imported.rows must say what the rows of {path} are: {STIMULI!r}, if they are those "
            f"of {job.dataset.name} in its order, or a CSV table with their stimulus_id; got "
            f"{config.rows!r}."
        )
    return tables.read(pathlib.Path(config.rows), ("stimulus_id",))["stimulus_id"].tolist()


def _settings(job: Job, model: str, given: activation_files.Given) -> dict:
    return {
        "version": VERSION,
        "store_format": store.FORMAT_VERSION,
        "dataset": job.dataset.stimuli_name,
        "stimuli_hash": job.dataset.stimuli.hash,
        "model": model,
        "model_hash": run_dir.hash_file(given.path),
        "ids_hash": run_dir.hash_text(json.dumps(list(given.stimulus_id))),
        "untrained_seed": -1,
        "layers": list(given.layers),
        "num_layers": max(given.layers),
        "width": given.width,
        "num_stimuli": len(given.stimulus_id),
        "context": given.context,
        "pooling": given.pooling,
    }


def _dtype(given: activation_files.Given) -> str:
    """Return what values are stored in; float64 would be rounded by the solver too."""
    return "float16" if given.dtype == "float16" else "float32"


def _cost(given: activation_files.Given) -> str:
    return (
        f"{len(given.stimulus_id)} stimuli, {len(given.layers)} layers x {given.width} units, "
        f"store {_size(given) / 1e6:.1f} MB"
    )


def _size(given: activation_files.Given) -> int:
    """Return the bytes of the store."""
    values = len(given.layers) * len(given.stimulus_id) * given.width
    return values * np.dtype(_dtype(given)).itemsize


def _import(given: activation_files.Given, artefact: Artefact) -> dict:
    """Check every value, and write them in the order of the file, with their ids."""
    settings = artefact.settings
    values = given.read()
    with np.errstate(over="ignore"):  # what overflows is found below
        stored = values.astype(_dtype(given))
    if not np.isfinite(stored).all():
        raise InputError(
            f"{given.path}: activations must fit float32, found {np.abs(values).max():g}."
        )
    run_dir.write_json(artefact.path / store.STIMULUS_IDS, list(given.stimulus_id))
    opened = store.create(
        artefact.path / store.ARRAY,
        shape=stored.shape,
        dtype=_dtype(given),
        shard_stimuli=SHARD_STIMULI,
        attributes=store.Attributes(
            fingerprint=artefact.fingerprint,
            dataset=settings["dataset"],
            stimuli_hash=settings["stimuli_hash"],
            model=settings["model"],
            model_hash=settings["model_hash"],
            tokenizer_hash="",
            untrained_seed=-1,
            reading={"context": settings["context"], "pooling": settings["pooling"]},
            layer_names=[f"layer {number}" for number in given.layers],
            final_norm_applied=False,
            versions={name: importlib.metadata.version(name) for name in ("jaxalign", "numpy")},
        ),
    )
    for i, rows in enumerate(opened.shards):
        store.finish_write(opened.write_shard(i, stored[:, rows.start : rows.stop]), artefact)
    return {"file": str(given.path), "dtype": given.dtype}
