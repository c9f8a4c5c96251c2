"""What finished jobs took beside what was planned: kept in the folder of each, shown for all."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from absl import logging

from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.sweeps import record as record_lib
from jaxalign.sweeps.record import LAST, Job, Record

COST = "cost.json"  # in the folder of a job


def keep(folder: pathlib.Path, seconds: float) -> None:
    """Write what a job took that has just ended well; nothing if its machine was not known.

    The file is like the done-marker of an artefact: `planned`, `took`, and of what the job has made
    the number of bytes.

    Args:
      folder: of the job.
      seconds: of all its processes.
    """
    if not (folder.parent / record_lib.RECORD).is_file():
        return  # a process that is of no sweep
    try:
        jobs = record_lib.read(folder.parent).jobs
    except InputError as error:  # the job is done all the same
        logging.warning("%s: %s", folder.name, error)
        return
    job = next((x for x in jobs if x.name == folder.name), None)
    if job is not None and job.planned:
        run_dir.write_json(folder / COST, _found(job, seconds))


def _found(job: Job, seconds: float) -> dict[str, Any]:
    markers = _markers(job)
    parts = [x["took"] for x in markers.values() if "took" in x]
    total = lambda name: round(sum(x[name] for x in parts), 3)
    took: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "seconds_of_steps": total("seconds"),
        "cpu_seconds": total("cpu_seconds"),
        "compile_seconds": total("compile_seconds"),
        "peak_bytes": max((x["peak_bytes"] for x in parts), default=0),
        "peak_of": parts[0]["peak_of"] if parts else "process",
    }
    flop = _counted(x for x in markers.values() if "took" in x)
    if flop:
        took["flop"] = flop
    if total_flop := sum((flop or job.planned["flop"]).values()):
        took["flop_per_s"] = total_flop / seconds
    sizes = {
        name: {"size": sum(stamp["size"] for stamp in x["files"].values())}
        for name, x in markers.items()
    }
    return {"planned": dict(job.planned), "took": took, "files": sizes}


def _counted(markers: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Add up the operations of steps, by kind; of one that counts none, those planned.

    Nothing if no step has counted any.
    """
    every = list(markers)
    found: dict[str, float] = {}
    for x in every if any("flop" in x["took"] for x in every) else ():
        for kind, number in x["took"].get("flop", x["planned"]["flop"]).items():
            found[kind] = found.get(kind, 0.0) + number
    return found


def _markers(job: Job) -> Mapping[str, Mapping[str, Any]]:
    """Return the done-markers of what a job was to make."""
    if job.kind == LAST:  # which has a folder for itself
        paths = sorted([*job.path.glob(f"*/{run_dir.DONE}"), *job.path.glob(f"*/*/{run_dir.DONE}")])
        return {str(x.parent.relative_to(job.path)): run_dir.marker(x.parent) for x in paths}
    makes = [x for x in job.products if x.key in job.planned["makes"]]
    found = {x.key: run_dir.marker(place.at(x.path)) for x in makes}
    return {key: x for key, x in found.items() if x}


def table(record: Record) -> str:
    """Return plan and truth of all finished jobs, a line for each; "" if there are none."""
    names, found = [], []
    for job in record.jobs:
        try:
            found.append(json.loads((job.path / COST).read_text(encoding="utf-8")))
            names.append(job.name)
        except FileNotFoundError:
            continue
    if not names:
        return ""
    from jaxalign.pricing import truth  # --status of a sweep without one need not wait for JAX

    return f"{truth.table(names, found)}\n\n"
