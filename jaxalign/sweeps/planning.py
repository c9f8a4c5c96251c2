"""Planning of a sweep: every run is planned, and what runs share becomes a job of its own."""

import dataclasses
import functools
import math
import operator
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from tqdm import tqdm

from jaxalign import runner
from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io.place import Place
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing.assumed import Assumed
from jaxalign.pricing.chips import Machine
from jaxalign.stages import artefacts
from jaxalign.sweeps import costs, together
from jaxalign.sweeps import entries as entries_lib
from jaxalign.sweeps import record as record_lib
from jaxalign.sweeps.entries import Entry, Sweep
from jaxalign.sweeps.record import LAST, RUN, SHARED, Job, Product, Record

COLLECT = "collect"  # name of the last job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """Where a sweep is and reads.

    Attributes:
      store: of all jobs, a folder or a place in a bucket.
      name: of the sweep.
      own: folder of the sweep; None: in the store, which then is a folder.
      data_root: folder of published data; None: as the environment says.
      fetch: download what is missing of data sets, while they are planned.
      machine: of each job; None: not known, and jobs have no price.
      is_elsewhere: whether the plan is for its price alone: models may be absent, and nothing runs.
    """

    store: Place
    name: str
    own: pathlib.Path | None = None
    data_root: pathlib.Path | None = None
    fetch: bool = False
    machine: Machine | None = None
    is_elsewhere: bool = False

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the sweep."""
        return self.own or record_lib.folder(self.store, self.name)

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags that all jobs have."""
        given = (f"--data_root={self.data_root}",) if self.data_root else ()
        return (f"--store={self.store}", *given)


def check_store(where: Where, *, is_resumed: bool) -> None:
    """Refuse a store that cannot be written, and a sweep that was started before.

    Raises:
      InputError: naming the flag that says what to do.
    """
    run_dir.check_writable(where.folder, "folder" if where.own else "store")
    if where.own:
        run_dir.check_writable(where.store, "store")
    was_started = (where.folder / record_lib.RECORD).is_file()
    if was_started and not is_resumed:
        raise InputError(
            f"{where.folder} is a sweep that was started: --status shows how far it is, --resume "
            "goes on with it, another --name begins anew."
        )


def read_and_plan(
    path: str, overrides: Sequence[str], where: Where, devices_per_job: int
) -> Record:
    """Plan a configuration file's sweep in a process that has no part in computing it.

    JAX is given as many simulated devices as a job will have: accelerators stay free for the jobs,
    and may be on other machines.

    Args:
      path: see `entries.read`.
      overrides: see `entries.read`.
      where: see `plan`.
      devices_per_job: accelerators of each job; 0: none, it computes on the CPU.

    Raises:
      InputError: see `entries.read` and `plan`.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(devices_per_job, 1))
    return plan(entries_lib.read(path, overrides), where)


def describe(record: Record, machine: Machine | None = None, rate: float = math.nan) -> str:
    """Say which jobs there are, what each makes, needs and costs, and what a run of it would be.

    Args:
      record: of the sweep.
      machine: of each job; None: not known.
      rate: money for one device and hour; NaN: none is known.
    """
    made: set[str] = set()
    text = ["# Jobs"]
    for job in record.jobs:
        after = "" if job.kind == LAST or not job.after else f", after {', '.join(job.after)}"
        text.append(f"{job.name}: {job.kind}{after}")
        for x in job.products:
            if x.key not in made:
                done = "up to date" if x.is_marked else "to do"
                text.append(f"  {x.label}: {done}; {x.cost}")
        made |= {x.key for x in job.products}
    text.append(f"{len(record.jobs)} jobs, {len(made)} artefacts; {record.folder}")
    if record.remark:
        text.append(f"Their scores are not collected: {record.remark}")
    last = record.jobs[-1]
    text += ["", "# Command of the last", shlex.join(last.flags), "", "# Price"]
    if machine is None:
        text.append("No price: which devices a job will have is not known here; give --chip.")
        return "\n".join(text) + "\n"
    text += [f"assumed: {x}" for x in record.assumed]
    text += [f"{name}: {why}" for name, why in costs.refused(record.jobs).items()]
    return "\n".join([*text, costs.table(record, machine, rate)])


