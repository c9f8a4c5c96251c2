"""Plan and run the stages of a configuration: what the command line and Python both do."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import ml_collections
from absl import logging

from jaxalign import config as config_lib
from jaxalign.core import mesh
from jaxalign.data import datasets
from jaxalign.data.formats.recordings import NaN
from jaxalign.data.sets import download
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import Job, Step

DATA_ROOT = "JAXALIGN_DATA"  # environment variable: the folder of published data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run makes, and from what.

    Attributes:
      settings: every setting under its dotted name, stages in their order.
      job: what all stages are given.
      stages: the steps of each stage, in the order in which they are made.
    """

    settings: Mapping[str, Any]
    job: Job
    stages: Mapping[str, Sequence[Step]]

    @property
    def steps(self) -> list[Step]:
        """Steps of all stages, in order."""
        return [step for steps in self.stages.values() for step in steps]


def data_folder(path: str | os.PathLike[str] | None) -> pathlib.Path | None:
    """Return the folder of published data: the path, or what the environment names, or None."""
    found = path or os.environ.get(DATA_ROOT)
    return pathlib.Path(found) if found else None


def plan(
    settings: ml_collections.ConfigDict,
    *,
    workdir: str | os.PathLike[str],
    data_root: str | os.PathLike[str] | None = None,
    fetch: bool = False,
) -> Plan:
    """Plan all stages of a configuration, which finds every error that needs no computing.

    Args:
      settings: from `config.pack`.
      workdir: where artefacts go; nothing is written yet.
      data_root: folder of published data; None: the environment variable JAXALIGN_DATA.
      fetch: download files of the data set that are missing, see `data.sets.download`.

    Raises:
      InputError: if a setting, data set, model or device is not what it must be.
    """
    common, stages = config_lib.unpack(settings)
    root = data_folder(data_root)
    if fetch:
        download.fetch(common.dataset, root)
    try:
        devices = mesh.make_mesh(*common.mesh)
    except ValueError as error:
        raise InputError(str(error)) from error
    dataset = None
    if common.dataset:
        dataset = datasets.find(common.dataset, root, nan=cast(NaN, common.nan))
    job = Job(
        workdir=pathlib.Path(workdir).absolute(),
        data_root=root,
        dataset=dataset,
        mesh=devices,
        seed=common.seed,
    )
    planned: dict[str, list[Step]] = {}
    upstream: dict[str, list[Artefact]] = {}
    for name, config in stages.items():
        planned[name] = config_lib.STAGES[name].load().plan(config, job, upstream)
        upstream[name] = [step.artefact for step in planned[name]]
    return Plan(settings=config_lib.flatten(settings), job=job, stages=planned)


def run(plan: Plan, say: Callable[[str], None] = logging.info) -> int:
    """Make every artefact of a plan that is not finished, and keep what is.

    A run may be killed at any moment, and goes on where it was when it is started again.

    Args:
      plan: from `plan`.
      say: is called with a line about what is made, what it will take and what it took.

    Returns:
      How many artefacts were made.

    Raises:
      InputError: if the work directory cannot be written, or a stage meets what it refuses.
    """
    workdir, is_finished = plan.job.workdir, all(step.artefact.is_done for step in plan.steps)
    try:
        run_dir.check_writable(workdir)
    except InputError:
        if not is_finished:  # what is finished can be read where nothing can be written
            raise
    else:
        run_dir.sweep(workdir)
        run_dir.write_json(workdir / "config.json", plan.settings)
    made = 0
    for step in plan.steps:
        artefact = step.artefact
        if artefact.is_done:
            say(f"{_label(artefact)}: up to date ({artefact.path})")
            continue
        if artefact.is_marked:
            say(f"{_label(artefact)}: {_changed(artefact)}: made again")
        say(f"{_label(artefact)}: {artefact.cost or 'starting'}")
        start = time.monotonic()
        artefact.start()
        artefact.finish(**step.make(artefact))
        made += 1
        say(f"{_label(artefact)}: done in {time.monotonic() - start:.1f} s ({artefact.path})")
    if not made:
        say(f"Nothing to compute: all {len(plan.steps)} artefacts are up to date.")
    return made


def results(plan: Plan) -> str:
    """Return what the steps of a finished plan have to show at the end of a run."""
    shown = [step.artefact.path / step.shows for step in plan.steps if step.shows]
    return "".join(path.read_text(encoding="utf-8") for path in shown)


def describe(plan: Plan) -> str:
    """Say what a plan would do: each setting as the flag that overrides it, each step's cost."""
    job = plan.job
    lines = ["# Configuration", *(f"--config.{k}={v!r}" for k, v in plan.settings.items())]
    lines += ["", "# Plan", f"workdir: {job.workdir}", f"data_root: {job.data_root}"]
    lines += [f"devices: {job.mesh.size} x {job.mesh.devices.flat[0].device_kind}"]
    for step in plan.steps:
        artefact = step.artefact
        status = "up to date" if artefact.is_done else "to do"
        if artefact.is_marked and not artefact.is_done:
            status += f" again, {_changed(artefact)}"
        lines.append(f"{_label(artefact)}: {status}; {artefact.cost}; {artefact.path}")
    return "\n".join(lines) + "\n"


def _label(artefact: Artefact) -> str:
    return f"{artefact.stage} {artefact.name}".strip()


def _changed(artefact: Artefact) -> str:
    """Say which files of a finished artefact have changed since."""
    names = run_dir.changed(artefact.path)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names[:3])}{more} {verb} not what was written"
