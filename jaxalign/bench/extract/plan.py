"""The plan of the bench: one artefact for each case, and a table of all."""

import dataclasses
import functools
import json
import pathlib

import pandas as pd

from jaxalign import processes
from jaxalign.bench import extract_page as tables
from jaxalign.bench import networks, timing
from jaxalign.bench.extract import answering, shared, stories
from jaxalign.bench.extract import network as network_lib
from jaxalign.bench.extract.config import Config, Network, cases
from jaxalign.data.sets import natural_stories
from jaxalign.data.text import tokenizer_files
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.reporting import page as page_lib
from jaxalign.reporting.page import SUMMARY
from jaxalign.stages import Job, Step, Upstream

VERSION = 1
ROWS = "rows"
MEASURES = {
    "forwards": network_lib.measure_forward,
    "stories": stories.measure_stories,
    "depths": network_lib.measure_depths,
    "loadings": network_lib.measure_loading,
    "answers": answering.measure_answers,
}


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one artefact for each case, and the table of them all.

    As in the bench of solvers, machine, versions and sources are settings.

    Raises:
      InputError: if a package or the published data are not there, or this is one of several
        processes.
    """
    del upstream
    processes.check_alone("the bench")
    if absent := networks.missing():
        raise InputError(f"bench_extract needs {', '.join(absent)}: pip install -e .[bench]")
    if job.data_root is None:
        raise InputError(
            "bench_extract reads Natural Stories and GPT-2's tokenizer: give --data_root or set "
            "JAXALIGN_DATA."
        )
    natural_stories.load(job.data_root, "sentence")
    tokenizer_files.load(job.data_root / shared.TOKENIZER)
    common = {
        "version": VERSION,
        "seed": job.seed,
        "machine": timing.machine(),
        "mesh": list(job.mesh.devices.shape),
        "code": _code(),
    }
    steps = []
    for field, name, case in cases(config):
        network = config.networks[case.network]
        artefact = Artefact(
            workdir=job.root,
            stage="bench_extract",
            name=name,
            settings=common
            | {"kind": field, "case": dataclasses.asdict(case)}
            | {"network": dataclasses.asdict(network)},
            cost=f"{field}, {network.family} of {network.num_layers} x {network.width}",
        )
        make = functools.partial(_measure, MEASURES[field], case, network, job)
        steps.append(Step(artefact=artefact, make=make))
    artefact = Artefact(
        workdir=job.workdir,
        stage="bench_extract",
        name="summary",
        settings={
            "version": VERSION,
            "page": page_lib.VERSION,
            "names": [name for _, name, _ in cases(config)],
        },
        inputs=tuple(step.artefact for step in steps),
        cost="tables, page",
        latest_only=True,
    )
    steps.append(Step(artefact=artefact, make=_summarize, shows=SUMMARY))
    return steps


def _code() -> str:
    """Hash the sources of what is timed, so that it is measured again when they change."""
    package = pathlib.Path(__file__).parents[2]
    folders = [package / x for x in ("bench/extract", "data", "io", "models", "stages/extract")]
    sources = [package / x for x in ("bench/networks.py", "bench/timing.py", "core/mesh.py")]
    sources += [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return run_dir.hash_text("".join(path.name + run_dir.hash_file(path) for path in sources))


def _measure(measure, case, network: Network, job: Job, artefact: Artefact) -> dict:
    rows = [
        {"name": artefact.name, "kind": artefact.settings["kind"], "network": case.network} | row
        for row in measure(case, network, job, artefact)
    ]
    frame = pd.DataFrame(rows)
    rows_lib.write_table(artefact.path / ROWS, frame)
    return {"num_rows": len(rows)}


def _summarize(artefact: Artefact) -> dict:
    """Put the rows of all artefacts together."""
    rows = pd.concat(
        [rows_lib.read_table(x.path / ROWS) for x in artefact.inputs], ignore_index=True
    )
    machines = {json.dumps(x.settings["machine"]) for x in artefact.inputs}
    assert len(machines) == 1  # all were planned in one process
    provenance = page_lib.provenance(artefact, run_dir.git_commit())
    page = tables.page(json.loads(machines.pop()), rows, provenance)
    return {"files": page.write(artefact.path)}