def plan(sweep: Sweep, where: Where) -> Record:
    """Plan every run of a sweep, which finds all mistakes, and the jobs that make them.

    Whatever two runs share is a job of its own, which they wait for: activations of a model,
    planted responses, the ceiling of a protocol.

    Args:
      sweep: from `entries.read`.
      where: where it goes; nothing is written.

    Raises:
      InputError: naming the first dictionary that is wrong, and why.
    """
    plans = [_planned(x, where) for x in tqdm(sweep.entries, desc="plan", unit=" jobs", delay=5.0)]
    compiled: set[tuple] = set()
    jobs = _shared_jobs(plans, _shared(plans), where, compiled)
    maker = {product.key: job.name for job in jobs for product in job.products}
    for found in plans:
        folder = where.folder / found.entry.name
        after = dict.fromkeys(maker[x.key] for x in found.products if x.key in maker)
        jobs.append(
            Job(
                name=found.entry.name,
                kind=RUN,
                folder=str(folder),
                flags=(*found.entry.flags, f"--workdir={folder}", *where.flags),
                after=tuple(after),
                products=found.products,
                planned=_price(
                    found, [x for x in found.products if x.key not in maker], where, compiled
                ),
            )
        )
    remark = _why_not_together(plans)
    if remark and sweep.together:
        raise InputError(f"together() of {sweep.path} must be left out: {remark}")
    if not remark:
        together.check(sweep.together, compares_models=_compares_models(plans))
        folder = where.folder / COLLECT
        flags = (f"--config={together.__file__}:{where.folder}", f"--workdir={folder}")
        every = tuple(x.name for x in jobs)
        planned = costs.of_last(where.machine) if where.machine else {}
        jobs.append(
            Job(
                name=COLLECT,
                kind=LAST,
                folder=str(folder),
                flags=flags,
                after=every,
                planned=planned,
            )
        )
    return Record(
        folder=where.folder,
        jobs=jobs,
        together=sweep.together,
        remark=remark,
        compares_models=_compares_models(plans),
        assumed=functools.reduce(operator.or_, (x.assumed for x in plans)).lines,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Planned:
    """What is kept of a run's plan; data sets that it holds are not."""

    entry: Entry
    products: tuple[Product, ...]
    inputs: Mapping[str, tuple[str, ...]]  # keys of what a product is made from
    rows: Sequence[tuple[str, ...]]  # which score rows it has: see `_rows`
    assumed: Assumed
    steps: Mapping[str, costs.Step]  # what making a product takes; {} where no machine is known


def _planned(entry: Entry, where: Where) -> _Planned:
    try:
        found = runner.plan(
            entry.settings,
            workdir=where.folder / entry.name,
            data_root=where.data_root,
            places=runner.Places(store=where.store, is_here=False),
            fetch=where.fetch,
            machine=where.machine if where.is_elsewhere else None,
        )
        products = tuple(_product(x.artefact) for x in found.steps)
        steps = costs.of_plan(found, products, where.machine) if where.machine else {}
    except InputError as error:
        raise InputError(f"{entry.where}: {error}") from error
    inputs = {
        _product(step.artefact).key: tuple(
            _product(x).key for x in (*step.artefact.inputs, *step.needs)
        )
        for step in found.steps
    }
    rows = _rows([x.artefact for x in found.steps])
    return _Planned(
        entry=entry,
        products=products,
        inputs=inputs,
        rows=rows,
        assumed=found.assumed,
        steps=steps,
    )


def _price(found: _Planned, made: Sequence[Product], where: Where, compiled: set[tuple]):
    """Return what the job takes that makes some products of a run; {} where no machine is known."""
    if where.machine is None:
        return {}
    return costs.of_job({x.key: found.steps[x.key] for x in made}, where.machine, compiled)


def _product(artefact: Artefact) -> Product:
    return Product(
        stage=artefact.stage,
        kind=artefact.kind,
        name=artefact.name,
        path=str(artefact.path),
        fingerprint=artefact.fingerprint,
        cost=artefact.cost,
    )


def _shared(plans: Sequence[_Planned]) -> dict[tuple[int, ...], list[str]]:
    """Return what several runs make, by the numbers of these runs.

    What needs something that not all of these runs make is left to the runs.
    """
    users: dict[str, list[int]] = {}
    for i, found in enumerate(plans):
        for product in found.products:
            users.setdefault(product.key, []).append(i)
    several = {key: tuple(own) for key, own in users.items() if len(own) > 1}
    has_all = lambda needed, own: set(own) <= set(several.get(needed, ()))
    left = None
    while left != len(several):
        left = len(several)
        for found in plans:
            for key, needed in found.inputs.items():
                own = several.get(key)
                if own and not all(has_all(x, own) for x in needed if x in found.inputs):
                    del several[key]
    shared: dict[tuple[int, ...], list[str]] = {}
    for key, own in several.items():
        shared.setdefault(own, []).append(key)
    return shared


def _shared_jobs(
    plans: Sequence[_Planned],
    shared: Mapping[tuple[int, ...], Sequence[str]],
    where: Where,
    compiled: set[tuple],
) -> list[Job]:
    """Return a job for each set of runs that share something, in an order in which they can run.

    What an artefact is made from has at least as many users: more users come first.
    """
    jobs: list[Job] = []
    maker: dict[str, str] = {}
    for own in sorted(shared, key=lambda x: (-len(x), x)):
        keys, first = shared[own], plans[own[0]]
        # Pages are of one run each, even where their content is the same.
        made = tuple(x for x in first.products if x.key in keys and _is_stored(x))
        if not made:
            continue
        name = _free_name(made, [x.entry.name for x in plans] + [x.name for x in jobs])
        needed = [maker[x] for key in keys for x in first.inputs[key] if x in maker]
        folder = where.folder / name
        only = ",".join(x.key for x in made)
        jobs.append(
            Job(
                name=name,
                kind=SHARED,
                folder=str(folder),
                flags=(
                    *first.entry.flags,
                    f"--workdir={folder}",
                    *where.flags,
                    f"--only={only}",
                ),
                after=tuple(dict.fromkeys(needed)),
                products=made,
                planned=_price(first, made, where, compiled),
            )
        )
        maker |= {x.key: name for x in made}
    return jobs


def _is_stored(product: Product) -> bool:
    return place.at(product.path).name == product.fingerprint


def _free_name(made: Sequence[Product], taken: Sequence[str]) -> str:
    """Name a shared job by the first thing that it makes."""
    words = re.sub(r"[^\w.+=-]+", "_", f"{made[0].stage}-{made[0].name}").strip("_")[:60]
    name, number = words, 2
    while name in (*taken, COLLECT):
        name, number = f"{words}-{number}", number + 1
    return name


def _rows(steps: Sequence[Artefact]) -> list[tuple[str, ...]]:
    """Say which score rows a run has, by what tells rows of different runs apart."""
    found = []
    for x in artefacts.among(artefacts.Scores, steps):
        names = ("dataset", "model", "control_of", "instruction", "units")
        said: list[Any] = [x.settings.get(name, "") for name in names]
        found.append((*map(str, said), str(x.settings["protocol"]["name"])))
    return found


def _compares_models(plans: Sequence[_Planned]) -> bool:
    """Whether every model has one protocol on each data set, so that models can be compared."""
    rules: dict[tuple[str, str], set[str]] = {}
    for row in (x for found in plans for x in found.rows):
        rules.setdefault((row[0], row[1]), set()).add(row[-1])
    return all(len(x) == 1 for x in rules.values())


def _why_not_together(plans: Sequence[_Planned]) -> str:
    """Say why the rows of all runs cannot stand in one table, if they cannot."""
    if not any(found.rows for found in plans):
        return "no job scores recordings."
    seen: dict[tuple[str, ...], str] = {}
    for found in plans:
        for row in found.rows:
            other = seen.setdefault(row, found.entry.name)
            if other != found.entry.name:
                return (
                    f"the jobs {other} and {found.entry.name} both score {row[1]} on {row[0]} "
                    f"under {row[-1]}, and in one table nothing would tell their rows apart."
                )
    return ""
